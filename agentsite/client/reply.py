"""One reply: its state, built from frames, and its events."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal, NamedTuple, Protocol

from agentsite.client.events import (
    AgentChanged,
    ApprovalDecided,
    ApprovalNeeded,
    Ended,
    Event,
    Reasoning,
    Retrying,
    Rewritten,
    Started,
    Text,
    ToolEnded,
    ToolProgress,
    ToolStarted,
    Waiting,
)
from agentsite.client.http import ClientError, ReplyError

Frame = dict[str, Any]

ENDED_TOOLS = {"finished", "failed"}


class GapError(Exception):
    """Frames of a run are missing, perhaps its last one; the chat requests them with `resume`."""


class RunView:
    """The state of one run, made of its frames in order; a frame taken before is ignored.

    `text` is the answer so far; `end` is None until the last frame.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.seq = 0
        self.text = ""
        self.end: Ended | ReplyError | None = None
        self._tools: dict[str, str] = {}
        self._requests: dict[str, str] = {}

    @property
    def cursor(self) -> dict[str, int]:
        """The place up to which the run is known, for `resume`."""
        return {"epoch": self.epoch, "seq": self.seq}

    @property
    def open_requests(self) -> list[str]:
        """The ids of the approvals that are undecided by the frames taken so far, oldest first."""
        return [request_id for request_id, decision in self._requests.items() if not decision]

    def take(self, frame: Frame) -> list[Event]:
        """Apply a frame and return its events, which may be none.

        A frame that was taken before, or comes after the end, changes nothing. An error that ends
        the run has no event, but sets `end`. Raises `GapError` if a frame before it is missing, or
        if the run has ended without its last frame, and then changes nothing.
        """
        if self.end is not None:
            return []
        kind, at = frame["type"], frame["metadata"]
        if kind == "complete":
            return self._complete(frame)
        if kind == "error":
            return self._fail(frame)
        if kind == "status" and at["event"] in ("snapshot", "run.reset", "run.queued", "run.head"):
            return self._aside(at)
        if "seq" not in at or not self._is_next(at):
            return []
        anew = self._start_over(at["epoch"])
        self.seq = at["seq"]
        return anew + (self._grow(frame["content"]) if kind == "token" else self._step(at))

    def _is_next(self, at: dict[str, Any]) -> bool:
        """Return False for a frame that was taken before. Raises `GapError`."""
        if (at["epoch"], at["seq"]) <= (self.epoch, self.seq):
            return False
        last = self.seq if at["epoch"] == self.epoch else 0
        if at["seq"] != last + 1:
            raise GapError
        return True

    def _grow(self, delta: str) -> list[Event]:
        self.text += delta
        return [Text(delta)] if delta else []

    def _become(self, text: str) -> list[Event]:
        """Set the text to `text` and return the event, with just the rest if the text only grew."""
        if text.startswith(self.text):
            return self._grow(text[len(self.text) :])
        self.text = text
        return [Rewritten(text)]

    def _complete(self, frame: Frame) -> list[Event]:
        """Apply a `complete` frame, which contains the whole text and is valid after a gap too."""
        at = frame["metadata"]
        events = self._become(frame["content"])
        self.end = Ended(
            text=frame["content"],
            finish_reason=at["finish_reason"],
            reason=at.get("reason", ""),
            usage=at["usage"],
            usage_source=at["usage_source"],
        )
        return [*events, self.end]

    def _fail(self, frame: Frame) -> list[Event]:
        at = frame["metadata"]
        self.end = ReplyError(
            at["code"],
            frame["content"],
            retryable=at["retryable"],
            retry_after=at.get("retry_after"),
        )
        return []

    def _aside(self, at: dict[str, Any]) -> list[Event]:
        """Apply a frame without a `seq` of its own."""
        match at["event"]:
            case "run.queued":
                return [Waiting(at["position"])]
            case "run.head":
                # The run has ended, but its last frame was not received.
                raise GapError
            case "run.reset":
                return self._start_over(at["epoch"])
            case _:
                return self._replace(at)

    def _start_over(self, epoch: int) -> list[Event]:
        if epoch <= self.epoch:
            return []
        self.epoch, self.seq = epoch, 0
        self._tools.clear()
        return self._become("") if self.text else []

    def _replace(self, snapshot: dict[str, Any]) -> list[Event]:
        """Apply a snapshot; return the differences to the known state as events."""
        if (snapshot["epoch"], snapshot["seq"]) < (self.epoch, self.seq):
            return []
        self.epoch, self.seq = snapshot["epoch"], snapshot["seq"]
        parts = snapshot["parts"]
        events = [event for part in parts for event in self._compare(part)]
        shown = "\n\n".join(part["text"] for part in parts if part["type"] == "text")
        return [*self._become(shown), *events]

    def _compare(self, part: dict[str, Any]) -> Iterator[Event]:
        if part["type"] == "tool" and self._tools.get(part["tool_call_id"]) != part["status"]:
            yield self._tool(part["status"], part)
        elif part["type"] == "approval":
            known = self._requests.get(part["request_id"])
            if known is None:
                yield self._ask(part)
            if not known and part.get("decision"):
                yield self._decide(part)

    def _step(self, at: dict[str, Any]) -> list[Event]:
        """Return the events of a numbered frame without text; unknown events are ignored."""
        match at["event"]:
            case "run.started":
                return [Started(at["agent"])]
            case "run.retrying":
                return [Retrying(at["wait_s"], at["code"])]
            case "reasoning.delta":
                return [Reasoning(at["delta"])]
            case "agent.changed":
                return [AgentChanged(at["name"])]
            case "input.requested":
                return [self._ask(at)]
            case "input.resolved":
                return [self._decide(at)]
            case "tool.started" | "tool.progress" | "tool.finished" | "tool.failed":
                return [self._tool(at["event"].removeprefix("tool."), at)]
            case _:
                return []

    def _tool(self, status: str, at: dict[str, Any]) -> Event:
        named = at["tool_call_id"], at["name"]
        self._tools[at["tool_call_id"]] = status
        if status in ENDED_TOOLS:
            failed = status == "failed"
            return ToolEnded(*named, failed, at.get("output") or "", at.get("summary") or "")
        if status == "progress":
            return ToolProgress(*named, at["progress"], at.get("fraction"))
        return ToolStarted(*named, at.get("arguments") or "")

    def _ask(self, at: dict[str, Any]) -> Event:
        self._requests[at["request_id"]] = ""
        names = ("request_id", "tool", "description", "arguments", "expires_at")
        return ApprovalNeeded(*(at[name] for name in names))

    def _decide(self, at: dict[str, Any]) -> Event:
        self._requests[at["request_id"]] = at["decision"]
        return ApprovalDecided(at["request_id"], at["decision"], at.get("by") or "")


class Answer(NamedTuple):
    """The answer to a decision on an approval: the decision that holds, and by which user.

    With `duplicate`, the approval had been decided before, and that decision stays; it may also be
    `cancelled` or `expired`, with "" for `by`.
    """

    decision: str
    by: str
    duplicate: bool


class Line(Protocol):
    """The chat of a reply, which sends frames for it."""

    async def cancel(self, reply: "Reply") -> None: ...

    async def respond(
        self, request_id: str, decision: Literal["approve", "reject"], message: str
    ) -> Answer: ...


class Reply(AsyncIterator[Event]):
    """A reply: iterate over it for all events, or `await reply.wait()` for its end.

    Both raise `ReplyError` if the reply ends with an error, another `RefusedError` if the message
    was refused, and `UnreachableError` if the connection is not restored in time; the reply then
    continues on the server. `text` is the answer so far, also after an error. Each event is given
    once; an iteration that was cancelled can be continued by another one. The ids are "" until the
    site has accepted the message.
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
        """The answer so far, also of events that have not been read."""
        return self.view.text

    @property
    def end(self) -> Ended | None:
        """The end of the reply; None while it is active, and if reading it raises an error."""
        return self.view.end if isinstance(self.view.end, Ended) else None

    @property
    def open_requests(self) -> list[str]:
        """The `request_id`s of the undecided approvals, as far as this client knows."""
        return self.view.open_requests

    async def stop(self) -> None:
        """Stop the reply, possibly before its first word; do nothing if it has ended.

        Returns when the site has stored the request, or the reply has ended. The last event is
        `Ended` with `cancelled`, unless the reply ended in another way before. Raises
        `RefusedError` and `UnreachableError`.
        """
        await self._line.cancel(self)

    async def approve(self, request_id: str) -> Answer:
        """Approve a tool call; return the decision that holds, which is the first one.

        `request_id` is that of `ApprovalNeeded`. Raises `RefusedError` and `UnreachableError`.
        """
        return await self._line.respond(request_id, "approve", "")

    async def reject(self, request_id: str, message: str = "") -> Answer:
        """Reject a tool call; return the decision that holds, which is the first one.

        `request_id` is that of `ApprovalNeeded`; `message` tells the model why. Raises
        `RefusedError` and `UnreachableError`.
        """
        return await self._line.respond(request_id, "reject", message)

    async def wait(self) -> Ended:
        """Read and drop the events until the reply has ended; return its end, also on later calls.

        Raises `ReplyError` if it ends with an error, another `RefusedError` if the message was
        refused, and `UnreachableError` if the connection is not restored in time.
        """
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
        """Wait until the site has accepted or refused the message, or the chat has ended.

        Returns at once for a reply of `Chat.running`. Raises nothing for a refusal.
        """
        await self._taken.wait()

    def begin(self, session_id: str, run_id: str, message_id: str) -> None:
        """Set the ids of the reply, whose message is accepted; called by the chat."""
        self.session_id, self.run_id, self.message_id = session_id, run_id, message_id
        self._taken.set()

    def tell(self, *events: Event) -> None:
        """Queue events for the reader; called by the chat."""
        for event in events:
            self._events.put_nowait(event)

    def take(self, frame: Frame) -> bool:
        """Apply a frame of the run and queue its events; return whether the run has ended.

        Called by the chat. Raises `GapError` as `RunView.take` does.
        """
        self.tell(*self.view.take(frame))
        if self.view.end is None:
            return False
        self.close(self.view.end if isinstance(self.view.end, ReplyError) else None)
        return True

    def close(self, fault: ClientError | None) -> None:
        """End the events: behind those that are queued, the reader gets `fault`, if not None.

        Called by the chat.
        """
        self._fault = fault
        self._taken.set()
        self._events.put_nowait(None)
