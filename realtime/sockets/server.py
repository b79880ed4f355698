"""Daphne with a clean stop, and with flow control for slow readers.

Leans on these parts of Daphne 4.2.3, which requirements.txt pins: `Server.handle_reply`,
`create_application`, `listen_success`, `listen_error`, `kill_all_applications`, `ws_factory` and
`connections`; `WebSocketProtocol.application_queue`; `WebRequest.content` and `gotLength`;
`http_factory`, whose `buildProtocol` makes a channel for each connection.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from functools import partial
from typing import IO, Any

from autobahn.exception import Disconnected
from daphne.http_protocol import WebRequest
from daphne.server import Server as DaphneServer
from daphne.ws_protocol import WebSocketProtocol
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from realtime import process as process_module
from realtime import protocol as protocol_module
from realtime.conf import get_conf
from realtime.process import Process, get_process


@implementer(IPushProducer)
class Valve:
    """Registered with a transport, which closes it when its buffer is full."""

    def __init__(self, abort: Callable[[], object]) -> None:
        self._abort = abort
        self._open = asyncio.Event()
        self._open.set()

    def pauseProducing(self) -> None:  # noqa: N802  (Twisted's names)
        self._open.clear()

    def resumeProducing(self) -> None:  # noqa: N802
        self._open.set()

    def stopProducing(self) -> None:  # noqa: N802
        self._open.set()

    async def drained(self, timeout_s: float) -> None:
        """Wait until there is room.

        A client that takes nothing for so long is cut off; raises `TimeoutError`.
        """
        if self._open.is_set():
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._open.wait()
        except TimeoutError:
            self._abort()
            raise


logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 131_072
"""Daphne cuts a connection above this; below it the consumer answers with an error code."""

HANDSHAKE_TIMEOUT_S = 30
"""Of a crowd that comes back at once the last are let in late, not sent away to try again."""

CATCH_UP_TIMEOUT_S = 5
"""For the last frames of replies that a drain has cut off, before sockets are closed."""

CLOSE_TIMEOUT_S = 2
"""For the close handshakes of all sockets at the end."""

HEADERS_S = 5
"""For the headers of a connection's first request: who says nothing costs nothing."""

RECONNECT_AFTER_MS = 1_000
"""When clients of a server that stops try the next one; they add jitter of their own."""


UNREAD_FRAMES = 32
"""Frames of one client that wait for its consumer; what comes on top stays in the network."""

LOOK_S = 0.05
"""How often a client that was held back is looked at again."""


class PatientRequest(WebRequest):
    """Tells its server when it has come so far that it can be answered."""

    def gotLength(self, length: int | None) -> None:  # noqa: N802  (Twisted's name)
        self.server.on_headers(self.channel.getPeer())
        super().gotLength(length)


class PatientProtocol(WebSocketProtocol):
    """Tells whether the client's side of the connection takes more, and takes no flood itself."""

    maxMessagePayloadSize: int  # noqa: N815
    is_held = False

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N802, N803
        super().onMessage(payload, isBinary)
        if not self.is_held and self._is_behind():
            self.is_held = True
            self.transport.pauseProducing()
            self._look_again()

    def _is_behind(self) -> bool:
        return bool(self.application_queue.qsize() > UNREAD_FRAMES)

    def _look_again(self) -> None:
        """Until its consumer has caught up, or the client is gone."""
        if self.transport.connected and self._is_behind():
            asyncio.get_running_loop().call_later(LOOK_S, self._look_again)
        else:
            self.is_held = False
            self.transport.resumeProducing()

    def onOpen(self) -> None:  # noqa: N802  (Twisted's names)
        self.valve = Valve(self.transport.abortConnection)
        # The HTTP channel that this connection began as is registered still.
        self.transport.unregisterProducer()
        self.transport.registerProducer(self.valve, True)
        super().onOpen()

    def sendMessage(self, *args: Any, **options: Any) -> None:  # noqa: N802
        """The limit is for what comes in; autobahn would refuse longer replies too."""
        limit, self.maxMessagePayloadSize = self.maxMessagePayloadSize, 0
        try:
            super().sendMessage(*args, **options)
        finally:
            self.maxMessagePayloadSize = limit


def _valve_of(connection: Any) -> Valve:
    """That of a socket, or of an answer that is being streamed."""
    if not hasattr(connection, "valve"):
        connection.valve = Valve(connection.channel.transport.abortConnection)
        connection.registerProducer(connection.valve, True)
    valve: Valve = connection.valve
    return valve


class Server(DaphneServer):
    """One web process: starts the background services, and drains on SIGTERM and SIGINT."""

    def __init__(self, application: Any, *, host: str, port: int) -> None:
        self.ports: list[Any] = []
        self.failure: str | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._address = (host, port)
        self._silent: dict[tuple[str, int], asyncio.TimerHandle] = {}
        super().__init__(
            application,
            endpoints=[_endpoint(host, port)],
            signal_handlers=False,
            ready_callable=self._get_ready,
            websocket_timeout=-1,
            websocket_handshake_timeout=HANDSHAKE_TIMEOUT_S,
            websocket_max_message_size=MAX_MESSAGE_BYTES,
            websocket_max_frame_size=MAX_MESSAGE_BYTES,
            server_name="agentsite",
        )

    def _get_ready(self) -> None:
        """Called by Daphne just before its loop runs."""
        self.ws_factory.protocol = PatientProtocol
        self.http_factory.buildProtocol = partial(
            self._build_channel, self.http_factory.buildProtocol
        )
        loop = asyncio.get_event_loop()
        loop.call_soon(get_process)
        process_module.on_signal(loop, self._begin_drain)

    def _build_channel(self, build: Callable[[Any], Any], address: Any) -> Any:
        """A connection as Daphne makes it, cut off unless the headers of a request come in time."""
        channel = build(address)
        channel.requestFactory = PatientRequest
        make_connection = channel.makeConnection

        def connect(transport: Any) -> None:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(HEADERS_S, self._cut_off, address, transport)
            self._silent[address.host, address.port] = timer
            make_connection(transport)

        channel.makeConnection = connect
        return channel

    def _cut_off(self, address: Any, transport: Any) -> None:
        self._silent.pop((address.host, address.port), None)
        transport.abortConnection()

    def on_headers(self, address: Any) -> None:
        """A request of this connection has all its headers."""
        if timer := self._silent.pop((address.host, address.port), None):
            timer.cancel()

    def listen_success(self, port: Any) -> None:
        self.ports.append(port)
        super().listen_success(port)

    def listen_error(self, failure: Any) -> None:
        self.failure = failure.getErrorMessage()
        self.stop()

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        """Corrects what Daphne makes of a client's headers, for pages, REST and sockets alike.

        Daphne takes the prefix of all addresses from `Daphne-Root-Path`, whoever sends it; this
        server is never mounted below a prefix. A chunked body gets its length: frameworks take a
        request without one as empty, or read it without a limit.
        """
        scope["root_path"] = ""
        if scope["type"] == "http":
            _add_length(scope["headers"], protocol.content)
        return super().create_application(protocol, scope)

    async def handle_reply(self, protocol: Any, message: dict[str, Any]) -> None:
        """Raises `OSError` for a client that has gone, as ASGI has it."""
        kind, more = message["type"], message.get("more_body", False)
        is_piece = kind == "http.response.body"
        if is_piece and not more and protocol.channel is not None and hasattr(protocol, "valve"):
            protocol.unregisterProducer()
        try:
            await super().handle_reply(protocol, message)
        except Disconnected as exc:
            raise ConnectionResetError from exc
        streamed = is_piece and more and protocol.channel is not None
        if streamed or (kind == "websocket.send" and isinstance(protocol, PatientProtocol)):
            await _valve_of(protocol).drained(get_conf().send_timeout_s)

    def kill_all_applications(self) -> Any:
        """Daphne trips over connections whose application has ended already."""
        for connection, details in list(self.connections.items()):
            if "application_instance" not in details:
                del self.connections[connection]
        return super().kill_all_applications()

    def _begin_drain(self) -> None:
        self._stopping = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        """Take nobody new, let replies end, close every socket with a reason, stop.

        Each step is bounded in time: what it leaves undone, leases and sweepers see to.
        """
        try:
            for port in self.ports:
                port.stopListening()
            process = get_process()
            _announce(process)
            await process_module.drain(process)
            await process.poller.catch_up(CATCH_UP_TIMEOUT_S)
            process.poller.each(lambda socket: socket.outbox.finish(protocol_module.CLOSE_RESTART))
            await self._wait_closed()
            await process_module.stop(process)
        finally:
            process_module.exit_soon()
            self.stop()

    async def _wait_closed(self) -> None:
        """Not by cancelling those that are late: a request that hangs in a thread stays."""
        if applications := self._applications():
            _, late = await asyncio.wait(applications, timeout=CLOSE_TIMEOUT_S)
            if late:
                logger.info("some clients did not close in time")

    def _applications(self) -> list[asyncio.Future[Any]]:
        found = (details.get("application_instance") for details in self.connections.values())
        return [application for application in found if application is not None]


def _add_length(headers: list[tuple[bytes, bytes]], body: IO[bytes]) -> None:
    """Add `Content-Length` where a request with a body has none; `body` is read to its start."""
    length = body.seek(0, os.SEEK_END)
    body.seek(0)
    if length and not any(name == b"content-length" for name, _ in headers):
        headers.append((b"content-length", str(length).encode()))


def _announce(process: Process) -> None:
    metadata = protocol_module.Draining(reconnect_after_ms=RECONNECT_AFTER_MS)
    frame = protocol_module.status(metadata).encode()
    process.poller.each(lambda socket: socket.outbox.put(frame))


def _endpoint(host: str, port: int) -> str:
    return f"tcp:port={port}:interface={host.replace(':', chr(92) + ':')}"
