"""REST views of messages, the queue, ratings, runs with their journals, and approvals."""

from dataclasses import asdict
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.generics import GenericAPIView, ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from conversations.api.base import (
    ApiView,
    ById,
    ByNumber,
    ByNumberBackwards,
    ByRequest,
)
from conversations.api.schema import Answered, ApprovalField, QueueField
from conversations.api.schema import Message as MessageSchema
from conversations.api.serializers import (
    MessagePageSerializer,
    RunDetailSerializer,
    RunSerializer,
    message_data,
    tools_data,
)
from conversations.models import Approval, Feedback, Message, Run, RunEvent, RunStatus, Scope
from conversations.queries import get_run_of, get_session, list_events, runs_of
from conversations.runs.lifecycle import APPROVAL_ANSWERS, MESSAGE_LENGTH, decide, list_approvals
from conversations.sessions import queue as queue_module
from conversations.sessions.history import get_message_view, list_messages, show_messages
from conversations.sessions.posting import give_feedback, list_feedback, take_feedback_back
from conversations.shapes import QueueView, approval_view


class MessagesView(ApiView, GenericAPIView[Message]):
    """All messages of a session, on all branches, also withdrawn ones, by number."""

    pagination_class = ByNumber

    @extend_schema(
        responses=MessagePageSerializer,
        parameters=[OpenApiParameter("cursor"), OpenApiParameter("page_size", OpenApiTypes.INT)],
    )
    def get(self, request: Request, session_id: str) -> Response:
        """List all messages of the session, on all branches, also withdrawn ones, by number.

        A reply in progress has the parts shown so far.
        """
        session = get_session(request.user, session_id)
        page = self.paginate_queryset(list_messages(session)) or []
        views = show_messages(page)
        return self.get_paginated_response([message_data(view) for view in views])


class MessageDetailView(ApiView):
    """One message."""

    @extend_schema(responses=MessageSchema, operation_id="sessions_message_retrieve")
    def get(self, request: Request, session_id: str, message_id: str) -> Response:
        """Return the message in its current state; `text` is its Markdown.

        A reply in progress has the parts shown so far.
        """
        session = get_session(request.user, session_id)
        return Response(message_data(get_message_view(session, message_id)))


class QueuedChangeSerializer(serializers.Serializer[Any]):
    """The changes to a queued message; an absent field stays as it is.

    `position` 1 is behind the first unfinished reply; one beyond the end is the end.
    """

    content = serializers.CharField(required=False, trim_whitespace=False, max_length=65_536)
    position = serializers.IntegerField(min_value=1, required=False)


class QueueSerializer(serializers.Serializer[Any]):
    """The queue of a session: what waits behind its first unfinished reply, in order."""

    queue = serializers.ListField(child=QueueField())


class SessionQueueView(ApiView):
    """The messages of a session that wait behind its first unfinished reply, in order."""

    @extend_schema(responses=QueueSerializer)
    def get(self, request: Request, session_id: str) -> Response:
        return _answer(queue_module.get_queue(request.user, session_id))

    @extend_schema(responses={200: QueueSerializer}, operation_id="sessions_queue_clear")
    def delete(self, request: Request, session_id: str) -> Response:
        """Withdraw all messages behind the first unfinished reply; answers the queue, then empty.

        The message of that reply stays, even if the reply has not begun, and so does a message that
        has another reply.
        """
        return _answer(queue_module.clear_queue(user=request.user, session_id=session_id))


class QueuedView(ApiView):
    """One queued message. Every answer is the queue after the change."""

    @extend_schema(request=QueuedChangeSerializer, responses=QueueSerializer)
    def patch(self, request: Request, session_id: str, run_id: str) -> Response:
        """Change the text of a queued message, its position, or both; answers the queue.

        Answers `not_queued` if the reply has begun, and for a new position of the first unfinished
        one. Answers `forbidden` for a new text if another reply is to the same message, and for a
        new position if a message on the way there does not continue from the reply before it.
        """
        asked = QueuedChangeSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        names: dict[str, Any] = {"user": request.user, "session_id": session_id, "run_id": run_id}
        content, position = (asked.validated_data.get(name) for name in ("content", "position"))
        with transaction.atomic():
            if content is not None:
                queue_module.edit_queued(**names, content=content)
            if position is not None:
                queue_module.move_queued(**names, position=position)
        return _answer(queue_module.get_queue(request.user, session_id))

    @extend_schema(responses={200: QueueSerializer})
    def delete(self, request: Request, session_id: str, run_id: str) -> Response:
        """Withdraw a queued message and cancel its reply; answers the queue.

        A message that has another reply stays. Answers `not_queued` if the reply has begun, and for
        the first unfinished one.
        """
        left = queue_module.remove_queued(user=request.user, session_id=session_id, run_id=run_id)
        return _answer(left)


def _answer(waiting: list[QueueView]) -> Response:
    return Response({"queue": [asdict(entry) for entry in waiting]})


class FeedbackSerializer(serializers.ModelSerializer[Feedback]):
    """The caller's rating of a reply."""

    message_id = serializers.UUIDField(read_only=True)
    comment = serializers.CharField(max_length=4_000, required=False, allow_blank=True)

    class Meta:
        model = Feedback
        fields = ("message_id", "value", "comment", "created_at", "updated_at")
        read_only_fields = ("created_at", "updated_at")


class FeedbackListView(ApiView, ListAPIView[Feedback]):
    """The caller's ratings in one session, one per rated reply, the oldest first, in pages."""

    serializer_class = FeedbackSerializer
    pagination_class = ById

    def get_queryset(self) -> QuerySet[Feedback]:
        if getattr(self, "swagger_fake_view", False):
            return Feedback.objects.none()
        return list_feedback(user=self.request.user, session_id=self.kwargs["session_id"])


class FeedbackView(ApiView):
    """The caller's rating of one reply."""

    @extend_schema(request=FeedbackSerializer, responses=FeedbackSerializer)
    def put(self, request: Request, session_id: str, message_id: str) -> Response:
        """Create or replace the caller's rating of a reply; without `comment`, it has none then.

        Answers `not_found` for a message that is not a reply in a session of the caller.
        """
        asked = FeedbackSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        given = give_feedback(
            user=request.user,
            session_id=session_id,
            message_id=message_id,
            **asked.validated_data,
        )
        return Response(FeedbackSerializer(given).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, session_id: str, message_id: str) -> Response:
        """Delete the caller's rating of a reply, if there is one.

        Answers `not_found` for a message that is not a reply in a session of the caller.
        """
        take_feedback_back(user=request.user, session_id=session_id, message_id=message_id)
        return Response(status=status.HTTP_204_NO_CONTENT)


class RunsView(ApiView, ListAPIView[Run]):
    """The runs of a session by `run_number`, the highest first."""

    serializer_class = RunSerializer
    pagination_class = ByNumberBackwards

    def get_queryset(self) -> QuerySet[Run]:
        if getattr(self, "swagger_fake_view", False):
            return Run.objects.none()
        return runs_of(get_session(self.request.user, self.kwargs["session_id"]))


class RunDetailView(ApiView):
    """One run: its status, timings and usage and, once it has ended, its tool calls."""

    @extend_schema(responses=RunDetailSerializer)
    def get(self, request: Request, session_id: str, run_id: str) -> Response:
        session = get_session(request.user, session_id)
        run = get_run_of(session, run_id)
        return Response({**RunSerializer(run).data, "tools": tools_data(run)})


class EventSerializer(serializers.ModelSerializer[RunEvent]):
    """One event of a run's journal."""

    class Meta:
        model = RunEvent
        fields = ("seq", "kind", "payload", "created_at")


class EventPageSerializer(serializers.Serializer[None]):
    """Some events of a run's journal in `epoch`, whose newest event has the number `seq`.

    `folded`: the streamed text is no longer in the journal. `next_after` is the `after` of the next
    request; null if the run has ended and no event is left.
    """

    run_id = serializers.UUIDField()
    epoch = serializers.IntegerField()
    seq = serializers.IntegerField()
    status = serializers.ChoiceField(choices=RunStatus.choices)
    folded = serializers.BooleanField()
    events = EventSerializer(many=True)
    next_after = serializers.IntegerField(allow_null=True)


class EventsQuery(serializers.Serializer[None]):
    """Which events to read: those with a seq above `after`, at most `limit`."""

    after = serializers.IntegerField(min_value=0, max_value=2**31 - 1, default=0)
    limit = serializers.IntegerField(min_value=1, max_value=1_000, default=200)


class EventsView(ApiView):
    """The journal of a run, in its current epoch.

    Streamed text is deleted some time after the run has ended (`folded`). Then `seq` has gaps, and
    the message has the text.
    """

    query_names = ("after", "limit")

    @extend_schema(parameters=[EventsQuery], responses=EventPageSerializer)
    def get(self, request: Request, session_id: str, run_id: str) -> Response:
        """List the events of the run's current epoch with a seq above `after`, in order.

        `next_after` is the value for the next request, and null once the run has ended and all of
        its events are read. If `epoch` rises, read again from the beginning. Streamed text is
        deleted some time after the run has ended (`folded`); then the message has it.
        """
        asked = EventsQuery(data=request.query_params)
        asked.is_valid(raise_exception=True)
        run = get_run_of(get_session(request.user, session_id), run_id)
        events = list_events(run, **asked.validated_data)
        last = events[-1].seq if events else asked.validated_data["after"]
        return Response(
            {
                "run_id": str(run.pk),
                "epoch": run.epoch,
                "seq": run.last_seq,
                "status": run.status,
                "folded": run.folded,
                "events": EventSerializer(events, many=True).data,
                "next_after": None if run.is_ended and last >= run.last_seq else last,
            }
        )


class ApprovalPageSerializer(serializers.Serializer[Any]):
    """A page of approvals, for the schema."""

    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)
    results = serializers.ListField(child=ApprovalField())


class ApprovalsView(ApiView, GenericAPIView[Approval]):
    """The approvals of a session, decided or not, in pages."""

    pagination_class = ByRequest

    @extend_schema(
        responses=ApprovalPageSerializer,
        parameters=[OpenApiParameter("cursor"), OpenApiParameter("page_size", OpenApiTypes.INT)],
    )
    def get(self, request: Request, session_id: str) -> Response:
        """List the session's approvals, oldest first; `decision` is null for those still open."""
        session = get_session(request.user, session_id)
        page = self.paginate_queryset(list_approvals(session)) or []
        return self.get_paginated_response([asdict(approval_view(row)) for row in page])


class AnswerSerializer(serializers.Serializer[Any]):
    """A decision; `message` is sent to the model with `reject`, and only stored with `approve`."""

    decision = serializers.ChoiceField(choices=APPROVAL_ANSWERS)
    message = serializers.CharField(max_length=MESSAGE_LENGTH, allow_blank=True, default="")


class ApprovalDetailView(ApiView):
    """One approval."""

    # A program that may write must not approve in a person's place: approvals have their own scope.
    write_scope = Scope.APPROVE

    @extend_schema(request=AnswerSerializer, responses=Answered)
    def post(self, request: Request, request_id: str) -> Response:
        """Decide the approval; with the last open one of its reply, the reply goes on.

        `duplicate` means that this request has not decided it: it was decided, cancelled or expired
        before, or an open approval of the reply has expired, which ends the reply.
        """
        asked = AnswerSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        decided = decide(
            user=request.user,
            request_id=request_id,
            verdict=asked.validated_data["decision"],
            message=asked.validated_data["message"],
            viewed_for=None,
        )
        return Response({**asdict(decided.approval), "duplicate": decided.duplicate})
