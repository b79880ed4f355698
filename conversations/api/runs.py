"""REST: the replies of a session and their journals."""

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from conversations.api.base import ApiView
from conversations.api.pagination import ByNumberBackwards
from conversations.api.serializers import RunDetailSerializer, RunSerializer, tools_data
from conversations.models import Run, RunEvent, RunStatus
from conversations.queries import get_session
from conversations.run_reads import get_run_of, list_events, runs_of


class RunsView(ApiView, ListAPIView[Run]):
    """The replies of a session, the latest first."""

    serializer_class = RunSerializer
    pagination_class = ByNumberBackwards

    def get_queryset(self) -> QuerySet[Run]:
        if getattr(self, "swagger_fake_view", False):
            return Run.objects.none()
        return runs_of(get_session(self.request.user, self.kwargs["session_id"]))


class RunView(ApiView):
    """One reply, with its timings and what it used."""

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
    """A piece of a journal, for the schema."""

    run_id = serializers.UUIDField()
    epoch = serializers.IntegerField()
    seq = serializers.IntegerField()
    status = serializers.ChoiceField(choices=RunStatus.choices)
    folded = serializers.BooleanField()
    events = EventSerializer(many=True)
    next_after = serializers.IntegerField(allow_null=True)


class EventsQuery(serializers.Serializer[None]):
    """Where to go on in a journal."""

    after = serializers.IntegerField(min_value=0, max_value=2**31 - 1, default=0)
    limit = serializers.IntegerField(min_value=1, max_value=1_000, default=200)


class EventsView(ApiView):
    """The journal of a reply, in its present epoch.

    Streamed text is dropped some time after the end (`folded`): then `seq` has gaps, and the text
    is in the message.
    """

    query_names = ("after", "limit")

    @extend_schema(parameters=[EventsQuery], responses=EventPageSerializer)
    def get(self, request: Request, session_id: str, run_id: str) -> Response:
        """The events after `after`; `next_after` is null once the run has ended and all is read."""
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
