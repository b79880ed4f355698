"""Clients of the site and of the plain relay: sockets that chat, follow a session, or only read."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.support.provider import words

DEADLINE_S = 300


@dataclass(frozen=True)
class Load:
    """What `clients` ask for: each `rounds` replies in sequence, of `tokens` at `rate` a second.

    A `rate` of 0 is as fast as the model can. The clients begin within `ramp_s` seconds.
    """

    clients: int
    tokens: int
    rate: int
    rounds: int = 1
    ramp_s: float = 0.0

    @property
    def prompt(self) -> str:
        """The prompt in the form that the stand-in model understands."""
        return f"tokens={self.tokens} rate={self.rate}"

    @property
    def replies(self) -> int:
        return self.clients * self.rounds


@dataclass
class Reply:
    """When a reply was asked for, when its pieces of text came and when it ended: seconds of
    `time.perf_counter()`.
    """

    asked_at: float = field(default_factory=time.perf_counter)
    text_at: list[float] = field(default_factory=list)
    ended_at: float = 0.0

    @property
    def first_s(self) -> float:
        """Seconds until the first piece of text."""
        return self.text_at[0] - self.asked_at

    @property
    def silences_s(self) -> list[float]:
        """Seconds between two pieces of text."""
        return [after - before for before, after in pairwise(self.text_at)]


async def open_socket(url: str, bearer: str) -> ClientConnection:
    return await connect(
        url,
        additional_headers={"Authorization": f"Bearer {bearer}"},
        compression=None,
        ping_interval=None,
        proxy=None,
        max_queue=None,
        open_timeout=60,
    )


class Client:
    """One socket; `frames` counts what it has received, `session_id` is that of its latest chat."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.session_id = ""
        self.frames = 0

    async def chat(self, tokens: int, rate: int, *, session_id: str = "") -> Reply:
        """Ask for a reply and read it to its end; raises `AssertionError` if its text is wrong.

        Without a `session_id` it begins a new conversation.
        """
        content = f"tokens={tokens} rate={rate}"
        frame = {"type": "chat", "content": content, "session_id": session_id}
        reply = Reply()
        await self._connection.send(json.dumps(frame))
        ended = await self._read_until("complete", reply)
        reply.ended_at = time.perf_counter()
        expected = "".join(words(tokens))
        assert ended["content"] == expected, f"{len(ended['content'])} of {len(expected)} chars"
        return reply

    async def follow(self, session_id: str) -> None:
        """Follow a session from its beginning, until the server has answered."""
        frame = {"type": "resume", "session_id": session_id, "metadata": {"rev": 0}}
        await self._connection.send(json.dumps(frame))
        await self._read_until("resumed", Reply())

    async def _read_until(self, name: str, reply: Reply) -> dict[str, Any]:
        """Return the first frame of this type or event; `reply` notes the text before it."""
        async with asyncio.timeout(DEADLINE_S):
            async for message in self._connection:
                frame: dict[str, Any] = json.loads(message)
                event = frame.get("metadata", {}).get("event")
                self.frames += 1
                if event == "accepted":
                    self.session_id = frame["session_id"]
                if frame["type"] == "token" or (event == "snapshot" and frame["metadata"]["parts"]):
                    reply.text_at.append(time.perf_counter())
                if name in (frame["type"], event):
                    return frame
                assert frame["type"] != "error", frame
        raise AssertionError(f"closed before {name}: {self._connection.close_code}")

    async def drain(self) -> None:
        """Read, and answer pings as a page does, until the socket or the task ends."""
        async for message in self._connection:
            self.frames += 1
            if json.loads(message)["type"] == "ping":
                await self._connection.send('{"type": "pong"}')


@contextlib.asynccontextmanager
async def clients(
    url: str, bearers: Sequence[str], *, at_once: int = 10_000
) -> AsyncIterator[list[Client]]:
    """Open one socket for each bearer, with `at_once` handshakes at the same time; closes them at
    the end.
    """
    room = asyncio.Semaphore(at_once)

    async def open_one(bearer: str) -> ClientConnection:
        async with room:
            return await open_socket(url, bearer)

    opened = await asyncio.gather(*map(open_one, bearers))
    try:
        yield [Client(connection) for connection in opened]
    finally:
        await asyncio.gather(*(connection.close() for connection in opened))


@contextlib.asynccontextmanager
async def beside(works: Sequence[Coroutine[Any, Any, object]]) -> AsyncIterator[None]:
    """Do other work until the context ends; then raises what the work has raised meanwhile."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
        for task in tasks:
            if task.done():
                await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
