"""What is told in a terminal: replies on one stream, remarks about them on the other."""

import json
import re
from math import ceil
from typing import TextIO

from agentsite.client.events import (
    AgentChanged,
    ApprovalDecided,
    ApprovalNeeded,
    Disconnected,
    Ended,
    Event,
    ModelStatus,
    Reconnected,
    Retrying,
    Rewritten,
    Started,
    Text,
    ToolEnded,
    ToolProgress,
    ToolStarted,
    Waiting,
)

_CONTROL = re.compile("\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

DIM, PLAIN = "\x1b[2m", "\x1b[0m"

DECISIONS = {
    "approve": "approved",
    "reject": "rejected",
    "cancelled": "not needed any more",
    "expired": "expired, nobody answered in time",
}
REASONS = {
    "redirect": "stopped for another message",
    "disconnect": "stopped: nobody was reading",
    "limit": "stopped at a limit",
    "worker_lost": "broken off: the server that wrote it was lost",
    "approval_expired": "ended: nobody answered the request in time",
}
ENDINGS = {"cancelled": "stopped", "interrupted": "broken off"}


def visible(text: str) -> str:
    """`text` without what a terminal would obey, or what would put its words in another order."""
    return _CONTROL.sub("�", text)


class Screen:
    """Text goes to `out` as it comes, remarks to `err` in lines of their own."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err
        self._dim = (DIM, PLAIN) if err.isatty() else ("", "")
        self._in_line = False
        self._held = ""
        self._is_lost = False
        self._model = ""

    def write(self, text: str) -> None:
        """A piece of a reply."""
        text, self._held = self._held + text, ""
        if text.endswith("\r"):
            # The other half of the line's end may come with the next piece.
            text, self._held = text[:-1], "\r"
        if text:
            self._out.write(visible(text))
            self._out.flush()
            self._in_line = not text.endswith("\n")

    def end_line(self) -> None:
        """What comes next begins a line."""
        self._held = ""
        if self._in_line:
            self._out.write("\n")
            self._out.flush()
            self._in_line = False

    def remark(self, text: str) -> None:
        """A line about what happens."""
        self.end_line()
        before, after = self._dim
        self._err.write(f"{before}· {visible(text)}{after}\n")
        self._err.flush()

    def show(self, event: Event) -> None:
        """What an event says, if anything."""
        match event:
            case Text(delta):
                self.write(delta)
            case Rewritten(text):
                self.remark("the reply begins again")
                self.write(text)
            case Ended():
                self._show_end(event)
            case _:
                if words := self._words(event):
                    self.remark(words)

    def _show_end(self, end: Ended) -> None:
        self.end_line()
        if end.finish_reason != "completed":
            self.remark(REASONS.get(end.reason) or ENDINGS[end.finish_reason])

    def _words(self, event: Event) -> str:
        match event:
            case Waiting(position):
                return f"waiting, number {position} in line" if position else ""
            case ModelStatus():
                return self._tell_model(event)
            case Retrying(wait_s, _):
                return f"the model does not answer, trying again in {wait_s} s"
            case AgentChanged(name):
                return f"{name} takes over"
            case Disconnected():
                return self._tell_lost(event)
            case Reconnected():
                self._is_lost = False
                return "reconnected"
            case ApprovalNeeded(_, tool, description, arguments, _):
                return f"{tool} needs your approval. {description}\n  {_pretty(arguments)}"
            case ApprovalDecided(_, decision, by):
                return DECISIONS[decision] + (f" by {by}" if by else "")
            case _:
                return _of_tool(event)

    def _tell_lost(self, event: Disconnected) -> str:
        """The first try comes soon."""
        was_lost, self._is_lost = self._is_lost, True
        if was_lost:
            return f"no connection yet, trying again in {ceil(event.retry_s)} s"
        return "connection lost, reconnecting"

    def _tell_model(self, status: ModelStatus) -> str:
        """Each percentage once."""
        done = "" if status.fraction is None else f", {status.fraction:.0%}"
        words = f"the model: {status.detail}{done}"
        known, self._model = self._model, words
        return "" if words == known else words


def _of_tool(event: Event) -> str:
    match event:
        case ToolStarted(_, name, arguments):
            return f"using {name} {arguments}".rstrip()
        case ToolProgress(_, _, progress, fraction):
            return progress if fraction is None else f"{progress}, {fraction:.0%}"
        case ToolEnded(_, name, failed, _, summary):
            return f"{name} failed" if failed else summary or f"used {name}"
        case Started() | _:
            return ""


def _pretty(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments), indent=2, ensure_ascii=False).replace("\n", "\n  ")
    except ValueError:
        return arguments
