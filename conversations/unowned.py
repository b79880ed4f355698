"""Runs that no worker owns: whoever changes one goes on with its journal."""

from collections.abc import Sequence
from typing import Any

from django.utils import timezone

from conversations.changes import ChangeBuilder, RunLostError, update_reply, write_events
from conversations.errors import ErrorCode
from conversations.models import Approval, Decision, EndReason, Run, RunState, RunStatus
from conversations.notify import RunAdvanced
from conversations.queries import read_parts
from conversations.shapes import resolved_payload
from conversations.usage import NO_USAGE, usage_columns

NewEvent = tuple[str, dict[str, Any]]


def write_unowned(
    change: ChangeBuilder, run: Run, events: Sequence[NewEvent], **fields: Any
) -> None:
    """Go on with the journal of a run that no worker owns, and set `fields` of its row.

    Compared and set as a worker's commit is; raises `RunLostError`.
    """
    rows = [(seq, *event) for seq, event in enumerate(events, run.last_seq + 1)]
    fields["last_seq"] = run.last_seq + len(rows)
    same = Run.objects.filter(pk=run.pk, status=run.status, claim=run.claim, last_seq=run.last_seq)
    if not same.update(**fields):
        raise RunLostError
    for name, value in fields.items():
        setattr(run, name, value)
    write_events(run, rows)
    if rows:
        change.add(RunAdvanced(run, rows))


def end_unowned(
    change: ChangeBuilder, run: Run, status: RunStatus, reason: EndReason, **fields: Any
) -> None:
    """End a run that no worker owns: its open requests, its last event, its row and its reply."""
    last = ("complete", {"finish_reason": status.value, "reason": reason.value})
    _end(change, run, last, status=status, reason=reason, **fields)


def fail_unowned(change: ChangeBuilder, run: Run, error_code: ErrorCode) -> None:
    """The same for one that has failed."""
    last = ("error", {"code": error_code.value, "retry_after": None})
    _end(change, run, last, status=RunStatus.FAILED, error_code=error_code.value)


def _end(change: ChangeBuilder, run: Run, last: NewEvent, **fields: Any) -> None:
    """What was committed is the reply; one that was never claimed has none."""
    events = [*_close_requests(run, fields.get("reason")), last] if run.epoch else [last]
    now = timezone.now()
    if not run.claim:
        fields |= usage_columns(NO_USAGE, run.model)
    if fields["status"] == RunStatus.CANCELLED:
        fields["stopped_at"] = now
    write_unowned(change, run, events, ended_at=now, **fields)
    if run.epoch:
        run.reply.parts = read_parts(run).close()
        RunState.objects.filter(run_id=run.pk).delete()
    change.unfinished.remove(run)
    update_reply(change, run)


def _close_requests(run: Run, reason: EndReason | None) -> list[NewEvent]:
    """Nobody will answer them any more."""
    expired = reason == EndReason.APPROVAL_EXPIRED
    still_open = list(Approval.objects.filter(run_id=run.pk, decision="").order_by("seq"))
    for approval in still_open:
        approval.run = run
        approval.decision = Decision.EXPIRED if expired else Decision.CANCELLED
        approval.decided_at = timezone.now()
        approval.save(update_fields=["decision", "decided_at"])
    return [("input.resolved", resolved_payload(approval)) for approval in still_open]
