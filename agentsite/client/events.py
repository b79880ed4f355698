"""What happens in a reply, as a program is told of it."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Waiting:
    """Others are before it: `position` is its place, 0 while only the model is not ready."""

    position: int


@dataclass(frozen=True)
class ModelStatus:
    """How far the server's own model is; `state` is `ready` or `failed` in the end."""

    state: str
    detail: str
    fraction: float | None


@dataclass(frozen=True)
class Started:
    """The agent is at work."""

    agent: str


@dataclass(frozen=True)
class Text:
    """The next piece of the answer."""

    delta: str


@dataclass(frozen=True)
class Rewritten:
    """Forget all text of the reply so far: it begins with `text` instead."""

    text: str


@dataclass(frozen=True)
class Reasoning:
    """The next piece of what the model tells of its reasoning."""

    delta: str


@dataclass(frozen=True)
class Retrying:
    """The model's server is asked again in `wait_s` seconds; `code` is what it had answered."""

    wait_s: int
    code: str


@dataclass(frozen=True)
class ToolStarted:
    """A tool runs; `arguments` is JSON, empty where they are not told."""

    tool_call_id: str
    name: str
    arguments: str = ""


@dataclass(frozen=True)
class ToolProgress:
    """A tool tells how far it is; `fraction` is from 0 to 1."""

    tool_call_id: str
    name: str
    progress: str
    fraction: float | None = None


@dataclass(frozen=True)
class ToolEnded:
    """A tool has returned, or `failed`; `summary` says in a few words what it has done."""

    tool_call_id: str
    name: str
    failed: bool
    output: str = ""
    summary: str = ""


@dataclass(frozen=True)
class AgentChanged:
    """Another agent has taken over."""

    name: str


@dataclass(frozen=True)
class ApprovalNeeded:
    """The reply waits until somebody approves or rejects a tool call: `reply.respond(...)`.

    `arguments` is JSON, as the model gave it; `expires_at` is a time in ISO 8601.
    """

    request_id: str
    tool: str
    description: str
    arguments: str
    expires_at: str


@dataclass(frozen=True)
class ApprovalDecided:
    """It was decided: `approve`, `reject`, or without anybody `cancelled` or `expired`."""

    request_id: str
    decision: str
    by: str = ""


@dataclass(frozen=True)
class Disconnected:
    """The connection is lost; the next try is in `retry_s` seconds."""

    retry_s: float


@dataclass(frozen=True)
class Reconnected:
    """It is back, and nothing was missed."""


@dataclass(frozen=True)
class Ended:
    """The end: `finish_reason` is `completed`, `cancelled` or `interrupted`, `text` all of it.

    `reason` says why it was not completed. `usage` has the fields that docs/protocol.md#usage
    lists, and `usage_source` how they are known.
    """

    text: str
    finish_reason: str
    reason: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    usage_source: str = "unknown"


Event = (
    Waiting
    | ModelStatus
    | Started
    | Text
    | Rewritten
    | Reasoning
    | Retrying
    | ToolStarted
    | ToolProgress
    | ToolEnded
    | AgentChanged
    | ApprovalNeeded
    | ApprovalDecided
    | Disconnected
    | Reconnected
    | Ended
)
