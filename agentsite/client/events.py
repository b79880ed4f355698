"""The events of a reply."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Waiting:
    """The reply waits: `position` is its place in the queue, from 1; 0 if it is the next to begin.

    At 0 it waits for the site alone, such as for a model that is not ready.
    """

    position: int


@dataclass(frozen=True)
class ModelStatus:
    """The status of the site's embedded model.

    `state` is `starting`, `fetching`, `loading`, `ready` or `failed`, after which `starting` may
    come again. Every unfinished reply gets it, also one that does not use the model, so a reply may
    end before `ready`. `detail` is for people; `fraction`, from 0 to 1, is None unless the model is
    being fetched.
    """

    state: str
    detail: str
    fraction: float | None


@dataclass(frozen=True)
class Started:
    """The agent called `agent` has started to reply; again if the reply begins again."""

    agent: str


@dataclass(frozen=True)
class Text:
    """The next piece of the answer; the pieces add up to it, behind the latest `Rewritten` text."""

    delta: str


@dataclass(frozen=True)
class Rewritten:
    """Discard all text of the reply so far: it now begins with `text`."""

    text: str


@dataclass(frozen=True)
class Reasoning:
    """The next piece of the model's reasoning, which is no part of the answer.

    After a gap, pieces may be missing.
    """

    delta: str


@dataclass(frozen=True)
class Retrying:
    """The model's server is asked again in `wait_s` seconds; `code` is its error.

    The code is one of docs/protocol.md#error-codes.
    """

    wait_s: int
    code: str


@dataclass(frozen=True)
class ToolStarted:
    """A tool was started; `arguments` is JSON, "" if the site does not show it.

    After a gap, the first event of a tool may be a later one than this.
    """

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
    """A tool has returned, or has `failed` or was stopped.

    `output` is what it returned, as far as the site shows it, else "". `summary` says in a few
    words what it did; "" if the tool does not tell.
    """

    tool_call_id: str
    name: str
    failed: bool
    output: str = ""
    summary: str = ""


@dataclass(frozen=True)
class AgentChanged:
    """Another agent, called `name`, has taken over the reply."""

    name: str


@dataclass(frozen=True)
class ApprovalNeeded:
    """The reply waits for somebody to decide on a tool call, by `reply.approve` or `reply.reject`.

    It may have been decided meanwhile: `reply.open_requests` tells. `arguments` is JSON, as the
    model gave it; `description` says what the tool does. The reply ends if nobody decides before
    `expires_at`, in ISO 8601.
    """

    request_id: str
    tool: str
    description: str
    arguments: str
    expires_at: str


@dataclass(frozen=True)
class ApprovalDecided:
    """An approval was decided by `approve` or `reject`, or ended as `cancelled` or `expired`.

    `by` is the name of the user who decided; "" if nobody did, or the account is gone.
    """

    request_id: str
    decision: str
    by: str = ""


@dataclass(frozen=True)
class Disconnected:
    """The connection is lost, or could not be opened; the next try is in `retry_s` seconds.

    The next try comes earlier if something is sent.
    """

    retry_s: float


@dataclass(frozen=True)
class Reconnected:
    """The connection is restored; what was missed follows as further events."""


@dataclass(frozen=True)
class Ended:
    """The reply has ended; `text` is all of it.

    `finish_reason` is `completed`, `cancelled` or `interrupted`; `reason` says why it was not
    completed, else it is "". `usage` has the fields that docs/protocol.md#usage lists;
    `usage_source` is `measured`, `estimated` or `unknown`. A reply that ends with an error has no
    such event: reading it raises `ReplyError`.
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
