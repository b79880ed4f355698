"""Immutable values that readers receive in place of database rows."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from conversations.models import Approval, Message, Run, join_text
from conversations.sessions.parts import DescribedPart, last_agent

UserId = int | UUID
"""The primary key of `AUTH_USER_MODEL`; the type checker's stubs know this site's own, an int."""


@dataclass(frozen=True)
class MessageView:
    """A message as pages and frames show it; `created_at` is ISO 8601.

    The fields of the run, `agent`, `reason` and `error_code` are None for a message that a person
    wrote. `parts` None: the receiver keeps the parts that it has.

    `summary` is the text that the model is given in place of this message and all before it; "" if
    it is given nothing in their place. None: there is no summary here, or it was not loaded, and
    the receiver keeps what it has.
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
    """Return the view's fields by name; unlike with `asdict`, parts are not copied."""
    return {name: getattr(view, name) for name in _MESSAGE_FIELDS}


def view_of_fields(record: Mapping[str, Any]) -> MessageView:
    """Build a view from `record`, which has all keys of `message_fields`; others are ignored."""
    return MessageView(**{name: record[name] for name in _MESSAGE_FIELDS})


@dataclass(frozen=True)
class QueueView:
    """A run that waits in the queue; `message_id` and `content` are those of its prompt.

    `again`: the run makes another reply to a message that had one.
    """

    run_id: str
    run_number: int
    message_id: str
    content: str
    again: bool


@dataclass(frozen=True)
class RunRef:
    """Identifies a run and its epoch; `message_id` is the id of its reply.

    Its ids are UUIDs; those of the views are texts, as clients receive them.
    """

    session_id: UUID
    run_id: UUID
    run_number: int
    epoch: int
    message_id: UUID


@dataclass(frozen=True)
class RunView:
    """The status of a run, and the epoch and seq that its journal has reached.

    `message_id` is the id of the run's reply.
    """

    run_id: str
    run_number: int
    epoch: int
    seq: int
    status: str
    message_id: str


@dataclass(frozen=True)
class ApprovalView:
    """An approval; `decision` and `decided_at` are None until it is decided.

    `by` is the name of the person who decided; None if nobody did, or the account was deleted.
    `message` is that person's text for the model. Times are ISO 8601.
    """

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
    """A part of a session as a page shows it, with the cursor to resume from.

    `run` is the first unfinished run; None if there is none, or earlier messages were asked for.
    `later` is the id of the last message if the branch goes on below it, else "". `aside`: the
    messages do not end where the session's active branch ends.
    """

    rev: int
    messages: list[MessageView]
    run: RunView | None
    queue: list[QueueView]
    later: str = ""
    aside: bool = False


@dataclass(frozen=True)
class ToolTiming:
    """One tool call of a reply; `status` is that of its part.

    `duration_ms` is None if the call has not finished, was stopped, or was not measured.
    """

    tool_call_id: str
    name: str
    status: str
    duration_ms: int | None


@dataclass(frozen=True)
class RunTimings:
    """When each step of a run happened; None if it has not.

    `queued_at` is when the run was last put into the queue. `stopped_at` is when a cancelled run
    had closed the model's stream and its tools; for one that no worker had, when it was cancelled.
    `retries` counts requests to the model's server that were sent again.
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
    """Return the timings of `run`, and of the tool calls among `parts`, those of its reply."""
    times = {field.name: getattr(run, field.name) for field in fields(RunTimings)[:-1]}
    tools = [_tool_timing(part) for part in parts if part["type"] == "tool"]
    return RunTimings(**times, tools=tools)


def _tool_timing(part: dict[str, Any]) -> ToolTiming:
    return ToolTiming(part["tool_call_id"], part["name"], part["status"], part.get("duration_ms"))


def message_view(
    message: Message, *, run: Run | None = None, parts: list[dict[str, Any]] | None = None
) -> MessageView:
    """Build a view of `message`, with its summary only if that was loaded.

    `run` is the run whose reply `message` is; None for a message that a person wrote. `parts`
    replaces the stored parts while the run is in progress; they are stored when it ends.
    """
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
    """Return the summary if it was loaded; never query for it, as most messages have none."""
    row = message._state.fields_cache.get("summary")
    return row.text if row is not None else None


def run_ref(run: Run) -> RunRef:
    """Return the reference to `run` in its current epoch."""
    return RunRef(run.session_id, run.pk, run.number, run.epoch, run.reply_id)


def run_view(run: Run) -> RunView:
    """Build a view of `run` from its row, without a query."""
    return RunView(str(run.id), run.number, run.epoch, run.last_seq, run.status, str(run.reply_id))


def queue_view(run: Run) -> QueueView:
    """Build the queue's view of `run`; its prompt and reply should be loaded, else are queried."""
    return QueueView(
        run_id=str(run.id),
        run_number=run.number,
        message_id=str(run.prompt_id),
        content=run.prompt.text,
        # The first reply to a message is created with it and has the next number.
        again=run.reply.number != run.prompt.number + 1,
    )


def approval_view(approval: Approval) -> ApprovalView:
    """Build a view of `approval`; `run` and `decided_by` should be loaded, else are queried."""
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


def request_payload(approval: Approval, *, irreversible: bool) -> dict[str, Any]:
    """Return the payload of the `input.requested` event of `approval`."""
    return {
        "request_id": str(approval.pk),
        "tool_call_id": approval.tool_call_id,
        "tool": approval.tool,
        "description": approval.description,
        "arguments": approval.arguments,
        "expires_at": approval.expires_at.isoformat(),
        **({"irreversible": True} if irreversible else {}),
    }


def resolved_payload(approval: Approval) -> dict[str, Any]:
    """Return the payload of the `input.resolved` event of a decided `approval`.

    Fields of the view that are None are left out. `run` and `decided_by` should be loaded, else are
    queried.
    """
    view = approval_view(approval)
    told = {name: getattr(view, name) for name in ("decision", "by", "decided_at", "message")}
    known = {name: value for name, value in told.items() if value is not None}
    return {"request_id": view.request_id, **known}


def _optional(value: UUID | None) -> str | None:
    return None if value is None else str(value)
