"""REST: chat and cancel without a WebSocket, the caller's own settings, and their usage."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict
from typing import Any, cast

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from conversations.api.base import ApiView, error_body
from conversations.api.requests import sign_in_of
from conversations.api.schema import MessageField, TotalsField
from conversations.api.serializers import RunSerializer, message_data, usage_data
from conversations.errors import ERRORS, AgentSiteError, ErrorCode
from conversations.models import Outcome, Preferences, RunStatus
from conversations.people.accounts import get_preferences, save_preferences
from conversations.people.sign_ins import SignIn
from conversations.queries import User, get_run_of, get_session
from conversations.runs.usage import read_budget, read_user_totals
from conversations.sessions.history import get_reply_view
from conversations.sessions.posting import NewChat, cancel_run
from realtime import dbpool, registry
from realtime import process as process_module
from realtime.conf import get_conf
from realtime.process import Process, get_process
from realtime.protocol import CLOSE_RESTART
from realtime.sockets.frames import known_code
from realtime.sockets.poller import Socket
from realtime.sockets.reader import Outbox
from realtime.sockets.viewer import Viewer, chat_limits
from realtime.tasks import Supervisor, describe
from realtime.telemetry import metrics

logger = logging.getLogger(__name__)

Frame = dict[str, Any]


class AsyncAPIView(ApiView):
    """A view with `async` handlers; authentication and checks run in a database thread.

    Handlers run on the event loop: they must read and write through `dbpool`.
    """

    async def dispatch(  # type: ignore[override]
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        self.args, self.kwargs = args, kwargs
        self.headers = self.default_response_headers
        asked = self.request = self.initialize_request(request, *args, **kwargs)
        response: Any
        try:
            # A read, although using an API key may write: waiting writes would delay every request.
            await dbpool.read_soon(self.initial, asked, *args, **kwargs)
            response = await self._handler()(asked, *args, **kwargs)
        except Exception as exc:
            response = self.handle_exception(exc)
        self.response = self.finalize_response(asked, response, *args, **kwargs)
        return self.response

    def _handler(self) -> Any:
        name = (self.request.method or "").lower()
        known = name in self.http_method_names
        return getattr(self, name, self._refuse_method) if known else self._refuse_method

    async def _refuse_method(self, *args: Any, **kwargs: Any) -> None:
        self.http_method_not_allowed(self.request)

    async def options(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        return super().options(*args, **kwargs)


async def stream_turn(
    user: AbstractBaseUser, new: NewChat, *, watches: bool, sign_in: SignIn | None = None
) -> AsyncGenerator[Frame, None]:
    """Post a chat; yield `accepted`, then the frames of the reply up to its last.

    The frames are decoded from JSON. Behind `accepted` come also those for every reader: `ping`,
    `draining` and `model.status`. A reply that awaits input does not end the stream. Raises
    `AgentSiteError` or a database error before the first frame if the chat is refused or cannot be
    stored. Ends early, without an exception, if the server stops or the caller reads too slowly;
    the caller may then send the same `client_message_id` again to go on. Also ends early when
    `sign_in` has ended or, without one, when the user is inactive or deleted or has another
    password. With `watches=False` the reader does not count as somebody who watches the reply. A
    caller that stops reading must close the generator.
    """
    async with _open(user, sign_in, watches=watches) as reader:
        posted = await process_module.chat(reader.process, reader.viewer, new)
        is_accepted = False
        async for frame in reader.frames():
            # A frame for every reader, such as `draining`, may have come while the chat was stored.
            is_accepted = is_accepted or frame["metadata"].get("event") == "accepted"
            if not is_accepted:
                continue
            yield frame
            if _is_last(frame, str(posted.run_id)):
                return


def _is_last(frame: Frame, run_id: str) -> bool:
    metadata = frame["metadata"]
    ended = frame["type"] == "complete" or (frame["type"] == "error" and metadata.get("terminal"))
    return bool(ended and metadata["run_id"] == run_id)


class _Reader:
    """A reader of one request: like a socket's consumer, with room for one unsent frame."""

    def __init__(self, process: Process, viewer: Viewer, outbox: Outbox) -> None:
        self.process = process
        self.viewer = viewer
        self.outbox = outbox
        self._ready: asyncio.Queue[str | None] = asyncio.Queue(maxsize=1)

    async def send_all(self) -> None:
        """Send frames until the reader is closed.

        If sending fails, end the stream: its caller must not wait for ever.
        """
        try:
            await self.outbox.run(self._ready.put, self._close, self.viewer.on_drained)
        except Exception as exc:
            logger.error("sending to a reader failed: %s", describe(exc))
            await self._close(CLOSE_RESTART)

    async def _close(self, code: int) -> None:
        await self._ready.put(None)

    async def frames(self) -> AsyncIterator[Frame]:
        """Yield decoded frames until the outbox is closed, or sending has failed.

        It is closed when the server stops, the sign-in has ended, or the caller reads too slowly.
        """
        while (text := await self._ready.get()) is not None:
            yield json.loads(text)


@asynccontextmanager
async def _open(
    user: AbstractBaseUser, sign_in: SignIn | None, *, watches: bool
) -> AsyncIterator[_Reader]:
    conf, process = get_conf(), get_process()
    outbox = Outbox(max_frames=conf.outbox_frames, max_bytes=conf.outbox_bytes)
    viewer = Viewer(user, process.hub, outbox, watches=watches)
    reader, tasks = _Reader(process, viewer, outbox), Supervisor()
    sign_in = sign_in or SignIn(user.pk, user.get_session_auth_hash(), None, None)
    watched = process.poller.watch(Socket(viewer, outbox, sign_in))
    with watched, metrics.READERS.labels("request").track_inprogress():
        try:
            tasks.start(reader.send_all(), "outbox")
            yield reader
        finally:
            try:
                await tasks.stop()
            finally:
                await viewer.close()


ON_BUSY = ("enqueue", "interrupt", "reject")

NO_FORMAT = OpenApiParameter("format", exclude=True)
"""Leaves out a parameter that is described wherever several renderers are; none is taken."""


class EventStreamRenderer(BaseRenderer):
    """Lets DRF choose `text/event-stream` by `Accept`; it renders errors only, as JSON."""

    media_type = "text/event-stream"
    format = "sse"

    def render(self, data: Any, *args: Any, **kwargs: Any) -> bytes:
        rendered: bytes = JSONRenderer().render(data)
        return rendered


class ChatSerializer(serializers.Serializer[Any]):
    """A message to the agent: the fields of `protocol.ChatMetadata`, and `content`.

    Unlike over a socket, `on_busy` is `enqueue` by default.
    """

    content = serializers.CharField(
        required=False, allow_blank=True, default="", trim_whitespace=False, max_length=65_536
    )
    client_message_id = serializers.CharField(max_length=100, required=False)
    on_busy = serializers.ChoiceField(choices=ON_BUSY, default="enqueue")
    agent = serializers.CharField(max_length=100, required=False)
    parent_message_id = serializers.CharField(max_length=100, required=False, allow_blank=True)
    regenerate = serializers.CharField(max_length=100, required=False)


class NewTurnSerializer(ChatSerializer):
    """A message to the agent; with `wait` false the answer does not wait for the reply.

    `content` may be empty only with `regenerate`, the id of a reply whose prompt is to be answered
    again. A `client_message_id` that was sent before gets the earlier reply. `on_busy` says what
    happens if a reply of the session is unfinished. Without `agent` that of the session answers.
    `parent_message_id` is the reply to go on from: empty begins a new branch, without it the chat
    goes on from the end of the active one.
    """

    wait = serializers.BooleanField(default=True)


class TurnSerializer(serializers.Serializer[Any]):
    """A chat and its reply: `run` and `message` are those of the reply. For the schema.

    `outcome` is what was done at first; a `duplicate` was stored before, and nothing is changed.
    """

    session_id = serializers.UUIDField()
    outcome = serializers.ChoiceField(choices=Outcome.choices)
    duplicate = serializers.BooleanField()
    run = RunSerializer()
    message = MessageField()


class StoppedSerializer(serializers.Serializer[Any]):
    """The run that a cancel has found; with `ended_before` it had already ended. For the schema."""

    run_id = serializers.UUIDField()
    run_number = serializers.IntegerField()
    status = serializers.ChoiceField(choices=RunStatus.choices)
    ended_before = serializers.BooleanField()


class CancelSerializer(serializers.Serializer[Any]):
    """Which reply to stop: that of the run `run_id`, else that to `client_message_id`.

    With neither it is the session's first unfinished one, else its last.
    """

    run_id = serializers.CharField(max_length=100, required=False)
    client_message_id = serializers.CharField(max_length=100, required=False)


class ChatView(AsyncAPIView):
    """A chat turn: a message and its reply."""

    renderer_classes = [JSONRenderer, EventStreamRenderer]

    @extend_schema(
        parameters=[NO_FORMAT],
        request=NewTurnSerializer,
        responses={
            (200, "application/json"): TurnSerializer,
            (200, "text/event-stream"): OpenApiTypes.STR,
            (202, "application/json"): TurnSerializer,
        },
    )
    async def post(self, request: Request, session_id: str = "") -> Any:
        """Send a message; the answer is the reply or, with `text/event-stream`, its frames.

        The status is 202 if the reply is unfinished: it was not waited for, takes longer than
        `REST_WAIT_S`, awaits input, or the server stops. A failed reply has the status of its
        error, with the reply too. A stream begins with 200, whatever becomes of the reply.
        """
        asked = NewTurnSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        fields = dict(asked.validated_data)
        wait = fields.pop("wait")
        new = NewChat(session_id=session_id, **fields)
        if request.accepted_renderer.format == EventStreamRenderer.format:
            return await _stream(_turn(request, new, watches=True))
        frames = _turn(request, new, watches=False)
        accepted = await _read(frames, wait=wait)
        status, body = await dbpool.read(_answer, request.user, accepted)
        return Response(body, status=status)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Finish the response; all but a stream is JSON, also where a stream was asked for."""
        if isinstance(response, Response):
            request.accepted_renderer = JSONRenderer()
            request.accepted_media_type = JSONRenderer.media_type
        return super().finalize_response(request, response, *args, **kwargs)


class CancelView(AsyncAPIView):
    """Stopping a reply."""

    @extend_schema(request=CancelSerializer, responses=StoppedSerializer)
    async def post(self, request: Request, session_id: str) -> Response:
        """Ask a reply to stop, without waiting until it has.

        The answer's `ended_before` says whether it had already ended; then nothing is changed.
        """
        asked = CancelSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        stopped = await dbpool.write_soon(
            cancel_run,
            user=request.user,
            session_id=session_id,
            **asked.validated_data,
        )
        return Response(
            {
                "run_id": str(stopped.run.run_id),
                "run_number": stopped.run.run_number,
                "status": stopped.status,
                "ended_before": stopped.ended_before,
            }
        )


class UsageSerializer(serializers.Serializer[None]):
    """What the caller has used: `total` in all conversations, `day` in the last 24 hours.

    Of the day, `limit` and `left` are null without a limit.
    """

    total = TotalsField()
    day = inline_serializer(
        "Budget",
        {
            "used": serializers.IntegerField(),
            "limit": serializers.IntegerField(allow_null=True),
            "left": serializers.IntegerField(allow_null=True),
        },
    )


class UsageView(ApiView):
    """The caller's usage."""

    @extend_schema(responses=UsageSerializer)
    def get(self, request: Request) -> Response:
        """Return the tokens and the cost of all the caller's replies, and what is left today."""
        total = usage_data(read_user_totals(request.user.pk))
        day = asdict(read_budget(request.user.pk, chat_limits()))
        return Response({"total": total, "day": day})


class PreferencesSerializer(serializers.ModelSerializer[Preferences]):
    """The caller's own settings.

    "" leaves the choice to the browser (`language`), to each device (`theme`, `enter`) or to the
    site (`agent`). `instructions` are given to the model with those of the agent. With
    `keeps_going` replies go on that nobody watches; with `push_text` notifications show the
    beginning of a reply.
    """

    class Meta:
        model = Preferences
        fields = (
            *("language", "theme", "enter", "instructions", "agent"),
            *("keeps_going", "push_text"),
        )

    def validate_language(self, value: str) -> str:
        if value and value not in dict(settings.LANGUAGES):
            raise serializers.ValidationError(_("The site does not have this language."))
        return value

    def validate_agent(self, value: str) -> str:
        if value and value not in registry.agent_names():
            raise serializers.ValidationError(str(ERRORS[ErrorCode.UNKNOWN_AGENT].text))
        return value


class PreferencesView(ApiView):
    """The caller's own settings."""

    @extend_schema(responses=PreferencesSerializer)
    def get(self, request: Request) -> Response:
        """Return the caller's own settings."""
        return Response(PreferencesSerializer(get_preferences(request.user)).data)

    @extend_schema(request=PreferencesSerializer, responses=PreferencesSerializer)
    def patch(self, request: Request) -> Response:
        """Change those settings that are given; return all."""
        asked = PreferencesSerializer(data=request.data, partial=True)
        asked.is_valid(raise_exception=True)
        saved = save_preferences(request.user, **asked.validated_data)
        return Response(PreferencesSerializer(saved).data)


def _turn(request: Request, new: NewChat, *, watches: bool) -> AsyncGenerator[Frame, None]:
    """Yield the frames of a chat turn of the caller, until the caller's sign-in ends."""
    user = cast(AbstractBaseUser, request.user)
    return stream_turn(user, new, watches=watches, sign_in=sign_in_of(request))


async def _stream(frames: AsyncGenerator[Frame, None]) -> StreamingHttpResponse:
    """Make the streaming response; awaits the first frame, so that a refusal is an HTTP status."""
    first = await _first_of(frames)
    return StreamingHttpResponse(
        _events(first, frames),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _first_of(frames: AsyncGenerator[Frame, None]) -> Frame:
    """Return `accepted`; raises `AgentSiteError(unavailable)` if the server stops before it.

    The chat may have been stored by then: the caller may send the same `client_message_id` again.
    """
    async for frame in frames:
        return frame
    raise AgentSiteError(ErrorCode.UNAVAILABLE)


async def _events(first: Frame, frames: AsyncGenerator[Frame, None]) -> AsyncIterator[str]:
    async with aclosing(frames):
        yield _event(first)
        async for frame in frames:
            yield _event(frame)


def _event(frame: Frame) -> str:
    return f"event: {frame['type']}\ndata: {json.dumps(frame)}\n\n"


async def _read(frames: AsyncGenerator[Frame, None], *, wait: bool) -> Frame:
    """Return `accepted` once the reply has ended or awaits input, or after `rest_wait_s`."""
    async with aclosing(frames):
        accepted = await _first_of(frames)
        try:
            async with asyncio.timeout(get_conf().rest_wait_s if wait else 0):
                async for frame in frames:
                    if frame["metadata"].get("event") == "input.requested":
                        break
        except TimeoutError:
            pass
    return accepted


def _answer(user: User, accepted: Frame) -> tuple[int, dict[str, Any]]:
    """Return 200 with the reply, 202 if it is unfinished, or a failed one's own status."""
    metadata = accepted["metadata"]
    session = get_session(user, accepted["session_id"])
    run = get_run_of(session, metadata["run_id"])
    body = {
        "session_id": str(session.pk),
        "outcome": metadata["outcome"],
        "duplicate": metadata["duplicate"],
        "run": RunSerializer(run).data,
        "message": message_data(get_reply_view(session, run)),
    }
    if run.status == RunStatus.FAILED:
        code = known_code(run.error_code)
        return ERRORS[code].http_status, {**error_body(code), **body}
    return (200 if run.is_ended else 202), body
