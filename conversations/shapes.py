"""What readers are handed: plain values, no rows."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from conversations.models import Approval, Message, Run, join_text
from conversations.sessions.parts import DescribedPart, last_agent

UserId = int | UUID
"""The primary key of `AUTH_USER_MODEL`; the type checker's stubs know this site's own, a number."""


@dataclass(frozen=True)
class MessageView:
    """A message as a page or a frame shows it; `created_at` is ISO 8601.

    `parts` is None where the receiver keeps those that it has. `summary` is what the model is
    given in place of all down to this message; empty where that is nothing, None where all is
    given, or where the receiver keeps what it has.
    """

    message_id: str
    number: int
    role: str
    parts: list[DescribedPart] | None
    created_at: str
    parent_message_id: str | None = None
    run_id: str | None = None
    run_number: int | None = None
    run_status: str | None = None
    agent: str | None = None
    reason: str | None = None
    error_code: str | None = None
    client_message_id: str | None = None
    withdrawn: bool = False
    summary: str | None = None

    @property
    def text(self) -> str:
        return join_text(self.parts or [])


_MESSAGE_FIELDS = tuple(field.name for field in fields(MessageView))


def message_fields(view: MessageView) -> dict[str, Any]:
    """By their names; not copied, as `asdict` would each part of each message."""
    return {name: getattr(view, name) for name in _MESSAGE_FIELDS}


def view_of_fields(record: Mapping[str, Any]) -> MessageView:
    """The view that `message_fields` was given; `record` may hold more."""
    return MessageView(**{name: record[name] for name in _MESSAGE_FIELDS})


@dataclass(frozen=True)
class QueueView:
    """A run that waits for its turn; `again` asks for another reply to an earlier message."""

    run_id: str
    run_number: int
    message_id: str
    content: str
    again: bool


@dataclass(frozen=True)
class RunRef:
    """Names a run, and the generation of what is shown of it."""

    session_id: str
    run_id: str
    run_number: int
    epoch: int
    message_id: str


@dataclass(frozen=True)
class RunView:
    """Where a run is."""

    run_id: str
    run_number: int
    epoch: int
    seq: int
    status: str
    message_id: str


@dataclass(frozen=True)
class ApprovalView:
    """A request to run a tool, and what was decided, by whom and when (ISO 8601) if it was."""

    request_id: str
    session_id: str
    run_id: str
    tool_call_id: str
    tool: str
    description: str
    arguments: str
    created_at: str
    expires_at: str
    decision: str | None = None
    by: str | None = None
    decided_at: str | None = None
    message: str | None = None


@dataclass(frozen=True)
class History:
    """A session as a page shows it: what is in it, and the cursor to resume from.

    `later` is the message to go on from below, where these are not all of their branch; `aside`
    says that they do not end where the session's active branch ends.
    """

    rev: int
    messages: list[MessageView]
    run: RunView | None
    queue: list[QueueView]
    later: str = ""
    aside: bool = False


@dataclass(frozen=True)
class ToolTiming:
    """How long a tool took; None while it works, and where a stop left it open."""

    tool_call_id: str
    name: str
    status: str
    duration_ms: int | None


@dataclass(frozen=True)
class RunTimings:
    """When what happened to a run; None for what did not, or not yet.

    `stopped_at` is when a stop that was asked for at `cancel_requested_at` had closed the model's
    stream and its tools. `retries` are requests to the model's server that were sent again.
    """

    created_at: datetime
    queued_at: datetime
    claimed_at: datetime | None
    first_token_at: datetime | None
    last_token_at: datetime | None
    cancel_requested_at: datetime | None
    stopped_at: datetime | None
    ended_at: datetime | None
    retries: int
    tools: list[ToolTiming]


def run_timings(run: Run, parts: list[dict[str, Any]]) -> RunTimings:
    """Those of `run`, whose reply has `parts`."""
    times = {field.name: getattr(run, field.name) for field in fields(RunTimings)[:-1]}
    tools = [_tool_timing(part) for part in parts if part["type"] == "tool"]
    return RunTimings(**times, tools=tools)


def _tool_timing(part: dict[str, Any]) -> ToolTiming:
    return ToolTiming(part["tool_call_id"], part["name"], part["status"], part.get("duration_ms"))


def message_view(
    message: Message, *, run: Run | None = None, parts: list[dict[str, Any]] | None = None
) -> MessageView:
    """`run` is the run that the message is the reply of, `parts` what is shown of it so far."""
    shown: list[dict[str, Any]] = message.parts if parts is None else parts
    return MessageView(
        message_id=str(message.id),
        number=message.number,
        role=message.role,
        parts=shown,
        created_at=message.created_at.isoformat(),
        parent_message_id=_optional(message.parent_id),
        run_id=str(run.id) if run else None,
        run_number=run.number if run else None,
        run_status=run.status if run else None,
        agent=(last_agent(shown) or run.agent) if run else None,
        reason=(run.reason or None) if run else None,
        error_code=(run.error_code or None) if run else None,
        client_message_id=message.client_message_id or None,
        withdrawn=message.withdrawn,
        summary=_loaded_summary(message),
    )


def _loaded_summary(message: Message) -> str | None:
    """Only where it was loaded along: nearly all messages have none."""
    row = message._state.fields_cache.get("summary")
    return row.text if row is not None else None


def run_ref(run: Run) -> RunRef:
    """The name of `run` in its present epoch."""
    return RunRef(str(run.session_id), str(run.id), run.number, run.epoch, str(run.reply_id))


def run_view(run: Run) -> RunView:
    """Where `run` is, as its row says."""
    return RunView(str(run.id), run.number, run.epoch, run.last_seq, run.status, str(run.reply_id))


def queue_view(run: Run) -> QueueView:
    """`run` in the queue; its messages must be loaded."""
    return QueueView(
        run_id=str(run.id),
        run_number=run.number,
        message_id=str(run.prompt_id),
        content=run.prompt.text,
        # The first reply to a message is made with it.
        again=run.reply.number != run.prompt.number + 1,
    )


def approval_view(approval: Approval) -> ApprovalView:
    """`approval` as its row says; its run and who decided must be loaded."""
    return ApprovalView(
        request_id=str(approval.pk),
        session_id=str(approval.run.session_id),
        run_id=str(approval.run_id),
        tool_call_id=approval.tool_call_id,
        tool=approval.tool,
        description=approval.description,
        arguments=approval.arguments,
        created_at=approval.created_at.isoformat(),
        expires_at=approval.expires_at.isoformat(),
        decision=approval.decision or None,
        by=approval.decided_by.get_username() if approval.decided_by else None,
        decided_at=approval.decided_at.isoformat() if approval.decided_at else None,
        message=approval.message or None,
    )


def request_payload(approval: Approval) -> dict[str, Any]:
    """The event that asks."""
    return {
        "request_id": str(approval.pk),
        "tool_call_id": approval.tool_call_id,
        "tool": approval.tool,
        "description": approval.description,
        "arguments": approval.arguments,
        "expires_at": approval.expires_at.isoformat(),
    }


def resolved_payload(approval: Approval) -> dict[str, Any]:
    """The event that tells what was decided, and by whom where it was a person."""
    view = approval_view(approval)
    told = {name: getattr(view, name) for name in ("decision", "by", "decided_at", "message")}
    known = {name: value for name, value in told.items() if value is not None}
    return {"request_id": view.request_id, **known}


def _optional(value: UUID | None) -> str | None:
    return None if value is None else str(value)
