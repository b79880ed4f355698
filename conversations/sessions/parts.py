"""The parts of a message: their types, and how they are built from events."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue


@dataclass(frozen=True)
class TextPart:
    """A block of the answer, in Markdown, or of the reasoning that the model has shown."""

    type: Literal["text", "reasoning"]
    text: str


@dataclass(frozen=True)
class AgentPart:
    """Marks where another agent took over the reply; `name` is that agent."""

    type: Literal["agent"]
    name: str


@dataclass(frozen=True)
class ToolPart:
    """A tool call and its output, with the fields that its events have had so far.

    `arguments` and `output` may be shortened. `progress` is a text and `fraction` the share done,
    from 0 to 1, as the tool has last reported them; `summary` is the tool's own short text about
    what it did.
    """

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
    """A request to approve a tool call, with its decision, which is missing while it is open.

    `by` is the name of the person who decided, `message` that person's text for the model. Times
    are ISO 8601. `irreversible` is there if the effect of the call cannot be undone.
    """

    type: Literal["approval"]
    request_id: str
    tool_call_id: str
    tool: str
    description: str
    arguments: str
    expires_at: str
    irreversible: Literal[True] | None = None
    decision: Literal["approve", "reject", "cancelled", "expired"] | None = None
    by: str | None = None
    decided_at: str | None = None
    message: str | None = None


PartShape = TextPart | AgentPart | ToolPart | ApprovalPart


class _Shape:
    """Describes the four part types in JSON schemas; validation only checks for a dictionary."""

    def __get_pydantic_json_schema__(
        self, core_schema: Any, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(TypeAdapter(PartShape).core_schema)


DescribedPart = Annotated[dict[str, Any], _Shape()]


Part = dict[str, Any]
Payload = dict[str, Any]

SEPARATOR = "\n\n"


class PartsFolder:
    """Applies events one by one, in order of seq; `parts` is what a reader has been shown so far.

    The first token after a part of another type begins with `SEPARATOR` if there was text before,
    so that the joined tokens of a run equal its joined text parts. `SEPARATOR` is not kept in the
    part.
    """

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._pieces: list[str] = []
        self.text_size = 0

    @property
    def parts(self) -> list[Part]:
        """The parts so far, the folder's own list, which later events change.

        Each read joins the deltas of the last part: do not read it after every delta.
        """
        if self._pieces:
            self._parts[-1]["text"] = "".join([self._parts[-1]["text"], *self._pieces])
            self._pieces = []
        return self._parts

    @property
    def has_text(self) -> bool:
        return self.text_size > 0

    def apply(self, kind: str, payload: Payload) -> None:
        """Apply one event; kinds that show nothing are ignored."""
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
        if self.has_text and self._parts[-1]["type"] != "text":
            delta = delta.removeprefix(SEPARATOR)
        self.text_size += len(delta)
        self._grow("text", delta)

    def _grow(self, kind: str, delta: str) -> None:
        if self._parts and self._parts[-1]["type"] == kind:
            self._pieces.append(delta)
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
        """Mark tool calls that have not finished as failed, and return the folder's own parts."""
        for part in self.parts:
            if part["type"] == "tool" and part["status"] in ("started", "progress"):
                part["status"] = "failed"
        return self.parts


def open_requests(parts: Iterable[Part]) -> list[Part]:
    """Return the approvals among `parts` that have no decision."""
    return [part for part in parts if part["type"] == "approval" and "decision" not in part]


def fold(events: Iterable[tuple[str, Payload]]) -> PartsFolder:
    """Return a folder to which all `events`, (kind, payload) in order of seq, were applied."""
    folder = PartsFolder()
    for kind, payload in events:
        folder.apply(kind, payload)
    return folder


def last_agent(parts: Iterable[Part]) -> str | None:
    """Return the name of the agent that took over last; None if no agent took over."""
    names = [part["name"] for part in parts if part["type"] == "agent"]
    return names[-1] if names else None
