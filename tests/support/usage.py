"""Sums usage rows, to compare them with the stored running totals."""

from decimal import Decimal
from typing import Any

from django.db.models import Count, Q, QuerySet, Sum
from django.db.models.functions import Coalesce

from conversations.models import ChatSession, Run, SideCall, UsageSource
from conversations.runs.usage import COST_PLACES, TOKEN_COLUMNS, UsageTotals, currency


def added_up(session: ChatSession) -> UsageTotals:
    """Return the totals of a session, summed over its ended runs and its side calls."""
    replies = _sum(Run._default_manager.filter(session=session, ended_at__isnull=False))
    others = _sum(SideCall._default_manager.filter(session=session))
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
        # Another name than `cost`: a filter by `cost` would refer to this sum.
        cost_sum=Sum("cost"),
        **sums,
    )
