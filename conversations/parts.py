"""From the events of a run to the parts of its message."""

from collections.abc import Iterable
from typing import Any

Part = dict[str, Any]
Payload = dict[str, Any]

SEPARATOR = "\n\n"


class PartsFolder:
    """Applies events one by one; `parts` is always what a reader has been shown so far.

    The first token after another part begins with `SEPARATOR` when there was text
    before, so that the tokens of a run, joined, are the joined text parts.
    """

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.text_size = 0

    @property
    def has_text(self) -> bool:
        return self.text_size > 0

    def apply(self, kind: str, payload: Payload) -> None:
        """Take in one event; kinds that show nothing change nothing."""
        if kind == "token":
            self._add_text(payload["delta"])
        elif kind == "reasoning.delta":
            self._grow("reasoning", payload["delta"])
        elif kind == "agent.changed":
            self.parts.append({"type": "agent", "name": payload["name"]})
        elif kind == "tool.started":
            self.parts.append({"type": "tool", "status": "started", **payload})
        elif kind.startswith("tool."):
            self._update_tool(kind.removeprefix("tool."), payload)
        elif kind == "input.requested":
            self.parts.append({"type": "approval", **payload})
        elif kind == "input.resolved":
            self._resolve(payload)

    def _add_text(self, delta: str) -> None:
        if self.has_text and self.parts[-1]["type"] != "text":
            delta = delta.removeprefix(SEPARATOR)
        self.text_size += len(delta)
        self._grow("text", delta)

    def _grow(self, kind: str, delta: str) -> None:
        if self.parts and self.parts[-1]["type"] == kind:
            self.parts[-1]["text"] += delta
        else:
            self.parts.append({"type": kind, "text": delta})

    def _update_tool(self, status: str, payload: Payload) -> None:
        for part in reversed(self.parts):
            if part["type"] == "tool" and part["tool_call_id"] == payload["tool_call_id"]:
                part.update(payload, status=status)
                return
        self.parts.append({"type": "tool", "status": status, **payload})

    def _resolve(self, payload: Payload) -> None:
        for part in self.parts:
            if part.get("request_id") == payload["request_id"]:
                part.update(payload)

    def close(self) -> list[Part]:
        """The final parts: a tool that is still at work is marked as failed."""
        for part in self.parts:
            if part["type"] == "tool" and part["status"] in ("started", "progress"):
                part["status"] = "failed"
        return self.parts


def open_requests(parts: Iterable[Part]) -> list[Part]:
    """The approvals among `parts` that nobody has decided."""
    return [part for part in parts if part["type"] == "approval" and "decision" not in part]


def fold(events: Iterable[tuple[str, Payload]]) -> PartsFolder:
    """The folder after all of `events`, pairs of kind and payload in order of seq."""
    folder = PartsFolder()
    for kind, payload in events:
        folder.apply(kind, payload)
    return folder


def last_agent(parts: Iterable[Part]) -> str | None:
    """The agent that took over last; None where the first one has spoken alone."""
    names = [part["name"] for part in parts if part["type"] == "agent"]
    return names[-1] if names else None
