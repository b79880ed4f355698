"""The base of read-only admin lists with keyset pagination, and the filters of those lists."""

import base64
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db import DataError
from django.db.models import F, Model, Q, QuerySet
from django.db.models.lookups import GreaterThanOrEqual
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from conversations.models import RunStatus
from conversations.review.figures import Seconds
from conversations.review.reviews import LEFT, list_labels, recent_values, sessions_judged
from conversations.text import clean_text


class KeysetChangeList(ChangeList):
    """A change list with keyset pagination, by the admin's `keyset` column, the newest first.

    The address of the next page contains that column's value and the id of the last row, so that
    the last of many pages costs as little as the first.
    """

    model_admin: "ReadOnlyAdmin"
    result_list: Any
    next_page: str | None = None
    is_first: bool = True

    def get_results(self, request: HttpRequest) -> None:
        try:
            found = self._read(request)
        except (ValidationError, ValueError, OverflowError, DataError) as exc:
            # The address was edited: it names a position or a filter value that does not exist.
            raise IncorrectLookupParameters(exc) from exc
        self.result_list = self.model_admin.complete(found[: self.list_per_page])
        if len(found) > self.list_per_page:
            last = found[self.list_per_page - 1]
            self.next_page = _write_place(getattr(last, self.model_admin.keyset), last.pk)
        self.result_count = len(self.result_list)
        self.full_result_count = None
        self.show_full_result_count = False
        self.show_admin_actions = bool(self.result_list)
        self.can_show_all = False
        self.multi_page = False
        self.paginator = Paginator(self.result_list, self.list_per_page)

    def _read(self, request: HttpRequest) -> list[Any]:
        """Read one row more than a page shows, to know whether there is a next page."""
        column = self.model_admin.keyset
        rows = self.queryset.order_by(f"-{column}", "-pk")
        if place := _read_place(request.GET.get(PAGE_VAR, "")):
            moment, pk = place
            at_moment = Q(**{column: moment, "pk__lt": pk})
            rows = rows.filter(Q(**{f"{column}__lte": moment}))
            rows = rows.filter(Q(**{f"{column}__lt": moment}) | at_moment)
            self.is_first = False
        return list(rows[: self.list_per_page + 1])

    @property
    def next_address(self) -> str:
        return self.get_query_string({PAGE_VAR: self.next_page})

    @property
    def first_address(self) -> str:
        return self.get_query_string(remove=[PAGE_VAR])


def _write_place(moment: datetime, pk: Any) -> str:
    place = json.dumps([moment.isoformat(), str(pk)])
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def _read_place(text: str) -> tuple[datetime, str] | None:
    """Decode a position; return None if it is not valid."""
    try:
        padded = text + "=" * (-len(text) % 4)
        moment, pk = json.loads(base64.urlsafe_b64decode(padded))
        found = datetime.fromisoformat(moment)
    except (ValueError, TypeError):
        return None
    return (found, str(pk)) if found.tzinfo else None


class ReadOnlyAdmin(admin.ModelAdmin):
    """An admin without adding, changing and deleting; the time in `keyset` orders its list."""

    keyset = "created_at"
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    sortable_by = ()
    actions: Any = None
    change_list_template = "admin/conversations/change_list.html"

    class Media:
        css = {"all": ("conversations/review.css",)}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return KeysetChangeList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Allow only lookups of what is in `list_filter`, if Django allows them.

        By filters on other columns, somebody could guess hidden text letter by letter.
        """
        filters = self.get_list_filter(request)
        names = [getattr(chosen, "parameter_name", chosen) for chosen in filters]
        return lookup.split("__")[0] in names and super().lookup_allowed(lookup, value, request)

    def complete(self, rows: list[Any]) -> list[Any]:
        """Return the `rows` of a page as they are.

        Subclasses may override this to load, for all rows at once, what their columns show.
        """
        return rows

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def as_id(text: str) -> UUID | None:
    """Parse `text`, with or without white space around it, as a UUID; None if it is not one."""
    try:
        return UUID(text.strip())
    except ValueError:
        return None


def with_word(word: object, kind: str, detail: str = "") -> SafeString:
    """Return the HTML of `word`, coloured by the status `kind`, with `detail`, if any, below."""
    marked = format_html('<span class="status status-{}">{}</span>', kind, word)
    return format_html('{}<br><span class="quiet">{}</span>', marked, detail) if detail else marked


Choices = list[tuple[str, Any]]


class RunFilter(admin.SimpleListFilter):
    """A filter by a condition on one reply.

    `queryset` does nothing here: the change list applies the `run_condition` of all such filters,
    so that one and the same reply must meet them.
    """

    def condition(self) -> Q | None:
        """Return the chosen condition; None if no value is chosen, or one without a meaning."""
        value = self.value()
        return None if value is None else self.meaning(clean_text(value))

    def meaning(self, value: str) -> Q | None:
        """Return the condition for a chosen value; None if it has no meaning. To be overridden."""
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
    """A filter whose choices are the values found in the newest replies."""

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
    """A filter by when the reply was asked for: today, yesterday, or since 7 or 30 days ago.

    Periods begin at midnight in the site's time zone.
    """

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
    """A filter by a minimum."""

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
    """Return the condition that a reply meets all conditions chosen in `specs`, a list's filters.

    Returns None if none is chosen. Filters that are no `RunFilter` are ignored.
    """
    chosen = [spec.condition() for spec in specs if isinstance(spec, RunFilter)]
    conditions = [condition for condition in chosen if condition is not None]
    return Q(*conditions) if conditions else None


class ReviewFilter(admin.SimpleListFilter):
    """A filter of sessions by the state of their review and by its assignee."""

    title = _("review")
    parameter_name = "review"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("left", _("Not reviewed")),
            ("mine", _("Assigned to me, not reviewed")),
            ("assigned", _("Assigned, not reviewed")),
            ("changed", _("Went on after its review")),
            ("done", _("Reviewed")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        conditions = {
            "left": LEFT,
            "mine": LEFT & Q(review__assignee=request.user.pk),
            "assigned": LEFT & Q(review__assignee__isnull=False),
            "changed": Q(review__reviewed_at__lt=F("active_at")),
            "done": Q(review__reviewed_at__gte=F("active_at")),
        }
        condition = conditions.get(self.value() or "")
        return queryset.filter(condition) if condition else queryset


class FeedbackFilter(admin.SimpleListFilter):
    """A filter of sessions in which at least one reply was rated good, or bad."""

    title = _("feedback")
    parameter_name = "feedback"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("down", _("Thumbs down")), ("up", _("Thumbs up"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() in ("up", "down"):
            return queryset.filter(pk__in=sessions_judged(str(self.value())))
        return queryset


class LabelFilter(admin.SimpleListFilter):
    title = _("label")
    parameter_name = "label"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(str(label.pk), label.name) for label in list_labels()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value() or ""
        return queryset.filter(review__labels=int(value)) if value.isdecimal() else queryset


class DeletedFilter(admin.SimpleListFilter):
    """A filter of sessions by whether their users have deleted them; purged ones are gone."""

    title = _("deleted by its user")
    parameter_name = "deleted"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("no", _("No")), ("yes", _("Yes"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() in ("yes", "no"):
            return queryset.filter(deleted_at__isnull=self.value() == "no")
        return queryset
