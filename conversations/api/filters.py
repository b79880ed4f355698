"""Which sessions a list or an export is of."""

from datetime import UTC
from typing import Any

import django_filters
from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef, QuerySet
from django.utils.translation import gettext_lazy as _
from django_filters.fields import IsoDateTimeField

from conversations.models import ChatSession, Run, RunStatus
from conversations.search import containing
from conversations.session_list import SHELVES

SEARCH_MAX = 200


class MomentField(IsoDateTimeField):
    """A moment that is one in UTC too."""

    def to_python(self, value: Any) -> Any:
        moment = super().to_python(value)
        try:
            return moment and moment.astimezone(UTC)
        except OverflowError as exc:
            raise ValidationError(self.error_messages["invalid"], code="invalid") from exc


class MomentFilter(django_filters.IsoDateTimeFilter):
    """By a moment in ISO 8601."""

    field_class = MomentField


class SessionFilter(django_filters.FilterSet):
    """All conditions must hold; without `state` neither archived nor deleted ones are there."""

    search = django_filters.CharFilter(
        method="filter_search", max_length=SEARCH_MAX, label=_("Words of the title or of a message")
    )
    state = django_filters.ChoiceFilter(
        method="filter_state",
        choices=[(name, name) for name in SHELVES],
        label=_("`current` by default; `deleted` are those that can be restored"),
    )
    agent = django_filters.CharFilter(max_length=100, label=_("The agent that was asked for"))
    status = django_filters.ChoiceFilter(
        method="filter_status", choices=RunStatus.choices, label=_("With a reply in this status")
    )
    active_after = MomentFilter("active_at", "gte")
    active_before = MomentFilter("active_at", "lt")
    created_after = MomentFilter("created_at", "gte")
    created_before = MomentFilter("created_at", "lt")

    class Meta:
        model = ChatSession
        fields: list[str] = []

    def filter_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.form.cleaned_data["state"]:
            queryset = queryset.filter(SHELVES["current"])
        found: QuerySet[Any] = super().filter_queryset(queryset)
        return found

    def filter_state(self, queryset: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
        return queryset.filter(SHELVES[value])

    def filter_search(self, queryset: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
        return containing(queryset, value, owner=self.request.user)

    def filter_status(self, queryset: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
        return queryset.filter(Exists(Run.objects.filter(session=OuterRef("pk"), status=value)))
