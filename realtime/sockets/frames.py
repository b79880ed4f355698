"""Makes frames from what is stored, also by processes of a later version."""

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel

from conversations.changes import FeedbackChanged, SessionListed, ShareChanged
from conversations.errors import ERRORS, ErrorCode
from conversations.models import EndReason, Run, RunStatus
from conversations.runs.lifecycle import Decided
from conversations.runs.usage import currency
from conversations.sessions.parts import open_requests
from conversations.sessions.rendering import join_html
from conversations.shapes import MessageView, QueueView, RunRef, run_ref
from realtime import protocol
from realtime.protocol import ServerFrame, Status

TERMINAL_KINDS = ("complete", "error")

_STATUS_KINDS: dict[str, type[protocol.SequencedMetadata]] = {
    kind.model_fields["event"].default: kind for kind in protocol.SEQUENCED_STATUS
}


logger = logging.getLogger(__name__)


class LaterMetadata(protocol.SequencedMetadata):
    """What every event of a journal has; `event` is a kind of a later version."""

    event: str


class LaterFrame(BaseModel):
    """The frame of an event of a later version: clients count its seq, and show nothing of it."""

    type: Literal["status"] = "status"
    session_id: str
    content: str = ""
    metadata: LaterMetadata

    def encode(self) -> str:
        return self.model_dump_json()


@cache
def _warn_of(what: str, value: str) -> None:
    """Log, once in a process, that a worker of a later version has written something."""
    logger.warning("a worker of a later version wrote the %s %s, which is not shown", what, value)


def event_frame(
    ref: RunRef, seq: int, kind: str, payload: dict[str, Any]
) -> ServerFrame | LaterFrame:
    """Return the frame of one journal event that does not end its run.

    For a kind that this version does not know, the frame has nothing of the payload. Do not pass
    `complete` or `error`.
    """
    where = _where(ref, seq)
    if kind == "token":
        metadata = protocol.SequencedMetadata(**where)
        return protocol.Token(
            session_id=str(ref.session_id), content=payload["delta"], metadata=metadata
        )
    if kind not in _STATUS_KINDS:
        _warn_of("event", kind)
        metadata = LaterMetadata(**where, event=kind)
        return LaterFrame(session_id=str(ref.session_id), metadata=metadata)
    status = _STATUS_KINDS[kind](**where, **payload)
    return protocol.status(status, ref.session_id)  # type: ignore[arg-type]


def terminal_frame(run: Run, payload: dict[str, Any], html: Sequence[str]) -> ServerFrame:
    """Return the last frame of an ended run: `error` if it failed, else `complete`.

    `payload` is that of the run's last event. `html` has the HTML of each text part of the reply;
    it is ignored for a failed run. Nothing is rendered here, so the thread that commits may call
    this. The run's reply must be loaded. Call it only for an ended run; this is not checked.
    """
    ref = run_ref(run)
    if run.status == RunStatus.FAILED:
        return _failure(run, ref, payload)
    text = run.reply.text
    metadata = protocol.CompleteMetadata(
        **_where(ref, run.last_seq),
        finish_reason=payload["finish_reason"],
        reason=_known_reason(payload.get("reason")),
        usage=_usage(run),
        usage_source=run.usage_source,
        html=join_html(html),
    )
    return protocol.Complete(session_id=str(ref.session_id), content=text, metadata=metadata)


def _failure(run: Run, ref: RunRef, payload: dict[str, Any]) -> ServerFrame:
    code = known_code(payload["code"])
    metadata = protocol.ErrorMetadata(
        **_where(ref, run.last_seq),
        code=code,
        retryable=ERRORS[code].retryable,
        retry_after=payload.get("retry_after"),
        terminal=True,
        usage=_usage(run),
        usage_source=run.usage_source,
    )
    return protocol.Error(
        session_id=str(ref.session_id), content=str(ERRORS[code].text), metadata=metadata
    )


def _known_reason(reason: str | None) -> Any:
    """Return a reason to stop, without one of a later version: then it stays untold."""
    if reason is None or reason in EndReason.values:
        return reason
    _warn_of("reason", reason)
    return None


def known_code(code: str) -> ErrorCode:
    """Return an error code, for one of a later version the most general."""
    try:
        return ErrorCode(code)
    except ValueError:
        _warn_of("error code", code)
        return ErrorCode.INTERNAL


def _where(ref: RunRef, seq: int) -> dict[str, Any]:
    return {**run_metadata(ref), "seq": seq, "message_id": str(ref.message_id)}


def _usage(run: Run) -> protocol.Usage:
    total = None
    if run.input_tokens is not None and run.output_tokens is not None:
        total = run.input_tokens + run.output_tokens
    return protocol.Usage(
        input_tokens=run.input_tokens,
        output_tokens=run.output_tokens,
        total_tokens=total,
        cached_input_tokens=run.cached_input_tokens,
        reasoning_tokens=run.reasoning_tokens,
        cost=None if run.cost is None else f"{run.cost:f}",
        currency=None if run.cost is None else currency(),
    )


def snapshot_frame(run: Run, seq: int, parts: list[dict[str, Any]]) -> Status:
    """Return the frame that replaces all that is shown of a run; `parts` is its reply at `seq`."""
    ref = run_ref(run)
    metadata = protocol.Snapshot(
        **_where(ref, seq),
        parts=parts,
        open_requests=[protocol.OpenRequest(**part) for part in open_requests(parts)],
        run_status=run.status,
    )
    return protocol.status(metadata, ref.session_id)


def responded_frame(decided: Decided) -> Status:
    """Return the answer to a `respond` frame: the decision that counts, perhaps an earlier one.

    The approval must have a decision.
    """
    approval = decided.approval
    metadata = protocol.Responded(
        **run_metadata(decided.run),
        request_id=approval.request_id,
        decision=approval.decision,
        by=approval.by,
        decided_at=approval.decided_at,
        duplicate=decided.duplicate,
    )
    return protocol.status(metadata, approval.session_id)


def message_frame(
    session_id: UUID, rev: int, message: MessageView, *, created: bool, html: str | None = None
) -> Status:
    """Return the frame of a new message (`created`) or of a changed one.

    `rev` is the revision of the session. `html` is the HTML of a whole reply; None: the frame has
    none.
    """
    kind = protocol.MessageCreated if created else protocol.MessageUpdated
    metadata = kind(
        rev=rev,
        message_id=message.message_id,
        number=message.number,
        role=message.role,
        parts=message.parts,
        created_at=message.created_at,
        parent_message_id=message.parent_message_id,
        run_id=message.run_id,
        run_status=message.run_status,
        agent=message.agent,
        reason=message.reason,
        error_code=message.error_code,
        client_message_id=message.client_message_id,
        withdrawn=message.withdrawn or None,
        summary=message.summary,
        html=html,
    )
    return protocol.status(metadata, session_id)


def queue_frame(session_id: UUID, rev: int, queue: list[QueueView]) -> Status:
    """Return the frame of a changed queue, with the whole queue."""
    changed = protocol.QueueChanged(rev=rev, queue=queue_entries(queue))
    return protocol.status(changed, session_id)


def queue_entries(queue: list[QueueView]) -> list[protocol.QueueEntry]:
    """Return the queue as the entries of a frame, in the same order."""
    return [protocol.QueueEntry(**entry.__dict__) for entry in queue]


_LIST_KINDS: dict[str, type[protocol.SessionMetadata]] = {
    "created": protocol.SessionCreated,
    "updated": protocol.SessionUpdated,
    "deleted": protocol.SessionDeleted,
    "activity": protocol.SessionActivity,
}


def session_frame(session_id: UUID, rev: int, line: SessionListed) -> Status:
    """Return the frame of a session's entry in its owner's list, of the type for `line.kind`."""
    metadata = _LIST_KINDS[line.kind](
        rev=rev,
        title=line.title,
        active_at=line.active_at,
        run_status=line.run_status,
        archived=line.archived,
        pinned=line.pinned,
    )
    return protocol.status(metadata, session_id)  # type: ignore[arg-type]


def feedback_frame(session_id: UUID, event: FeedbackChanged) -> Status:
    """Return the frame of the owner's feedback on a reply, or of its removal (`value` None)."""
    changed = protocol.FeedbackChanged(message_id=str(event.message_id), value=event.value)
    return protocol.status(changed, session_id)


def share_frame(session_id: UUID, event: ShareChanged) -> Status:
    """Return the frame of a share that was made or revoked."""
    share_id = str(event.share_id)
    if event.revoked:
        return protocol.status(protocol.ShareRevoked(share_id=share_id), session_id)
    made = protocol.ShareCreated(share_id=share_id, created_at=event.created_at)
    return protocol.status(made, session_id)


def run_metadata(ref: RunRef) -> dict[str, Any]:
    """Return the values for the fields of `protocol.RunMetadata`."""
    return {"run_id": str(ref.run_id), "run_number": ref.run_number, "epoch": ref.epoch}
