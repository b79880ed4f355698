"""REST: the list of a user's sessions, and one of them with its history."""

from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from conversations import session_list
from conversations.actions import rename_session
from conversations.api.base import ApiView
from conversations.api.filters import SessionFilter
from conversations.api.pagination import ByActivity
from conversations.api.serializers import (
    BranchQuery,
    ListedSessionSerializer,
    NewSessionSerializer,
    SessionChangeSerializer,
    SessionDetailSerializer,
    SessionSerializer,
    history_data,
    usage_data,
)
from conversations.history import get_history
from conversations.models import ChatSession
from conversations.queries import User, get_session, session_usage, with_run_status


class SessionsView(ApiView, ListAPIView[ChatSession]):
    """Sessions, and new ones."""

    serializer_class = ListedSessionSerializer
    pagination_class = ByActivity
    filter_backends = [DjangoFilterBackend]
    filterset_class = SessionFilter

    def get_queryset(self) -> QuerySet[ChatSession]:
        return with_run_status(session_list.kept_of(self.request.user))

    def paginate_queryset(self, queryset: Any) -> Any:
        """Only what is on the page is looked up in what was said."""
        page = super().paginate_queryset(queryset)
        words = self.request.query_params.get("search", "")
        matches = session_list.find_matches(self.request.user, words, page or [])
        for session in page or []:
            session.match = matches.get(session.pk)
        return page

    @extend_schema(request=NewSessionSerializer, responses={201: SessionSerializer})
    def post(self, request: Request) -> Response:
        """Begin a session in which nothing has been said."""
        asked = NewSessionSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        session = session_list.create_session(user=request.user, **asked.validated_data)
        return Response(_line(session), status=status.HTTP_201_CREATED)


class SessionView(ApiView):
    """One session."""

    query_names = ("branch",)

    @extend_schema(parameters=[BranchQuery], responses=SessionDetailSerializer)
    def get(self, request: Request, session_id: str) -> Response:
        """The latest messages of the active branch, the run at work, and what waits.

        With `branch`, the messages around that one on its own branch; `later` is then the message
        to go on from, empty at the end.
        """
        asked = BranchQuery(data=request.query_params)
        asked.is_valid(raise_exception=True)
        return Response(_whole(request.user, session_id, **asked.validated_data))

    @extend_schema(request=SessionChangeSerializer, responses=SessionSerializer)
    def patch(self, request: Request, session_id: str) -> Response:
        """Rename it, archive it or take it out of the archive."""
        asked = SessionChangeSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        with transaction.atomic():
            _change(request.user, session_id, **asked.validated_data)
        session = get_session(request.user, session_id)
        return Response(_reload(session))

    @extend_schema(responses={204: None})
    def delete(self, request: Request, session_id: str) -> Response:
        """Delete it; replies that are being written are stopped."""
        session_list.delete_session(user=request.user, session_id=session_id)
        return Response(status=status.HTTP_204_NO_CONTENT)


class RestoreView(ApiView):
    """The undo of a deletion."""

    @extend_schema(request=None, responses=SessionSerializer)
    def post(self, request: Request, session_id: str) -> Response:
        """Bring a deleted session back."""
        session = session_list.restore_session(user=request.user, session_id=session_id)
        return Response(_reload(session))


def _change(
    user: User, session_id: str, *, title: str | None = None, archived: bool | None = None
) -> None:
    if title is not None:
        rename_session(user=user, session_id=session_id, title=title)
    if archived is not None:
        session_list.archive_session(user=user, session_id=session_id, archived=archived)


def _whole(user: User, session_id: str, branch: str = "") -> dict[str, Any]:
    session = get_session(user, session_id)
    history = get_history(session, branch=branch)
    run_status = history.run.status if history.run else None
    usage = usage_data(session_usage(session))
    return {**_line(session), "run_status": run_status, "usage": usage, **history_data(history)}


def _reload(session: ChatSession) -> dict[str, Any]:
    return _line(with_run_status(ChatSession.objects.filter(pk=session.pk)).get())


def _line(session: ChatSession) -> dict[str, Any]:
    if not hasattr(session, "run_status"):
        session.run_status = None  # type: ignore[attr-defined]
    return dict(SessionSerializer(session).data)
