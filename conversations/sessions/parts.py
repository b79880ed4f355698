"""The parts of a message: their types, and how they are folded from events."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue


@dataclass(frozen=True)
class TextPart:
    """A piece of the answer, or of what the model told of its reasoning."""

    type: Literal["text", "reasoning"]
    text: str


@dataclass(frozen=True)
class AgentPart:
    """Here another agent took over."""

    type: Literal["agent"]
    name: str


@dataclass(frozen=True)
class ToolPart:
    """A tool call; `progress` is a text, `fraction` from 0 to 1."""

    type: Literal["tool"]
    tool_call_id: str
    name: str
    status: Literal["started", "progress", "finished", "failed"]
    arguments: str | None = None
    progress: str | None = None
    fraction: float | None = None
    output: str | None = None
    summary: str | None = None
    duration_ms: int | None = None


@dataclass(frozen=True)
class ApprovalPart:
    """A request to approve a tool call, and what was decided, `by` whom if by a person."""

    type: Literal["approval"]
    request_id: str
    tool_call_id: str
    tool: str
    description: str
    arguments: str
    expires_at: str
    decision: Literal["approve", "reject", "cancelled", "expired"] | None = None
    by: str | None = None
    decided_at: str | None = None
    message: str | None = None


PartShape = TextPart | AgentPart | ToolPart | ApprovalPart


class _Shape:
    """Has a schema tell of the four; what is checked at work is only that it is a dictionary."""

    def __get_pydantic_json_schema__(
        self, core_schema: Any, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(TypeAdapter(PartShape).core_schema)


DescribedPart = Annotated[dict[str, Any], _Shape()]


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
