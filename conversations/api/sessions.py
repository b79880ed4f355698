"""REST views of sessions, and of shares and what they show."""

from dataclasses import asdict
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.generics import ListAPIView
from rest_framework.permissions import AllowAny
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from conversations.api.base import ApiView, ByActivity
from conversations.api.serializers import (
    BranchQuery,
    ListedSessionSerializer,
    NewSessionSerializer,
    SessionChangeSerializer,
    SessionDetailSerializer,
    SessionFilter,
    SessionSerializer,
    history_data,
    usage_data,
)
from conversations.models import ChatSession, Scope, Share
from conversations.queries import User, get_session, session_usage, with_run_status
from conversations.sessions import lists
from conversations.sessions.history import get_history
from conversations.sessions.lists import rename_session
from conversations.sessions.sharing import (
    SharedSession,
    answer_shared,
    create_share,
    limit_views,
    list_shares,
    open_share,
    revoke_share,
)


class SessionsView(ApiView, ListAPIView[ChatSession]):
    """The caller's sessions, the latest active first; `state` selects archived or deleted ones."""

    serializer_class = ListedSessionSerializer
    pagination_class = ByActivity
    filter_backends = [DjangoFilterBackend]
    filterset_class = SessionFilter

    def get_queryset(self) -> QuerySet[ChatSession]:
        return with_run_status(lists.kept_of(self.request.user))

    def paginate_queryset(self, queryset: Any) -> Any:
        """Return one page, with `match` on each session: what the search found in its messages.

        It is None without a search, and if only the title matches. Excerpts are read only for the
        sessions on the page.
        """
        page = super().paginate_queryset(queryset)
        words = self.request.query_params.get("search", "")
        matches = lists.find_matches(self.request.user, words, page or [])
        for session in page or []:
            session.match = matches.get(session.pk)
        return page

    @extend_schema(request=NewSessionSerializer, responses={201: SessionSerializer})
    def post(self, request: Request) -> Response:
        """Create an empty session. Without `title`, its first message gives it one."""
        asked = NewSessionSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        session = lists.create_session(user=request.user, **asked.validated_data)
        return Response(_line(session), status=status.HTTP_201_CREATED)


class SessionView(ApiView):
    """One session."""

    query_names = ("branch",)

    @extend_schema(parameters=[BranchQuery], responses=SessionDetailSerializer)
    def get(self, request: Request, session_id: str) -> Response:
        """Return the session with its latest messages, its active run, its queue and its usage.

        They are the last 200 messages of the active branch. With `branch`, a message id, they are
        200 around that one, on its branch. If the branch goes on below them, `later` is the id of
        the last one, else empty.
        """
        asked = BranchQuery(data=request.query_params)
        asked.is_valid(raise_exception=True)
        return Response(_whole(request.user, session_id, **asked.validated_data))

    @extend_schema(request=SessionChangeSerializer, responses=SessionSerializer)
    def patch(self, request: Request, session_id: str) -> Response:
        """Rename, pin or archive the session, or undo one of the latter; all of that at once."""
        asked = SessionChangeSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        with transaction.atomic():
            _change(request.user, session_id, **asked.validated_data)
        session = get_session(request.user, session_id)
        return Response(_reload(session))

    @extend_schema(responses={204: None})
    def delete(self, request: Request, session_id: str) -> Response:
        """Delete the session and stop its active and queued replies.

        It can be restored within `RESTORE_DAYS` days; the stopped replies do not go on then.
        """
        lists.delete_session(user=request.user, session_id=session_id)
        return Response(status=status.HTTP_204_NO_CONTENT)


class RestoreView(ApiView):
    """Restores a deleted session."""

    @extend_schema(request=None, responses=SessionSerializer)
    def post(self, request: Request, session_id: str) -> Response:
        """Restore a session that was deleted at most `RESTORE_DAYS` days ago.

        Answers `not_found` for one that was deleted earlier. Replies that the deletion has stopped
        do not go on.
        """
        session = lists.restore_session(user=request.user, session_id=session_id)
        return Response(_reload(session))


def _change(
    user: User,
    session_id: str,
    *,
    title: str | None = None,
    archived: bool | None = None,
    pinned: bool | None = None,
) -> None:
    if title is not None:
        rename_session(user=user, session_id=session_id, title=title)
    if archived is not None:
        lists.archive_session(user=user, session_id=session_id, archived=archived)
    if pinned is not None:
        lists.pin_session(user=user, session_id=session_id, pinned=pinned)


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


class ShareSerializer(serializers.ModelSerializer[Share]):
    """A valid share; its token was shown once, on creation."""

    class Meta:
        model = Share
        fields = ("id", "created_at")
        read_only_fields = fields


class ShareListSerializer(serializers.Serializer[None]):
    """All valid shares of a session."""

    results = ShareSerializer(many=True)


class NewShareSerializer(ShareSerializer):
    """A new share; `token` is the secret part of its link."""

    token = serializers.CharField()

    class Meta(ShareSerializer.Meta):
        fields = (*ShareSerializer.Meta.fields, "token")  # type: ignore[assignment]


class SharesView(ApiView):
    """The shares of one session."""

    query_names = ("branch",)
    write_scope = Scope.SHARE

    @extend_schema(responses=ShareListSerializer)
    def get(self, request: Request, session_id: str) -> Response:
        """List the session's shares that are not revoked, newest first."""
        shares = list_shares(user=request.user, session_id=session_id)
        return Response({"results": ShareSerializer(shares, many=True).data})

    @extend_schema(request=None, parameters=[BranchQuery], responses={201: NewShareSerializer})
    def post(self, request: Request, session_id: str) -> Response:
        """Share the active branch up to its present end. `token` is shown only in this answer.

        With `branch`, a message id, shares the branch of that message instead. Answers `not_found`
        for a session without messages, and `forbidden` if it has 100 shares that are not revoked.
        """
        asked = BranchQuery(data=request.query_params)
        asked.is_valid(raise_exception=True)
        share, token = create_share(
            user=request.user, session_id=session_id, **asked.validated_data
        )
        made = {**ShareSerializer(share).data, "token": token}
        return Response(made, status=status.HTTP_201_CREATED)


class ShareView(ApiView):
    """One share of a session."""

    write_scope = Scope.SHARE

    @extend_schema(responses={204: None})
    def delete(self, request: Request, session_id: str, share_id: str) -> Response:
        """Revoke a share of the session. Answers `not_found` if that was done before."""
        revoke_share(user=request.user, session_id=session_id, share_id=share_id)
        return Response(status=status.HTTP_204_NO_CONTENT)


class SharedView(ApiView):
    """The shared conversation, readable by anybody who has the link."""

    query_names = ("before", "after")
    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(
        responses={200: SharedSession, 304: None},
        parameters=[OpenApiParameter("before"), OpenApiParameter("after")],
    )
    def get(self, request: Request, token: str) -> Any:
        """Return a page of the shared conversation, without tool calls and reasoning.

        The page is the first one, or the one before or after the message id in `before` or `after`.
        Pages have at most 200 messages. `previous` is the `before` of the page before this one,
        `next` the `after` of the page after it; null if there is none.
        """
        limit_views(request)
        return answer_shared(request, open_share(token), "application/json", _write_json)


def _write_json(shared: SharedSession) -> bytes:
    body: bytes = JSONRenderer().render(asdict(shared))
    return body
