"""The events of a reply."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Waiting:
    """The reply waits: `position` is its place in the queue, 0 if only the model is not ready."""

    position: int


@dataclass(frozen=True)
class ModelStatus:
    """The status of the embedded model; the last `state` is `ready` or `failed`.

    `detail` is for people; `fraction`, from 0 to 1, is None unless the model is being fetched.
    """

    state: str
    detail: str
    fraction: float | None


@dataclass(frozen=True)
class Started:
    """The agent has started."""

    agent: str


@dataclass(frozen=True)
class Text:
    """The next piece of the answer."""

    delta: str


@dataclass(frozen=True)
class Rewritten:
    """Discard all text of the reply so far: it now begins with `text`."""

    text: str


@dataclass(frozen=True)
class Reasoning:
    """The next piece of the model's reasoning."""

    delta: str


@dataclass(frozen=True)
class Retrying:
    """The model's server is asked again in `wait_s` seconds; `code` is the error it answered."""

    wait_s: int
    code: str


@dataclass(frozen=True)
class ToolStarted:
    """A tool was started; `arguments` is JSON, empty if the site does not show it."""

    tool_call_id: str
    name: str
    arguments: str = ""


@dataclass(frozen=True)
class ToolProgress:
    """The progress of a tool; `fraction` is from 0 to 1, or None if the tool does not tell."""

    tool_call_id: str
    name: str
    progress: str
    fraction: float | None = None


@dataclass(frozen=True)
class ToolEnded:
    """A tool has returned or `failed`; `summary` describes in a few words what it did."""

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
    """The reply waits for somebody to decide on a tool call, by `reply.approve` or `reply.reject`.

    `arguments` is JSON, as the model gave it; `expires_at` is a time in ISO 8601.
    """

    request_id: str
    tool: str
    description: str
    arguments: str
    expires_at: str


@dataclass(frozen=True)
class ApprovalDecided:
    """An approval was decided by `approve` or `reject`, or ended as `cancelled` or `expired`."""

    request_id: str
    decision: str
    by: str = ""


@dataclass(frozen=True)
class Disconnected:
    """The connection is lost; the next try is in `retry_s` seconds."""

    retry_s: float


@dataclass(frozen=True)
class Reconnected:
    """The connection is restored; what was missed follows as further events."""


@dataclass(frozen=True)
class Ended:
    """The reply has ended; `text` is all of it.

    `finish_reason` is `completed`, `cancelled` or `interrupted`; `reason` says why it was not
    completed. `usage` has the fields that docs/protocol.md#usage lists, and `usage_source` says how
    they are known.
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
