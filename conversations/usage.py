"""Tokens and what they cost."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db.models import Count, Q, QuerySet, Sum
from django.db.models.functions import Coalesce

from conversations.models import Run, SideCall, UsageSource
from conversations.tokens import estimate_tokens

MILLION = 1_000_000
TOKEN_COLUMNS = ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens")
COST_PLACES = Decimal("0.000001")


@dataclass(frozen=True)
class TokenUsage:
    """Tokens of all model calls of a run; None where it is not known."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    source: UsageSource = UsageSource.UNKNOWN


UNKNOWN_USAGE = TokenUsage()
NO_USAGE = TokenUsage(0, 0, 0, 0, UsageSource.MEASURED)
"""Of a run that has called no model."""


def add_usage(one: TokenUsage, other: TokenUsage) -> TokenUsage:
    """Of both together; an estimate makes the whole an estimate."""
    sources = {one.source, other.source}
    return TokenUsage(
        input_tokens=_add(one.input_tokens, other.input_tokens),
        output_tokens=_add(one.output_tokens, other.output_tokens),
        cached_input_tokens=_add(one.cached_input_tokens, other.cached_input_tokens),
        reasoning_tokens=_add(one.reasoning_tokens, other.reasoning_tokens),
        source=next(source for source in reversed(UsageSource) if source in sources),
    )


def subtract_usage(whole: TokenUsage, part: TokenUsage) -> TokenUsage:
    """What `part` leaves of a measured `whole`."""
    left = {name: getattr(whole, name) - getattr(part, name) for name in TOKEN_COLUMNS}
    return TokenUsage(**left, source=whole.source)


def _add(one: int | None, other: int | None) -> int | None:
    return other if one is None else one + (other or 0)


def price(usage: TokenUsage, model: str) -> Decimal | None:
    """What it costs by `settings.MODEL_PRICES`, if that names the model.

    Prices are for a million tokens: `input`, `output` and, where it differs, `cached_input`.
    """
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    if not usage.input_tokens and not usage.output_tokens:
        return Decimal(0).quantize(COST_PLACES)
    prices = getattr(settings, "MODEL_PRICES", {}).get(model)
    if prices is None:
        return None
    cached_price = prices.get("cached_input")
    cached = min(usage.cached_input_tokens or 0, usage.input_tokens)
    cost = (
        (usage.input_tokens - cached) * Decimal(prices["input"])
        + cached * Decimal(prices["input"] if cached_price is None else cached_price)
        + usage.output_tokens * Decimal(prices["output"])
    ) / MILLION
    return cost.quantize(COST_PLACES)


def usage_of(run: Run) -> TokenUsage:
    """What a run has taken so far, as its row says."""
    counts = {name: getattr(run, name) for name in TOKEN_COLUMNS}
    return TokenUsage(**counts, source=UsageSource(run.usage_source))


def estimate_orphan(run: Run, asked: Iterable[Any], parts: list[dict[str, Any]]) -> TokenUsage:
    """Of a run whose worker is gone: what the model was given and has shown, and what was known.

    Unknown where nothing was shown.
    """
    before = usage_of(run)
    if not parts:
        return before
    given = sum(estimate_tokens(json.dumps(item, ensure_ascii=False)) for item in asked)
    made = sum(estimate_tokens(_made_text(part)) for part in parts)
    return TokenUsage(
        input_tokens=given + (before.input_tokens or 0),
        output_tokens=max(made, before.output_tokens or 0),
        source=UsageSource.ESTIMATED,
    )


def price_orphan(run: Run, usage: TokenUsage, *, changed_agent: bool) -> Decimal | None:
    """The cost of an orphan's whole `usage`, of which its row has a part already.

    Not known when it has `changed_agent` since: nobody has said which model that agent has.
    """
    before = usage_of(run)
    if before.input_tokens is None or usage.input_tokens is None:
        return None if changed_agent else price(usage, run.model)
    later = TokenUsage(
        usage.input_tokens - before.input_tokens,
        (usage.output_tokens or 0) - (before.output_tokens or 0),
    )
    cost = None if changed_agent else price(later, run.model)
    return sum_costs([run.cost, cost])


def _made_text(part: dict[str, Any]) -> str:
    return str(part.get("text") or part.get("arguments") or "")


def spent_columns(run: Run, usage: TokenUsage, cost: Decimal | None, model: str) -> dict[str, Any]:
    """The columns of what a run has taken, `cost` in all, with `model` answering at last.

    Without `model` all of it was made, and is priced, by the model that the run was claimed with.
    """
    if not model:
        return usage_columns(usage, price(usage, run.model))
    return {"model": model[:200], **usage_columns(usage, cost)}


def sum_costs(costs: Iterable[Decimal | None]) -> Decimal | None:
    """Of all of them together, which is not known where one is not."""
    total = Decimal(0)
    for cost in costs:
        if cost is None:
            return None
        total += cost
    return total.quantize(COST_PLACES)


def usage_columns(usage: TokenUsage, cost: Decimal | None) -> dict[str, Any]:
    """A usage and its cost as a row keeps them."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "usage_source": usage.source,
        "cost": cost,
    }


@dataclass(frozen=True)
class UsageTotals:
    """Of many runs, and of the calls for titles and summaries.

    `cost` is of those whose cost is known, None when there is none of them. `estimated`,
    `unknown` and `unpriced` tell how many the sums hold by estimate or not at all.
    """

    runs: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    reasoning_tokens: int
    estimated: int
    unknown: int
    cost: Decimal | None
    unpriced: int
    currency: str


def total_usage(runs: QuerySet[Run], side_calls: QuerySet[SideCall]) -> UsageTotals:
    """Over ended runs, and the calls for titles and summaries; one query each."""
    replies = _sum(runs.filter(ended_at__isnull=False))
    others = _sum(side_calls)
    costs = [cost for sums in (replies, others) if (cost := sums.pop("cost_sum")) is not None]
    replies["runs"], _ = replies.pop("rows"), others.pop("rows")
    both = {name: value + others.get(name, 0) for name, value in replies.items()}
    # SQLite adds decimals as floating-point numbers.
    cost = sum(costs, Decimal(0)).quantize(COST_PLACES) if costs else None
    return UsageTotals(cost=cost, currency=currency(), **both)


def _sum(rows: QuerySet[Any]) -> dict[str, Any]:
    sums = {name: Coalesce(Sum(name), 0) for name in TOKEN_COLUMNS}
    return rows.aggregate(
        rows=Count("pk"),
        estimated=Count("pk", filter=Q(usage_source=UsageSource.ESTIMATED)),
        unknown=Count("pk", filter=Q(usage_source=UsageSource.UNKNOWN)),
        unpriced=Count("pk", filter=Q(cost=None)),
        # Named apart: a filter by `cost` would mean this sum.
        cost_sum=Sum("cost"),
        **sums,
    )


def currency() -> str:
    """That of all prices."""
    return getattr(settings, "COST_CURRENCY", "USD")
