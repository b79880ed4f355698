"""Filters of the lists of sessions and of replies: conditions that one reply must meet."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.contrib import admin
from django.db.models import F, Q, QuerySet
from django.db.models.lookups import GreaterThanOrEqual
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from conversations.models import RunStatus
from conversations.moments import Seconds
from conversations.review_reads import recent_values
from conversations.text import clean_text

Choices = list[tuple[str, Any]]


class RunFilter(admin.SimpleListFilter):
    """Says what must hold for a reply; the list puts all of them together."""

    def condition(self) -> Q | None:
        """None where nothing was chosen."""
        value = self.value()
        return None if value is None else self.meaning(clean_text(value))

    def meaning(self, value: str) -> Q | None:
        raise NotImplementedError

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset


class StatusFilter(RunFilter):
    title = _("how a reply ended")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        return list(RunStatus.choices)

    def meaning(self, value: str) -> Q:
        return Q(status=value)


class _SeenFilter(RunFilter):
    """Chooses among what the newest replies have."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        return [(value, value) for value in recent_values(str(self.parameter_name))]

    def has_output(self) -> bool:
        return True

    def meaning(self, value: str) -> Q:
        return Q(**{str(self.parameter_name): value})


class ErrorFilter(_SeenFilter):
    title = _("error")
    parameter_name = "error_code"


class ModelFilter(_SeenFilter):
    title = _("model")
    parameter_name = "model"


class AgentFilter(_SeenFilter):
    title = _("agent")
    parameter_name = "agent"


class DateFilter(RunFilter):
    """Days begin at midnight in the site's time zone."""

    title = _("when it was asked")
    parameter_name = "asked"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        return [
            ("today", _("Today")),
            ("yesterday", _("Yesterday")),
            ("week", _("Past 7 days")),
            ("month", _("Past 30 days")),
        ]

    def meaning(self, value: str) -> Q | None:
        today = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
        begin = {"today": 0, "yesterday": 1, "week": 7, "month": 30}.get(value)
        if begin is None:
            return None
        condition = Q(created_at__gte=today - timedelta(days=begin))
        return condition & Q(created_at__lt=today) if value == "yesterday" else condition


class _AboveFilter(RunFilter):
    """Chooses a least amount."""

    steps: tuple[tuple[str, Any], ...]
    above: Callable[[str], Q]

    def lookups(self, request: HttpRequest, model_admin: Any) -> Choices:
        return list(self.steps)

    def meaning(self, value: str) -> Q | None:
        return self.above(value) if value in dict(self.steps) else None


class TokensFilter(_AboveFilter):
    title = _("tokens of a reply")
    parameter_name = "tokens"
    steps = (("1000", _("1,000 and more")), ("10000", _("10,000 and more")))

    @staticmethod
    def above(value: str) -> Q:
        return Q(input_tokens__gte=int(value) - F("output_tokens"))


class CostFilter(_AboveFilter):
    title = _("cost of a reply")
    parameter_name = "cost"
    steps = (("0.01", _("0.01 and more")), ("0.1", _("0.10 and more")), ("1", _("1.00 and more")))

    @staticmethod
    def above(value: str) -> Q:
        return Q(cost__gte=Decimal(value))


class LatencyFilter(_AboveFilter):
    title = _("wait for the first token")
    parameter_name = "wait"
    steps = (("2", _("2 s and more")), ("5", _("5 s and more")), ("20", _("20 s and more")))

    @staticmethod
    def above(value: str) -> Q:
        return Q(GreaterThanOrEqual(Seconds("first_token_at", "created_at"), int(value)))


RUN_FILTERS = (
    *(DateFilter, StatusFilter, ErrorFilter, AgentFilter, ModelFilter),
    *(TokensFilter, CostFilter, LatencyFilter),
)


def run_condition(specs: list[Any]) -> Q | None:
    """All chosen conditions on one reply; None where there are none."""
    chosen = [spec.condition() for spec in specs if isinstance(spec, RunFilter)]
    conditions = [condition for condition in chosen if condition is not None]
    return Q(*conditions) if conditions else None
