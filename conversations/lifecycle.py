"""What workers do: a run from its claim to its one terminal status, and what is left behind."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from conversations.changes import (
    ChangeBuilder,
    EventRow,
    end_unowned,
    lock_run,
    update_reply,
    write_events,
)
from conversations.models import (
    ChatSession,
    EndReason,
    Item,
    Run,
    RunEvent,
    RunStatus,
    UsageSource,
)
from conversations.notify import QueueChanged, RunAdvanced
from conversations.parts import fold
from conversations.queries import get_active_run, list_queue, read_events
from conversations.shapes import RunRef, run_ref

SHOWN_KINDS = ("token", "tool.started")
FOLD_ROWS = 500


class RunLostError(Exception):
    """The run is not this worker's any more."""


@dataclass(frozen=True)
class Claimed:
    """A run that this worker owns; `last_seq` is its first event's."""

    run: Run
    ref: RunRef
    last_seq: int


@dataclass(frozen=True)
class TokenUsage:
    """Tokens of all model calls of a run; None where it is not known."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    source: UsageSource = UsageSource.UNKNOWN


@dataclass(frozen=True)
class Ending:
    """How a run ends; `parts` is its whole reply, `items` what the model is given of it later."""

    status: RunStatus
    parts: list[dict[str, Any]]
    items: list[dict[str, Any]] = field(default_factory=list)
    reason: str = ""
    error_code: str = ""
    retry_after: float | None = None
    usage: TokenUsage = TokenUsage()
    first_token_at: datetime | None = None

    @property
    def event(self) -> tuple[str, dict[str, Any]]:
        """Kind and payload of the terminal event; it holds no text."""
        if self.status == RunStatus.FAILED:
            return "error", {"code": self.error_code, "retry_after": self.retry_after}
        return "complete", {"finish_reason": self.status.value, "reason": self.reason or None}


@transaction.atomic
def claim_run(
    run_id: UUID, *, worker: str, lease: timedelta, agent: str, model: str
) -> Claimed | None:
    """Take a queued run that is the first of its session; None when it is not to be had."""
    session, run = lock_run(run_id)
    head = get_active_run(session.pk)
    if head is None or head.pk != run_id or run.status != RunStatus.QUEUED:
        transaction.set_rollback(True)
        return None
    agent = run.agent or agent
    Run.objects.filter(pk=run_id).update(
        status=RunStatus.RUNNING,
        claim=F("claim") + 1,
        epoch=F("epoch") + 1,
        last_seq=1,
        worker=worker,
        lease_until=Now() + lease,
        claimed_at=Now(),
        agent=agent,
        model=model,
    )
    run = Run.objects.select_related("reply").get(pk=run.pk)
    change = ChangeBuilder(session)
    update_reply(change, run)
    change.add(QueueChanged(list_queue(session.pk)))
    first = (1, "run.started", {"agent": agent})
    write_events(run, [first])
    change.add(RunAdvanced(run, [first]))
    change.announce("activity")
    return Claimed(run, run_ref(run), last_seq=1)


@transaction.atomic
def finish_run(
    claimed: Claimed, *, last_seq: int, events: Sequence[EventRow], ending: Ending
) -> UUID | None:
    """Write the last events, the reply, its items and the terminal status; the next run's id.

    `last_seq` is the last one committed, `events` go on from it. Raises `RunLostError`.
    """
    session, run = lock_run(claimed.run.pk)
    if ending.status == RunStatus.CANCELLED:
        ending = replace(ending, reason=run.reason or EndReason.USER)
    terminal = (last_seq + len(events) + 1, *ending.event)
    moved = Run.objects.filter(
        pk=run.pk, claim=claimed.run.claim, last_seq=last_seq, status=RunStatus.RUNNING
    ).update(last_seq=terminal[0], lease_until=None, ended_at=Now(), **_outcome(ending))
    if not moved:
        raise RunLostError
    run = Run.objects.select_related("reply").get(pk=run.pk)
    rows = [*events, terminal]
    write_events(run, rows)
    _write_items(run, ending.items)
    run.reply.parts = ending.parts
    change = ChangeBuilder(session)
    update_reply(change, run)
    change.add(RunAdvanced(run, rows))
    return _close(change)


def _outcome(ending: Ending) -> dict[str, Any]:
    usage = ending.usage
    return {
        "status": ending.status,
        "reason": ending.reason,
        "error_code": ending.error_code,
        "first_token_at": ending.first_token_at,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "usage_source": usage.source,
    }


def _write_items(run: Run, items: list[dict[str, Any]]) -> None:
    rows = [Item(run=run, position=place, payload=item) for place, item in enumerate(items)]
    Item.objects.bulk_create(rows, batch_size=500)


def _close(change: ChangeBuilder) -> UUID | None:
    """Tell of the end; the id of the run that may be claimed next."""
    session = change.session
    session.active_at = timezone.now()
    session.save(update_fields=["active_at"])
    change.add(QueueChanged(list_queue(session.pk)))
    change.announce("activity")
    head = get_active_run(session.pk)
    return head.pk if head is not None and head.status == RunStatus.QUEUED else None


@transaction.atomic
def recover_run(run_id: UUID, *, max_attempts: int, worker: str | None = None) -> UUID | None:
    """Decide about a run whose worker is gone: queue it again, or end it with its text kept.

    Without `worker` the lease must have expired; a worker that stops gives up its own runs.
    The id of the run that may be claimed next, if any.
    """
    session, run = lock_run(run_id)
    mine = Run.objects.filter(pk=run_id, status=RunStatus.RUNNING)
    mine = mine.filter(lease_until__lt=Now()) if worker is None else mine.filter(worker=worker)
    if not mine.exists():
        transaction.set_rollback(True)
        return None
    run.claim += 1
    run.lease_until = None
    change = ChangeBuilder(session)
    if run.cancel_requested_at is not None:
        _end_orphan(change, run, RunStatus.CANCELLED, EndReason(run.reason or EndReason.USER))
    elif run.epoch < max_attempts and not _has_shown(run):
        _queue_again(change, run)
    else:
        _end_orphan(change, run, RunStatus.INTERRUPTED, EndReason.WORKER_LOST)
    return _close(change)


def _has_shown(run: Run) -> bool:
    events = RunEvent.objects.filter(run_id=run.pk, epoch=run.epoch, kind__in=SHOWN_KINDS)
    return events.exists()


def _queue_again(change: ChangeBuilder, run: Run) -> None:
    run.status = RunStatus.QUEUED
    run.worker = ""
    run.queued_at = timezone.now()
    run.save(update_fields=["status", "worker", "queued_at", "claim", "lease_until"])
    update_reply(change, run)


def _end_orphan(change: ChangeBuilder, run: Run, status: RunStatus, reason: EndReason) -> None:
    """What was committed is the reply, for people and for the model."""
    folder = fold((kind, payload) for _, kind, payload in read_events(run))
    run.reply.parts = folder.close()
    _write_items(run, partial_items(run.reply.text))
    end_unowned(change, run, status, reason)


def partial_items(text: str) -> list[dict[str, Any]]:
    """What the model is told of a reply that was cut short: its text, if there was any."""
    return [{"role": "assistant", "content": text}] if text else []


@transaction.atomic
def fold_events(age: timedelta) -> int:
    """Drop streamed text of runs that ended longer than `age` ago; how many runs were folded.

    The text is in the message; the other events stay.
    """
    ended = Run.objects.filter(folded=False, ended_at__lt=Now() - age).order_by("ended_at")
    folded = 0
    for run_id in ended.values_list("pk", flat=True)[:20]:
        rows = RunEvent.objects.filter(run_id=run_id, kind__in=("token", "reasoning.delta"))
        seqs = list(rows.values_list("epoch", "seq")[:FOLD_ROWS])
        _delete_events(run_id, seqs)
        if len(seqs) < FOLD_ROWS:
            Run.objects.filter(pk=run_id).update(folded=True)
        folded += 1
        if len(seqs) == FOLD_ROWS:
            break
    return folded


def _delete_events(run_id: UUID, seqs: list[tuple[int, int]]) -> None:
    for epoch in {epoch for epoch, _ in seqs}:
        RunEvent.objects.filter(
            run_id=run_id, epoch=epoch, seq__in=[seq for e, seq in seqs if e == epoch]
        ).delete()


def mark_viewed(sessions: Sequence[UUID], duration: timedelta) -> None:
    """Somebody is watching these sessions, and will be for `duration`."""
    ids = sorted(sessions)
    for start in range(0, len(ids), 500):
        batch = ids[start : start + 500]
        ChatSession.objects.filter(pk__in=batch).update(viewed_until=Now() + duration)
