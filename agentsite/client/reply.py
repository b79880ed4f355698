"""One reply: what a program asks for, and what it is told until the end."""

import asyncio
from collections.abc import AsyncIterator
from typing import Literal, NamedTuple, Protocol

from agentsite.client.errors import ClientError, ReplyError
from agentsite.client.events import Ended, Event
from agentsite.client.run_view import Frame, RunView


class Answer(NamedTuple):
    """What holds of an approval now: `duplicate` when it had been decided before, `by` whom."""

    decision: str
    by: str
    duplicate: bool


class Line(Protocol):
    """The chat that a reply belongs to, which sends for it."""

    async def cancel(self, reply: "Reply") -> None: ...

    async def respond(
        self, request_id: str, decision: Literal["approve", "reject"], message: str
    ) -> Answer: ...


class Reply(AsyncIterator[Event]):
    """Iterate over it to be told of everything, or `await reply.wait()` for the end alone.

    Either raises `ReplyError` when the reply ends with an error, another `RefusedError` when the
    message was not taken, and `UnreachableError` when the connection stays away for too long; the
    reply itself goes on then. `text` is the answer so far, also afterwards.
    """

    def __init__(self, line: Line) -> None:
        self.session_id = ""
        self.run_id = ""
        self.message_id = ""
        self.view = RunView()
        self._line = line
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._fault: ClientError | None = None
        self._is_read = False
        self._taken = asyncio.Event()

    @property
    def text(self) -> str:
        """The answer so far."""
        return self.view.text

    @property
    def end(self) -> Ended | None:
        """How it ended, if it has, and not with an error."""
        return self.view.end if isinstance(self.view.end, Ended) else None

    @property
    def open_requests(self) -> list[str]:
        """The `request_id`s of approvals that nobody has decided, as far as it is known here."""
        return self.view.open_requests

    async def stop(self) -> None:
        """Have it stopped, from before its first word on; `Ended` with `cancelled` follows.

        Returns when the site has noted it, or when the reply is over; raises `RefusedError`.
        """
        await self._line.cancel(self)

    async def approve(self, request_id: str) -> Answer:
        """Let a tool run; what was decided first holds. Raises `RefusedError`."""
        return await self._line.respond(request_id, "approve", "")

    async def reject(self, request_id: str, message: str = "") -> Answer:
        """Forbid it and tell the model why; what was decided first holds. Raises `RefusedError`."""
        return await self._line.respond(request_id, "reject", message)

    async def wait(self) -> Ended:
        """The end, whatever comes before it."""
        async for _ in self:
            pass
        assert self.end is not None
        return self.end

    async def __anext__(self) -> Event:
        event = None if self._is_read else await self._events.get()
        if event is None:
            self._is_read = True
            raise self._fault or StopAsyncIteration
        return event

    async def taken(self) -> None:
        """Wait until the site has the message, or will not have it."""
        await self._taken.wait()

    def begin(self, session_id: str, run_id: str, message_id: str) -> None:
        """For the chat: it has its run now."""
        self.session_id, self.run_id, self.message_id = session_id, run_id, message_id
        self._taken.set()

    def tell(self, *events: Event) -> None:
        """For the chat: pass these on."""
        for event in events:
            self._events.put_nowait(event)

    def take(self, frame: Frame) -> bool:
        """For the chat: a frame of its run; whether that was the end. Raises `GapError`."""
        self.tell(*self.view.take(frame))
        if self.view.end is None:
            return False
        self.close(self.view.end if isinstance(self.view.end, ReplyError) else None)
        return True

    def close(self, fault: ClientError | None) -> None:
        """For the chat: nothing more comes, and why if that is not the reply's own end."""
        self._fault = fault
        self._taken.set()
        self._events.put_nowait(None)
