"""A chat client on a real socket, which checks the protocol with `Transcript`."""

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.transcript import Frame, Transcript, event_of, is_terminal
from tests.support.waiting import TIMEOUT_S, time_limit

TCP_ESTABLISHED = 1

Match = Callable[[Frame], object]


def event(name: str, **metadata: Any) -> Match:
    """Match a status frame by its event and some of its metadata."""
    return lambda frame: event_of(frame) == name and metadata.items() <= frame["metadata"].items()


def frame_of(kind: str, **metadata: Any) -> Match:
    """Match a frame by its type and some of its metadata."""
    return lambda frame: frame["type"] == kind and metadata.items() <= frame["metadata"].items()


class ChatClient:
    """One socket: records every frame as it arrives and applies it to `transcript`.

    A protocol violation that the transcript finds is raised by the next method that waits.
    """

    def __init__(self, connection: ClientConnection, transcript: Transcript) -> None:
        self.frames: list[Frame] = []
        self.transcript = transcript
        self.fault: BaseException | None = None
        self.draining: Frame | None = None
        self._connection = connection
        self._has_left = False
        self._changed = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @property
    def close_code(self) -> int | None:
        """The code that the socket was closed with; None while it is open."""
        return self._connection.close_code

    async def send(self, frame: Frame) -> None:
        """Send any frame."""
        await self.send_text(json.dumps(frame))

    async def send_text(self, text: str | bytes) -> None:
        """Send any text, also one that is no frame, or bytes."""
        await self._connection.send(text)

    async def chat(self, content: str, session_id: str = "", **metadata: Any) -> dict[str, Any]:
        """Send a message under a new id, wait until it is accepted, and return that metadata.

        An `error` for it raises `AssertionError`. The session is in `session_id` of the result.
        """
        client_message_id = metadata.setdefault("client_message_id", uuid4().hex)
        after = len(self.frames)
        await self.send_chat(content, session_id, **metadata)
        frame = await self.wait_for(
            lambda frame: (
                frame["metadata"].get("client_message_id") == client_message_id
                and (frame["type"] == "error" or event_of(frame) == "accepted")
            ),
            after=after,
        )
        assert frame["type"] != "error", frame
        return {**frame["metadata"], "session_id": frame["session_id"]}

    async def send_chat(self, content: str, session_id: str = "", **metadata: Any) -> None:
        """Send a message without waiting for an answer."""
        await self.send(_frame("chat", session_id, metadata) | {"content": content})

    async def cancel(self, session_id: str, **metadata: Any) -> None:
        """Cancel a run: the one of `run_id=` or `client_message_id=`, else the active one."""
        await self.send(_frame("cancel", session_id, metadata))

    async def resume(self, session_id: str, **metadata: Any) -> Frame:
        """Follow a session, by default from the transcript's cursor; returns `resumed`."""
        after = len(self.frames)
        metadata = metadata or self.transcript.cursor(session_id)
        await self.send(_frame("resume", session_id, metadata))
        return await self.wait_for(
            lambda frame: frame["session_id"] == session_id and event_of(frame) == "resumed",
            after=after,
        )

    async def ping(self, ts: float | str | None = None) -> Frame:
        """Send a `ping` and wait for its `pong`."""
        after = len(self.frames)
        await self.send(_frame("ping", "", {} if ts is None else {"ts": ts}))
        return await self.wait_for(frame_of("pong"), after=after)

    async def wait_for(self, match: Match, *, after: int = 0, within: float = TIMEOUT_S) -> Frame:
        """Return the first frame that matches, received (from `frames[after]`) or to come.

        Raises `ConnectionError` if the socket closes first, `TimeoutError` with what came instead.
        """
        position = after
        try:
            async with time_limit("a frame that matches", within=within), self._changed:
                while True:
                    for frame in self.frames[position:]:
                        if match(frame):
                            return frame
                    position = max(position, len(self.frames))
                    self._raise_fault()
                    await self._changed.wait()
        except TimeoutError as exc:
            last = "\n".join(map(str, self.frames[-20:]))
            raise TimeoutError(f"{exc}; last came:\n{last}") from None

    async def wait_end(self, run_id: str, *, within: float = TIMEOUT_S) -> Frame:
        """Wait for the terminal frame of a run."""
        return await self.wait_for(
            lambda frame: is_terminal(frame) and frame["metadata"]["run_id"] == run_id,
            within=within,
        )

    async def wait_text(self, run_id: str, text: str, *, within: float = TIMEOUT_S) -> None:
        """Wait until the shown text of a run begins with `text`."""
        await self.wait_until(
            lambda: (
                run_id in self.transcript.runs and self.transcript.text(run_id).startswith(text)
            ),
            within=within,
        )

    async def wait_until(self, met: Callable[[], object], *, within: float = TIMEOUT_S) -> None:
        """Wait for a condition that only arriving frames can fulfil."""
        async with time_limit("what frames should bring", within=within), self._changed:
            while not met():
                self._raise_fault()
                await self._changed.wait()

    async def wait_closed(self, *, within: float = TIMEOUT_S) -> int | None:
        """Wait until the socket is closed; returns its code."""
        async with time_limit("the close of the socket", within=within):
            await asyncio.shield(self._reading)
        return self.close_code

    def fall_asleep(self) -> None:
        """Stop reading, like a phone in a pocket; the socket stays open."""
        self._connection.transport.pause_reading()

    def wake_up(self) -> None:
        """Read again."""
        self._connection.transport.resume_reading()

    @property
    def is_cut(self) -> bool:
        """Whether the server has closed the connection, which a sleeping client cannot notice."""
        sock = self._connection.transport.get_extra_info("socket")
        state: int = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return state != TCP_ESTABLISHED

    def drop(self) -> None:
        """Abort the connection without a close frame."""
        self._connection.transport.abort()

    def leave(self) -> None:
        """Abort the connection, and ignore what it has received but not applied."""
        self._has_left = True
        self.drop()

    async def close(self) -> None:
        """Close the socket, and raise a protocol violation that nothing has waited for."""
        await self._connection.close()
        await self._reading
        if not isinstance(self.fault, ConnectionError):
            self._raise_fault()

    def _raise_fault(self) -> None:
        if self.fault is not None:
            raise self.fault

    async def _read(self) -> None:
        fault: BaseException
        try:
            async for message in self._connection:
                await self._take(json.loads(message))
            fault = ConnectionError(f"closed with {self.close_code}")
        except ConnectionClosed as exc:
            fault = ConnectionError(str(exc))
        except Exception as exc:
            fault = exc
        async with self._changed:
            self.fault = fault
            self._changed.notify_all()

    async def _take(self, frame: Frame) -> None:
        async with self._changed:
            if self._has_left:
                return
            self.frames.append(frame)
            if event_of(frame) == "draining":
                self.draining = frame
            self.transcript.apply(frame)
            self._changed.notify_all()


@contextlib.asynccontextmanager
async def open_chat(
    url: str,
    *,
    cookie: str = "",
    bearer: str = "",
    origin: str = "",
    transcript: Transcript | None = None,
    receive_buffer: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[ChatClient]:
    """Open a connected client; with the `transcript` of an earlier one it continues from there.

    `receive_buffer` is the number of bytes that the kernel may buffer for a client that does not
    read.
    """
    headers = {"Cookie": cookie, "Authorization": bearer and f"Bearer {bearer}", "Origin": origin}
    connection = await connect(
        url,
        sock=await _connect_narrow(url, receive_buffer) if receive_buffer else None,
        ssl=tls,
        additional_headers={name: value for name, value in headers.items() if value},
        compression=None,
        ping_interval=None,
        proxy=None,
        max_size=None,
        max_queue=None,
        user_agent_header=None,
    )
    transcript = transcript or Transcript()
    transcript.reconnect()
    client = ChatClient(connection, transcript)
    try:
        yield client
    finally:
        await client.close()


async def _connect_narrow(url: str, receive_buffer: int) -> socket.socket:
    """Connect with the buffer already set: setting it afterwards would have no effect."""
    parts = urlsplit(url)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (parts.hostname, parts.port))
    return sock


def _frame(kind: str, session_id: str, metadata: dict[str, Any]) -> Frame:
    frame: Frame = {"type": kind}
    if session_id:
        frame["session_id"] = session_id
    if metadata:
        frame["metadata"] = metadata
    return frame
