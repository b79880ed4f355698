"""Daphne with a drain at shutdown, and with flow control for slow readers.

It relies on these parts of Daphne 4.2.3, which requirements.txt pins: `Server.handle_reply`,
`create_application`, `listen_success`, `listen_error`, `kill_all_applications`, `timeout_checker`,
`ws_factory` and `connections`; `WebSocketProtocol.application_queue` and `check_timeouts`;
`WebRequest.content` and `gotLength`; `http_factory`, whose `buildProtocol` makes a channel for each
connection. Of autobahn it replaces `dataReceived`, `sendData` and `CONFIG_ATTRS`.
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
from realtime.tasks import loop_timeout, note_ids


@implementer(IPushProducer)
class Valve:
    """Flow control of one connection: `drained` waits while its send buffer is full.

    Twisted pauses it as the producer of what is sent. Few connections are ever paused: the event
    that `drained` waits for is made then.
    """

    def __init__(self, abort: Callable[[], object]) -> None:
        self._abort = abort
        self._resumed: asyncio.Event | None = None

    def pauseProducing(self) -> None:  # noqa: N802  (Twisted's names)
        self._resumed = self._resumed or asyncio.Event()

    def resumeProducing(self) -> None:  # noqa: N802
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    def stopProducing(self) -> None:  # noqa: N802
        self.resumeProducing()

    async def drained(self, timeout_s: float) -> None:
        """Wait until the send buffer has room, or nothing is sent any more (`stopProducing`).

        Aborts the connection and raises `TimeoutError` if neither has happened after `timeout_s`
        seconds.
        """
        if self._resumed is None:
            return
        try:
            async with loop_timeout(timeout_s):
                await self._resumed.wait()
        except TimeoutError:
            self._abort()
            raise


logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 131_072
"""Daphne closes a connection at a larger message; the consumer answers smaller ones with an error
code.
"""

HANDSHAKE_TIMEOUT_S = 30
"""Long, so that of many clients that reconnect together the last are accepted late, not refused."""

CATCH_UP_TIMEOUT_S = 5
"""Seconds for the last frames of replies that the drain has cut off, before sockets close."""

CLOSE_TIMEOUT_S = 2
"""Seconds for the close handshakes of all sockets at the end."""

UNANSWERED_S = 10
"""Seconds that a client has to answer the heartbeat's `ping` with any frame; Daphne pings a socket
itself only after that. Clients that answer, as the page does, are so not pinged twice.
"""

CHECK_S = 10
"""Seconds between two looks at all connections for silent ones."""

HEADERS_S = 5
"""Seconds for the headers of a connection's first request; a silent connection is then aborted."""

RECONNECT_AFTER_MS = 1_000
RECONNECT_AFTER_MAX_MS = 4_000
"""Milliseconds after which clients connect again during a drain, at least and at most; they add up
to as much again at random.
"""

MOVE_MS = 20
"""Milliseconds for each socket, so that many do not come to another process at the same moment."""


MOVE_S = 10.0
"""Seconds, and `drain_s` at most, in which the clients of a web process may open a socket to
another one before theirs is closed.
"""

UNREAD_FRAMES = 32
"""Unread frames of one client in memory; further ones stay in the network until the consumer
catches up.
"""

LOOK_S = 0.05
"""Seconds between two looks at a client whose reading is paused."""


class PatientRequest(WebRequest):
    """A request that tells its server when all its headers are there, and reads no forms."""

    def __init__(self, *args: Any, **options: Any) -> None:
        # Django reads them in a thread, within its limits. Twisted would on the event loop, whole
        # and before anybody has looked at who sends them.
        super().__init__(*args, parsePOSTFormSubmission=False, **options)

    def gotLength(self, length: int | None) -> None:  # noqa: N802  (Twisted's name)
        self.server.on_headers(self.channel.getPeer())
        super().gotLength(length)


class PatientProtocol(WebSocketProtocol):
    """A WebSocket with flow control in both directions.

    `valve` lets the server wait for a slow client. Reading from the client pauses while more than
    `UNREAD_FRAMES` of its frames wait for the consumer.
    """

    maxMessagePayloadSize: int  # noqa: N815
    is_held = False

    @classmethod
    def share_options(cls, factory: Any) -> None:
        """Set the options of `factory` for all connections, from the next one on.

        Autobahn copies them to each connection, and composes a log entry of them, which costs more
        than the rest of a handshake. It still does so with functions, which would become methods.
        """
        shared = [name for name in cls.CONFIG_ATTRS if not callable(getattr(factory, name))]
        for name in shared:
            setattr(cls, name, getattr(factory, name))
        cls.CONFIG_ATTRS = [name for name in cls.CONFIG_ATTRS if name not in shared]

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N802, N803
        super().onMessage(payload, isBinary)
        if not self.is_held and self._is_behind():
            self.is_held = True
            self.transport.pauseProducing()
            self._look_again()

    def _is_behind(self) -> bool:
        return bool(self.application_queue.qsize() > UNREAD_FRAMES)

    def _look_again(self) -> None:
        """Resume reading once the consumer has caught up or the client has disconnected."""
        if self.transport.connected and self._is_behind():
            asyncio.get_running_loop().call_later(LOOK_S, self._look_again)
        else:
            self.is_held = False
            self.transport.resumeProducing()

    def onOpen(self) -> None:  # noqa: N802  (Twisted's names)
        self.valve = Valve(self.transport.abortConnection)
        # The connection's HTTP channel is still registered as its producer.
        self.transport.unregisterProducer()
        self.transport.registerProducer(self.valve, True)
        super().onOpen()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Take data as autobahn does, without composing its log entry, which costs more than that
        of a small frame.
        """
        self._dataReceived(data)

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:  # noqa: N802
        """Write data as autobahn does, without composing its log entry for the usual case."""
        if sync or chopsize or self.send_queue or self.state != self.STATE_OPEN:
            super().sendData(data, sync, chopsize)
        else:
            self.transport.write(data)

    def sendMessage(self, *args: Any, **options: Any) -> None:  # noqa: N802
        """Send without the size limit: it is meant for received messages, but autobahn applies it
        here too.
        """
        limit, self.maxMessagePayloadSize = self.maxMessagePayloadSize, 0
        try:
            super().sendMessage(*args, **options)
        finally:
            self.maxMessagePayloadSize = limit


def _valve_of(connection: Any) -> Valve:
    """Return the valve of a socket or of a streamed response, registered on first use."""
    if not hasattr(connection, "valve"):
        connection.valve = Valve(connection.channel.transport.abortConnection)
        connection.registerProducer(connection.valve, True)
    valve: Valve = connection.valve
    return valve


class Server(DaphneServer):
    """One web process: starts the background services, and drains at SIGTERM and SIGINT."""

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
            ping_interval=get_conf().heartbeat_s + UNANSWERED_S,
            websocket_handshake_timeout=HANDSHAKE_TIMEOUT_S,
            websocket_max_message_size=MAX_MESSAGE_BYTES,
            websocket_max_frame_size=MAX_MESSAGE_BYTES,
            server_name="agentsite",
        )

    def _get_ready(self) -> None:
        """Install our classes and signal handlers; Daphne calls this before its loop runs."""
        self.ws_factory.protocol = PatientProtocol
        PatientProtocol.share_options(self.ws_factory)
        # The context that those of all connections are copied from: each then replaces this entry,
        # where adding one would copy all others.
        note_ids()
        self.http_factory.buildProtocol = partial(
            self._build_channel, self.http_factory.buildProtocol
        )
        loop = asyncio.get_event_loop()
        loop.call_soon(get_process)
        process_module.on_signal(loop, self._begin_drain)

    def _build_channel(self, build: Callable[[Any], Any], address: Any) -> Any:
        """Make Daphne's channel for a connection, which is aborted unless headers come in time.

        Called while a port accepts. Twisted accepts in one turn of the loop as many as before, and
        more if that was all it tried: a number that none has makes it stay at one.
        """
        for port in self.ports:
            port.numberAccepts = 0
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
        """Note that the first request of the connection from `address` has all its headers.

        The connection is then no longer aborted for being silent. Later requests change nothing.
        """
        if timer := self._silent.pop((address.host, address.port), None):
            timer.cancel()

    def timeout_checker(self) -> None:
        """Ping clients that have been silent too long, and end handshakes that take too long.

        Daphne looks at all connections every 2 s; here it is every `CHECK_S`.
        """
        for connection in list(self.connections):
            connection.check_timeouts()
        asyncio.get_running_loop().call_later(CHECK_S, self.timeout_checker)

    def listen_success(self, port: Any) -> None:
        port.numberAccepts = 1
        self.ports.append(port)
        super().listen_success(port)

    def listen_error(self, failure: Any) -> None:
        self.failure = failure.getErrorMessage()
        self.stop()

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        """Correct what Daphne derives from a client's headers, then create the application.

        That holds for pages, REST and sockets alike. Daphne takes the URL prefix from the header
        `Daphne-Root-Path` of any client; this server is never mounted below a prefix. A chunked
        body gets a `Content-Length`: without one, frameworks treat the request as empty or read it
        without a limit.
        """
        scope["root_path"] = ""
        if scope["type"] == "http":
            _add_length(scope["headers"], protocol.content)
        return super().create_application(protocol, scope)

    async def handle_reply(self, protocol: Any, message: dict[str, Any]) -> None:
        """Send an ASGI message; after one of a socket or of a stream, wait for the send buffer.

        The wait is while the buffer is full: if it has no room after `send_timeout_s`, the
        connection is aborted and `TimeoutError` raised. A message to a client that is known to
        have disconnected is dropped; if a socket turns out to be closed, `ConnectionResetError` is
        raised. ASGI demands an `OSError`, which both are.
        """
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
        """Cancel all applications; return a Deferred that fires when they have ended.

        Connections without an application (none was begun, or Daphne has removed it after its end)
        are forgotten first: Daphne's own method raises `KeyError` for them.
        """
        for connection, details in list(self.connections.items()):
            if "application_instance" not in details:
                del self.connections[connection]
        return super().kill_all_applications()

    def _begin_drain(self) -> None:
        self._stopping = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        """Refuse new connections, let replies end, close every socket with a reason, and stop.

        Each step is bounded in time. Runs that are not released are recovered by sweepers, after
        their leases have expired.
        """
        try:
            for port in self.ports:
                port.stopListening()
            process = get_process()
            _announce(process)
            await process_module.drain(process)
            if process.role == "web":
                await self._wait_moved()
            await process.poller.catch_up(CATCH_UP_TIMEOUT_S)
            process.poller.each(lambda socket: socket.outbox.finish(protocol_module.CLOSE_RESTART))
            await self._wait_closed()
            await process_module.stop(process)
        finally:
            process_module.exit_soon()
            self.stop()

    async def _wait_moved(self) -> None:
        """Wait until clients have gone to other processes: their text goes on here meanwhile."""
        drain_s = get_conf().drain_s
        if applications := self._applications():
            seconds = MOVE_S if drain_s is None else min(MOVE_S, drain_s)
            await asyncio.wait(applications, timeout=seconds)

    async def _wait_closed(self) -> None:
        """Wait for applications to end, but cancel none: a hanging thread cannot be cancelled."""
        if applications := self._applications():
            _, late = await asyncio.wait(applications, timeout=CLOSE_TIMEOUT_S)
            if late:
                logger.info("some clients did not close their connections in time")

    def _applications(self) -> list[asyncio.Future[Any]]:
        found = (details.get("application_instance") for details in self.connections.values())
        return [application for application in found if application is not None]


def _add_length(headers: list[tuple[bytes, bytes]], body: IO[bytes]) -> None:
    """Add `Content-Length` if a request with a body has none; `body` is rewound."""
    length = body.seek(0, os.SEEK_END)
    body.seek(0)
    if length and not any(name == b"content-length" for name, _ in headers):
        headers.append((b"content-length", str(length).encode()))


def _announce(process: Process) -> None:
    wanted = max(RECONNECT_AFTER_MS, process.poller.count * MOVE_MS)
    pause_ms = min(wanted, RECONNECT_AFTER_MAX_MS)
    metadata = protocol_module.Draining(reconnect_after_ms=pause_ms)
    frame = protocol_module.status(metadata).encode()
    process.poller.each(lambda socket: socket.outbox.put(frame))


def _endpoint(host: str, port: int) -> str:
    interface = host.replace(":", chr(92) + ":")
    return f"tcp:port={port}:interface={interface}:backlog={get_conf().listen_backlog}"
