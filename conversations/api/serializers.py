"""The serializers and filters of sessions, messages and runs."""

from dataclasses import asdict
from datetime import UTC
from typing import Any

import django_filters
from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef, QuerySet
from django.utils.translation import gettext_lazy as _
from django_filters.fields import IsoDateTimeField
from rest_framework import serializers

from conversations.api.schema import (
    MessageField,
    QueueField,
    RunViewField,
    ToolTimingField,
    TotalsField,
)
from conversations.models import ChatSession, Run, RunStatus
from conversations.queries import get_run_timings
from conversations.runs.usage import UsageTotals, currency
from conversations.sessions.lists import SHELVES
from conversations.sessions.search import containing
from conversations.shapes import History, MessageView, message_fields


class SessionSerializer(serializers.ModelSerializer[ChatSession]):
    """A session without its messages.

    `run_status` is the status of its first unfinished run; null if it has none.
    """

    run_status = serializers.CharField(read_only=True, allow_null=True)
    pinned = serializers.BooleanField(source="is_pinned", read_only=True)

    class Meta:
        model = ChatSession
        fields = (
            *("id", "title", "agent", "rev", "message_count", "run_status", "pinned"),
            *("created_at", "active_at", "archived_at", "deleted_at"),
        )
        read_only_fields = fields


class PieceSerializer(serializers.Serializer[Any]):
    """A piece of an excerpt; `found` is true for the words that were searched for."""

    text = serializers.CharField()
    found = serializers.BooleanField()


class MatchSerializer(serializers.Serializer[Any]):
    """The session's newest message that contains all words of the search, with an excerpt of it."""

    message_id = serializers.UUIDField()
    excerpt = PieceSerializer(many=True)


class ListedSessionSerializer(SessionSerializer):
    """A session in a list.

    `match` is null unless a search found the session by one of its messages.
    """

    match = MatchSerializer(read_only=True, allow_null=True)

    class Meta(SessionSerializer.Meta):
        fields = (*SessionSerializer.Meta.fields, "match")  # type: ignore[assignment]


class SessionDetailSerializer(SessionSerializer):
    """A session with messages, its first unfinished run or null, its queue and its usage.

    `queue` is what waits behind that run. If the branch goes on below the messages, `later` is the
    id of the last one, else empty.
    """

    messages = serializers.ListField(child=MessageField())
    run = RunViewField(allow_null=True)
    queue = serializers.ListField(child=QueueField())
    later = serializers.CharField(allow_blank=True)
    usage = TotalsField()

    class Meta(SessionSerializer.Meta):
        fields = (*SessionSerializer.Meta.fields, "messages", "run", "queue", "later", "usage")  # type: ignore[assignment]


class BranchQuery(serializers.Serializer[Any]):
    """A message id: selects its branch instead of the active one; empty selects the active one."""

    branch = serializers.CharField(max_length=100, required=False, allow_blank=True)


class MessagePageSerializer(serializers.Serializer[Any]):
    """A page of messages; `next` and `previous` are the addresses of other pages, or null."""

    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)
    results = serializers.ListField(child=MessageField())


class NewSessionSerializer(serializers.Serializer[Any]):
    """A new session; without a title, it gets one from its first message."""

    title = serializers.CharField(max_length=200, required=False, allow_blank=True)


class SessionChangeSerializer(serializers.Serializer[Any]):
    """The changes to a session; an absent field stays as it is."""

    title = serializers.CharField(max_length=200, required=False)
    archived = serializers.BooleanField(required=False)
    pinned = serializers.BooleanField(required=False)


class RunSerializer(serializers.ModelSerializer[Run]):
    """A run: its status, timings and usage; times and token counts are null until they are known.

    `message_id` is the reply, `user_message_id` the message that it replies to, `seq` the number of
    its newest event. `cost` is null if it is not known.
    """

    run_id = serializers.UUIDField(source="id")
    run_number = serializers.IntegerField(source="number")
    message_id = serializers.UUIDField(source="reply_id")
    user_message_id = serializers.UUIDField(source="prompt_id")
    seq = serializers.IntegerField(source="last_seq")
    reason = serializers.CharField(allow_blank=True)
    currency = serializers.SerializerMethodField()

    def get_currency(self, run: Run) -> str:
        """Return the code of the currency of `cost`, such as "USD"."""
        return currency()

    class Meta:
        model = Run
        fields = (
            *("run_id", "run_number", "message_id", "user_message_id", "status", "agent", "model"),
            *("epoch", "seq", "reason", "error_code", "input_tokens", "output_tokens"),
            *("cached_input_tokens", "reasoning_tokens", "usage_source", "cost", "currency"),
            *("created_at", "queued_at", "claimed_at", "first_token_at", "last_token_at"),
            *("cancel_requested_at", "stopped_at", "ended_at", "retries"),
        )
        read_only_fields = fields


class RunDetailSerializer(RunSerializer):
    """A run with its tool calls; `tools` is empty until the run has ended."""

    tools = serializers.ListField(child=ToolTimingField())

    class Meta(RunSerializer.Meta):
        fields = (*RunSerializer.Meta.fields, "tools")  # type: ignore[assignment]


def tools_data(run: Run) -> list[dict[str, Any]]:
    """Return the tool calls of a run with their durations as JSON data; [] until it has ended."""
    return [asdict(tool) for tool in get_run_timings(run).tools]


def usage_data(totals: UsageTotals) -> dict[str, Any]:
    """Return totals as JSON data; `cost` is a decimal number as a string, or null."""
    return {**asdict(totals), "cost": None if totals.cost is None else f"{totals.cost:f}"}


def message_data(message: MessageView) -> dict[str, Any]:
    """Return a message as JSON data, with `text`, its text parts joined, beside its parts.

    The parts are those of `message`, not copies.
    """
    return {**message_fields(message), "text": message.text}


def history_data(history: History) -> dict[str, Any]:
    """Return the messages, active run, queue and `later` of a history as JSON data."""
    return {
        "messages": [message_data(message) for message in history.messages],
        "run": asdict(history.run) if history.run else None,
        "queue": [asdict(entry) for entry in history.queue],
        "later": history.later,
    }


SEARCH_MAX = 200


class MomentField(IsoDateTimeField):
    """A date-time, converted to UTC; one that overflows there is invalid."""

    def to_python(self, value: Any) -> Any:
        moment = super().to_python(value)
        try:
            return moment and moment.astimezone(UTC)
        except OverflowError as exc:
            raise ValidationError(self.error_messages["invalid"], code="invalid") from exc


class MomentFilter(django_filters.IsoDateTimeFilter):
    """A filter by an ISO 8601 date-time."""

    field_class = MomentField


class SessionFilter(django_filters.FilterSet):
    """The filters of the session list, all of which must be met.

    Without `state`, archived and deleted sessions are excluded. `active_after` and `created_after`
    include their moment, `active_before` and `created_before` exclude it. `status` is met by any
    run of the session, `agent` by the name alone, in full.
    """

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
