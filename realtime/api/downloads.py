"""REST: conversations, and the description of the protocol, as downloads."""

import logging
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe
from django_filters.utils import translate_validation
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from conversations.api.schema import Transcript, Transcripts
from conversations.api.serializers import SessionFilter
from conversations.errors import AgentSiteError, ErrorCode
from conversations.exports.formats import FORMATS, Download, encode, take_place_to_export
from conversations.exports.source import read_conversations
from conversations.models import ChatSession, Scope
from conversations.queries import get_session, sessions_of
from conversations.sessions.lists import kept_of
from realtime import dbpool, wire_schema
from realtime.api.turns import NO_FORMAT, AsyncAPIView
from realtime.conf import socket_path

logger = logging.getLogger(__name__)


class FormatRenderer(BaseRenderer):
    """Lets DRF choose a download format by `Accept`; it renders errors only, as JSON.

    The classes in `RENDERERS` set the media type.
    """

    def render(self, data: Any, *args: Any, **kwargs: Any) -> bytes:
        rendered: bytes = JSONRenderer().render(data)
        return rendered


RENDERERS = [
    type(
        f"{name.title()}Renderer",
        (FormatRenderer,),
        {"media_type": kind.media_type, "format": name},
    )
    # JSON first: it is used if the client accepts anything.
    for name, kind in sorted(FORMATS.items(), key=lambda item: item[0] != "json")
]


def _choices(field: Any) -> list[str] | None:
    return [value for value, _ in field.extra.get("choices", ())] or None


FORMAT_PARAMETERS = [OpenApiParameter("export_format", enum=list(FORMATS)), NO_FORMAT]
JSON = 200, FORMATS["json"].media_type
DIGEST = OpenApiParameter(
    "Repr-Digest",
    location=OpenApiParameter.HEADER,
    response=[200],
    description="`sha-256=:...:`, the SHA-256 of the file in Base64 (RFC 9530).",
)
FILES: dict[Any, Any] = {(200, kind.media_type): OpenApiTypes.STR for kind in FORMATS.values()}
FILTERS = [
    OpenApiParameter(name, enum=_choices(field), description=str(field.label or ""))
    for name, field in SessionFilter.base_filters.items()
]


class DownloadView(AsyncAPIView):
    """A download in the format of `?export_format=`, else of `Accept`, else JSON."""

    scope = Scope.EXPORT
    query_names: tuple[str, ...] = ("export_format",)
    renderer_classes = RENDERERS

    async def answer(self, sessions: QuerySet[ChatSession], *, name: str, one: bool) -> Any:
        """Return the response with these sessions as an attachment, written before it is sent.

        `name` is the file's name without extension. With `one` the file has the one session itself,
        else a list. The caller must have authorised access to `sessions`. If this is cancelled, as
        when the client disconnects, no more is written. Raises `ValidationError` for an unknown
        format, and `AgentSiteError`: rate_limited (too many exports of the user at once),
        unavailable (the database or the disk failed).
        """
        kind = FORMATS[self._format_name()]
        user_id = self.request.user.pk
        write = kind.write_one if one else kind.write
        pieces = encode(write(read_conversations(sessions)))
        download = Download(kind, name, await dbpool.read_aside(take_place_to_export, user_id))
        try:
            # One piece per unit of work, so that several exports take turns.
            while await dbpool.read_aside(download.take, pieces):
                pass
        except BaseException as exc:
            download.close()
            if isinstance(exc, DatabaseError | OSError):
                logger.exception("writing an export failed")
                raise AgentSiteError(ErrorCode.UNAVAILABLE) from exc
            raise
        return download.response()

    def _format_name(self) -> str:
        name = self.request.query_params.get("export_format")
        if name is None:
            return str(self.request.accepted_renderer.format)
        if name not in FORMATS:
            raise ValidationError({"export_format": "There is no such format."})
        return name

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Finish the response; errors become JSON, whatever format was requested."""
        if isinstance(response, Response):
            request.accepted_renderer = JSONRenderer()
            request.accepted_media_type = JSONRenderer.media_type
        return super().finalize_response(request, response, *args, **kwargs)


class TranscriptView(DownloadView):
    """One session as a file."""

    @extend_schema(parameters=[*FORMAT_PARAMETERS, DIGEST], responses=FILES | {JSON: Transcript})
    async def get(self, request: Request, session_id: str) -> Any:
        """One session as a file: with all its messages and branches.

        Except in the format `openai`, which has the completed replies of the active branch.
        """
        session = await dbpool.read(get_session, request.user, session_id)
        sessions = sessions_of(request.user).filter(pk=session.pk)
        return await self.answer(sessions, name=f"conversation-{session.pk}", one=True)


class ExportView(DownloadView):
    """All sessions that match a filter, as one file."""

    query_names = ("export_format", *SessionFilter.base_filters)

    @extend_schema(
        parameters=[*FORMAT_PARAMETERS, DIGEST, *FILTERS], responses=FILES | {JSON: Transcripts}
    )
    async def get(self, request: Request) -> Any:
        """All sessions of the caller that match all the filters, oldest first, as one file.

        The filters are those of the list of sessions, but `state` is `all` by default.
        """
        query = request.query_params.copy()
        query.setdefault("state", "all")
        wanted = SessionFilter(query, queryset=kept_of(request.user), request=request)
        if not wanted.is_valid():
            raise translate_validation(wanted.errors)
        return await self.answer(wanted.qs, name="conversations", one=False)


@login_not_required
@require_safe
@cache_control(max_age=300)
def asyncapi(request: HttpRequest) -> JsonResponse:
    """The AsyncAPI 3 description of the socket, as JSON; no sign-in is needed."""
    return JsonResponse(wire_schema.asyncapi(socket_path()))


@login_not_required
@require_safe
@cache_control(max_age=300)
def typescript(request: HttpRequest) -> HttpResponse:
    """TypeScript declarations of every frame, as plain text; no sign-in is needed."""
    return HttpResponse(wire_schema.typescript(), content_type="text/plain; charset=utf-8")
