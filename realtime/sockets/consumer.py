"""One WebSocket: accepts, parses and dispatches the client's frames, and forwards frames to it."""

import logging
import time
from collections.abc import Hashable
from contextlib import ExitStack, suppress
from typing import Any, assert_never

from channels.consumer import get_handler_name
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import DatabaseError

from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import Scope
from conversations.queries import User
from conversations.runs import lifecycle
from conversations.sessions import queue
from conversations.sessions.posting import NewChat, Stopped, cancel_run
from conversations.shapes import QueueView
from realtime import dbpool, process, protocol
from realtime.conf import get_conf
from realtime.process import get_process
from realtime.protocol import (
    Cancel,
    Chat,
    ClientPing,
    ClientPong,
    Queue,
    Respond,
    Resume,
    ServerFrame,
)
from realtime.sockets import frames
from realtime.sockets.limits import FrameLimit
from realtime.sockets.poller import Socket
from realtime.sockets.reader import Outbox
from realtime.sockets.viewer import Viewer, viewed_for
from realtime.tasks import Supervisor, describe
from realtime.telemetry import metrics


def change_queue(user: User, frame: Queue) -> list[QueueView]:
    """Make the change to the queue that `frame` asks for; return the new queue.

    Call it in a database thread that may write. Raises what the function for the `op` raises:
    `AgentSiteError`, such as not_found, not_queued or bad_frame.
    """
    asked = frame.metadata
    session: dict[str, Any] = {"user": user, "session_id": frame.session_id}
    match asked.op:
        case "edit":
            return queue.edit_queued(**session, run_id=asked.run_id, content=frame.content)
        case "remove":
            return queue.remove_queued(**session, run_id=asked.run_id)
        case "move":
            return queue.move_queued(**session, run_id=asked.run_id, position=asked.position)
        case "clear":
            return queue.clear_queue(**session)
        case _:
            assert_never(asked.op)


logger = logging.getLogger(__name__)

EXCESS_MAX = 20
"""Frames over the limit in a row, each answered with an error, before the socket is closed."""

UNTOLD_S = 3.0
"""Seconds in which further chats may come of a client that has not read yet that one was refused
for lack of room. They are refused too: stored at once, they would be answered first.
"""

FRAME_SCOPES: dict[type, Scope] = {
    Chat: Scope.WRITE,
    Cancel: Scope.WRITE,
    Queue: Scope.WRITE,
    Respond: Scope.APPROVE,
}
"""The scope that an API key needs for a frame. Other frames need only `read`, as opening a socket
does.
"""


class ChatConsumer(AsyncWebsocketConsumer):
    """The server side of one socket: stores what the client asks for, and sends frames.

    It never works on runs; an executor does. `viewer` is None until the socket is accepted, and
    stays None if it is refused.
    """

    viewer: Viewer | None = None
    _postponed = ""
    _postponed_until = 0.0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve the socket, then release its places, tasks and groups.

        Unlike Channels' own consumers it has no channel: the process's hub receives the layer's
        messages. Clean up here: `disconnect` is not called if a handler raises.
        """
        self.scope, self.base_send = scope, send
        self.tasks, self.cleanup = Supervisor(), ExitStack()
        try:
            with suppress(StopConsumer):
                while True:
                    await self.dispatch(await receive())
        finally:
            self.cleanup.close()
            try:
                await self.tasks.stop()
            finally:
                if self.viewer is not None:
                    await self.viewer.close()

    async def dispatch(self, message: Any) -> None:
        """Call the handler of an ASGI message.

        Channels' own version also closes old database connections, in a thread, for each message;
        none are opened here. Raises `StopConsumer` at the client's disconnection.
        """
        await getattr(self, get_handler_name(message))(message)

    async def websocket_disconnect(self, message: Any) -> None:
        """End the socket; Channels' own version also closes old connections, as in `dispatch`."""
        raise StopConsumer

    async def connect(self) -> None:
        """Accept the socket; then start sending or, if it is refused, close it with a code.

        It is refused by `scope["refused"]`, after the error in `scope["busy"]` if there is one, or
        if the user or the address has too many sockets.
        """
        asked = protocol.SUBPROTOCOL in self.scope["subprotocols"]
        await self.accept(protocol.SUBPROTOCOL if asked else None)
        if self.scope["refused"] is not None:
            if (busy := self.scope.get("busy")) is not None:
                await self._send_text(protocol.error(busy).encode())
            await self.close(self.scope["refused"])
            return
        conf = get_conf()
        self.process = get_process()
        give_back = await self.process.places.take(self._list_limits())
        if give_back is None:
            await self.close(protocol.CLOSE_TOO_FAST)
            return
        self.cleanup.callback(give_back)
        self.limit = FrameLimit(conf.frames_per_minute)
        self.outbox = Outbox(max_frames=conf.outbox_frames, max_bytes=conf.outbox_bytes)
        self.viewer = Viewer(self.scope["user"], self.process.hub, self.outbox)
        await self.viewer.join_user()
        socket = Socket(self.viewer, self.outbox, self.scope["sign_in"])
        self.cleanup.enter_context(self.process.poller.watch(socket))
        self.cleanup.enter_context(metrics.READERS.labels("socket").track_inprogress())
        self.put(_connected(self.viewer))
        if (frame := self.process.model_frame()) is not None:
            self.put(frame)
        self.tasks.start(self._send_all(self.viewer), "outbox")

    def _list_limits(self) -> dict[Hashable, int]:
        """Return the limits on sockets of this user, and of this address if it is known."""
        conf = get_conf()
        limits: dict[Hashable, int] = {("user", self.scope["user"].pk): conf.sockets_per_user}
        if address := self.scope.get("address"):
            limits["address", address] = conf.sockets_per_address
        return limits

    async def _send_all(self, viewer: Viewer) -> None:
        """Send frames until the client disconnects.

        If sending fails otherwise, close the socket: it would stay open but silent.
        """
        try:
            await self.outbox.run(self._send_text, self.close, viewer.on_drained)
        except OSError:
            return
        except Exception as exc:
            logger.error("sending to a socket failed: %s", describe(exc))
            await self.close(protocol.CLOSE_RESTART)

    async def _send_text(self, text: str) -> None:
        await self.send(text_data=text)

    def put(self, frame: ServerFrame) -> None:
        """Put a frame that moves no cursor into the outbox, without waiting.

        Call it only after `connect` has opened the socket. For an overflow see `Outbox.put`.
        """
        self.outbox.put(frame.encode())

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any
    ) -> None:
        """Handle one frame of the client; an error of any kind is answered with an `error` frame.

        A binary frame is such an error. The socket stays open, unless more than `EXCESS_MAX` frames
        in a row are over the limit. Does nothing if the socket was refused.
        """
        if self.viewer is None:
            return
        frame: protocol.ClientFrame | None = None
        try:
            frame = self._parse(text_data)
            if not isinstance(frame, Cancel):
                self._charge()
            self._check_scope(frame)
            await self._dispatch(self.viewer, frame)
        except AgentSiteError as exc:
            self._refuse(exc, frame, text_data or "")
        except DatabaseError as exc:
            logger.error("a database error prevented handling a frame: %s", describe(exc))
            self._refuse(AgentSiteError(ErrorCode.UNAVAILABLE), frame)
        except Exception as exc:
            logger.error("handling a frame failed: %s", describe(exc, is_private=True))
            self._refuse(AgentSiteError(ErrorCode.INTERNAL), frame)

    def _check_scope(self, frame: protocol.ClientFrame) -> None:
        """Check an API key's scopes, as over REST; raises `AgentSiteError(forbidden)`."""
        scope = FRAME_SCOPES.get(type(frame))
        if scope is not None and not self.scope["sign_in"].may(scope):
            raise AgentSiteError(ErrorCode.FORBIDDEN)

    def _parse(self, text: str | None) -> protocol.ClientFrame:
        """Parse a frame; an invalid one also counts against the rate limit."""
        try:
            return _decode(text)
        except AgentSiteError:
            self._charge()
            raise

    def _charge(self) -> None:
        of_user = self.process.user_frames.of(self.scope["user"].pk)
        if self.limit.take(of_user):
            return
        if self.limit.excess > EXCESS_MAX:
            self.outbox.finish(protocol.CLOSE_TOO_FAST)
        wait = max(self.limit.retry_after, of_user.retry_after)
        raise AgentSiteError(ErrorCode.RATE_LIMITED, retry_after=wait)

    def _refuse(
        self, exc: AgentSiteError, frame: protocol.ClientFrame | None, text: str = ""
    ) -> None:
        """Answer with an error, with the ids of the refused frame as far as they can be read."""
        session_id = getattr(frame, "session_id", "")
        client_message_id = getattr(getattr(frame, "metadata", None), "client_message_id", None)
        if frame is None and text:
            client_message_id = protocol.read_message_id(text)
        self.put(protocol.error(exc, session_id=session_id, client_message_id=client_message_id))

    async def _dispatch(self, viewer: Viewer, frame: protocol.ClientFrame) -> None:
        match frame:
            case Chat():
                await self._chat(viewer, frame)
            case Cancel():
                await self._cancel(viewer, frame)
            case Resume():
                await viewer.resume(frame.session_id, frame.metadata)
            case Respond():
                await self._respond(viewer, frame)
            case Queue():
                await self._queue(viewer, frame)
            case ClientPing():
                self._pong(frame)
            case ClientPong():
                return
            case _:
                assert_never(frame)

    async def _chat(self, viewer: Viewer, frame: Chat) -> None:
        """Post a chat, but none that was sent behind one for which there was no room."""
        metadata = frame.metadata.model_dump()
        new = NewChat(content=frame.content, session_id=frame.session_id, **metadata)
        if new.client_message_id != self._postponed and time.monotonic() < self._postponed_until:
            raise process.refuse_busy("chat")
        self._postponed_until = 0.0
        try:
            await process.chat(self.process, viewer, new)
        except AgentSiteError as exc:
            if exc.code == ErrorCode.UNAVAILABLE and new.client_message_id:
                self._postponed = new.client_message_id
                self._postponed_until = time.monotonic() + UNTOLD_S
            raise

    async def _cancel(self, viewer: Viewer, frame: Cancel) -> None:
        async with viewer.lock:
            stopped = await dbpool.write_soon(
                cancel_run,
                user=self.scope["user"],
                session_id=frame.session_id,
                run_id=frame.metadata.run_id,
                client_message_id=frame.metadata.client_message_id,
            )
            self.put(_stop_answer(stopped))

    async def _respond(self, viewer: Viewer, frame: Respond) -> None:
        async with viewer.lock:
            decided = await dbpool.write_soon(
                lifecycle.decide,
                user=self.scope["user"],
                session_id=frame.session_id,
                request_id=frame.metadata.request_id,
                verdict=frame.metadata.decision,
                message=frame.metadata.message,
                viewed_for=viewed_for(),
            )
            self.put(frames.responded_frame(decided))

    async def _queue(self, viewer: Viewer, frame: Queue) -> None:
        async with viewer.lock:
            queue = await dbpool.write_soon(change_queue, self.scope["user"], frame)
            done = protocol.QueueDone(op=frame.metadata.op, queue=frames.queue_entries(queue))
            self.put(protocol.status(done, frame.session_id))

    def _pong(self, frame: ClientPing) -> None:
        metadata = protocol.PongMetadata(server_time=time.time(), ts=frame.metadata.ts)
        self.put(protocol.ServerPong(metadata=metadata))


def _decode(text: str | None) -> protocol.ClientFrame:
    if text is None:
        raise AgentSiteError(ErrorCode.BAD_FRAME)
    if len(text.encode("utf-8", "surrogatepass")) > get_conf().frame_max_bytes:
        raise AgentSiteError(ErrorCode.TOO_LARGE)
    return protocol.parse_client_frame(text)


def _connected(viewer: Viewer) -> protocol.Status:
    conf = get_conf()
    limits = protocol.Limits(
        frame_max_bytes=conf.frame_max_bytes,
        frames_per_minute=conf.frames_per_minute,
        queue_max=conf.queue_max,
        follow_max=conf.follow_max,
    )
    metadata = protocol.Connected(
        protocol=protocol.SUBPROTOCOL,
        user_id=str(viewer.user.pk),
        heartbeat_s=conf.heartbeat_s,
        limits=limits,
    )
    return protocol.status(metadata)


def _stop_answer(stopped: Stopped) -> protocol.Status:
    where = frames.run_metadata(stopped.run)
    metadata: protocol.RunHead | protocol.RunCancelling
    if stopped.ended_before:
        metadata = protocol.RunHead(**where, status=stopped.status, seq=stopped.seq)
    else:
        metadata = protocol.RunCancelling(**where)
    return protocol.status(metadata, stopped.run.session_id)
