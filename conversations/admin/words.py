"""Sentences of the review pages."""

from django.utils.translation import gettext as _

from conversations.usage import UsageTotals


def describe_usage(totals: UsageTotals) -> str:
    """A line; what is missing from its sums is told as well."""
    known = totals.cost is not None
    cost = f"{totals.cost:.4f} {totals.currency}" if known else _("cost unknown")
    line = _(
        "%(runs)s replies: %(input)s tokens in, %(output)s out, %(cost)s "
        "(%(estimated)s estimated, %(unknown)s unknown, %(unpriced)s without a price)"
    )
    counts = {"runs": totals.runs, "input": totals.input_tokens, "output": totals.output_tokens}
    return line % {
        **counts,
        "cost": cost,
        "estimated": totals.estimated,
        "unknown": totals.unknown,
        "unpriced": totals.unpriced,
    }
