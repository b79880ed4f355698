"""Scripted replies of the stand-in, and its record of requests."""

import itertools
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.support.waiting import TIMEOUT_S, Noticeboard

Api = Literal["chat", "responses"]

SENTENCE = "the river bends around an old mill where two herons wait for fish in the green shade"


LOOKING = "I look."
"""What `paced` says before it calls a tool."""


class Gate:
    """Releases the tokens of a reply one by one; after the last token, its end."""

    def __init__(self, allowed: float = 0) -> None:
        self._allowed = allowed
        self._board = Noticeboard()

    def release(self, count: int = 1) -> None:
        """Release `count` more tokens."""
        self._allowed += count
        self._board.post()

    def open(self) -> None:
        """Release everything."""
        self._allowed = float("inf")
        self._board.post()

    async def passed(self, position: int) -> None:
        """Wait until the token at `position`, counted from 0, is released."""
        if position >= self._allowed:
            await self._board.until(lambda: position < self._allowed, within=600)


@dataclass(frozen=True)
class ToolCall:
    """A tool call of the model; `arguments` is JSON."""

    name: str
    arguments: str = "{}"


@dataclass
class Reply:
    """One scripted answer: reasoning, then tokens, then tool calls, then the end.

    Delays are in seconds. `hold` delays the whole answer, including the HTTP headers; `gate` delays
    single tokens, and `hang_after` is short for a gate that releases that many. After `cut_after`
    tokens the connection is dropped; after `end_after` tokens the body ends properly but
    incomplete. `finish_reason` is that of Chat Completions: `stop`, `length`, `content_filter`,
    `tool_calls`. With `piece_bytes` the stream is written in pieces of that many bytes, wherever
    that cuts it.
    """

    tokens: Sequence[str] = ()
    reasoning: Sequence[str] = ()
    tool_calls: Sequence[ToolCall] = ()
    first_delay_s: float = 0.0
    delay_s: float = 0.0
    hold: Gate | None = None
    gate: Gate | None = None
    hang_after: int | None = None
    cut_after: int | None = None
    end_after: int | None = None
    finish_reason: str = ""
    stream_error: str = ""
    error_status: int = 0
    error_code: str | None = None
    error_message: str = "as the script says"
    retry_after: float | None = None
    input_tokens: int = 10
    cached_tokens: int = 0
    piece_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.hang_after is not None:
            self.gate = Gate(self.hang_after)
        if not self.finish_reason:
            self.finish_reason = "tool_calls" if self.tool_calls else "stop"

    @property
    def text(self) -> str:
        return self.start(len(self.tokens))

    def start(self, count: int) -> str:
        """Return the text of the first `count` tokens."""
        return "".join(self.tokens[:count])

    @property
    def output_tokens(self) -> int:
        return len(self.tokens) + len(self.reasoning) + len(self.tool_calls)

    def release(self, count: int = 1) -> None:
        """Release `count` more tokens through the gate."""
        assert self.gate, "no gate"
        self.gate.release(count)

    def open(self) -> None:
        """Release everything that is held."""
        for gate in (self.hold, self.gate):
            if gate:
                gate.open()


@dataclass
class Call:
    """One request: its content, the reply to it, and how far that was sent.

    Times are `time.monotonic()`; `disconnected_at` is when the client closed an unfinished stream.
    """

    number: int
    api: Api
    body: dict[str, Any]
    headers: dict[str, str]
    reply: Reply = field(default_factory=Reply)
    refusal: str = ""
    sent: int = 0
    started_at: float = field(default_factory=time.monotonic)
    finished_at: float | None = None
    disconnected_at: float | None = None
    board: Noticeboard = field(default_factory=Noticeboard)

    @property
    def input(self) -> list[dict[str, Any]]:
        """The messages or input items that the model was given."""
        value = self.body.get("messages" if self.api == "chat" else "input") or []
        return [{"role": "user", "content": value}] if isinstance(value, str) else value

    @property
    def prompt(self) -> str:
        """The text of the user's last message."""
        texts = [_text(item.get("content")) for item in self.input if item.get("role") == "user"]
        return texts[-1] if texts else ""

    def wait(self, met: "Callable[[Call], object]", *, within: float = TIMEOUT_S) -> None:
        """Block until `met(self)`, as in `call.wait(lambda c: c.disconnected_at)`."""
        self.board.wait(lambda: met(self), within=within)

    async def until(self, met: "Callable[[Call], object]", *, within: float = TIMEOUT_S) -> None:
        """The same for a task."""
        await self.board.until(lambda: met(self), within=within)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or [])


Script = Callable[[Call], Reply]


def words(count: int) -> list[str]:
    """Return `count` tokens of plain English, always the same ones."""
    return [f"{word} " for word in itertools.islice(itertools.cycle(SENTENCE.split()), count)]


def echo(call: Call) -> Reply:
    """Return a reply that repeats the user's message."""
    return Reply(["You ", "said: ", *re.findall(r"\S+\s*", call.prompt)])


def paced(call: Call) -> Reply:
    """Return as many words, at the rate, that the prompt says (`tokens=400 rate=50`), or `echo`.

    With `file=PATH` the tool `append` is called first, with that path.
    """
    asked = dict(re.findall(r"(tokens|rate|file)=(\S+)", call.prompt))
    if not asked:
        return echo(call)
    if "file" in asked and not any(map(_is_tool_output, call.input)):
        path = json.dumps({"path": asked["file"]})
        return Reply([LOOKING], tool_calls=[ToolCall("append", path)])
    rate = float(asked.get("rate", 0))
    return Reply(words(int(asked.get("tokens", 100))), delay_s=1 / rate if rate else 0.0)


def _is_tool_output(item: dict[str, Any]) -> bool:
    return item.get("type", item.get("role")) in ("function_call_output", "tool")
