"""What a part of a message is, for those who describe it: at work, parts are plain JSON."""

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


Part = Annotated[dict[str, Any], _Shape()]
