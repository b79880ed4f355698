"""What workers do: a run from its claim to its one terminal status, and what is left behind."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Max, Min
from django.db.models.functions import Now
from django.utils import timezone

from conversations.changes import (
    ChangeBuilder,
    EventRow,
    RunLostError,
    lock_run,
    update_reply,
    write_events,
    write_items,
)
from conversations.errors import ErrorCode
from conversations.items import items_of_parts
from conversations.models import (
    ChatSession,
    EndReason,
    Run,
    RunEvent,
    RunState,
    RunStatus,
)
from conversations.notify import RunAdvanced
from conversations.queries import read_parts
from conversations.reply_html import save_html
from conversations.resumption import Resumption, load_resumption
from conversations.shapes import RunRef, run_ref
from conversations.sketch import draw_sketch
from conversations.turns import read_path
from conversations.unowned import end_unowned, fail_unowned, write_unowned
from conversations.usage import UNKNOWN_USAGE, TokenUsage, estimate_orphan, usage_columns

SHOWN_KINDS = ("token", "tool.started")
FOLD_ROWS = 500
ASKED_TURNS = 60
"""How far back the input of a lost reply is estimated from."""


@dataclass(frozen=True)
class Claim:
    """Who takes a run, for how long, and what it is worked on with where it names no agent.

    `agents` are those whose runs may begin now, "" being the default one; None: all.
    """

    worker: str
    lease: timedelta
    agent: str
    model: str
    agents: frozenset[str] | None = None

    def admits(self, agent: str) -> bool:
        """Whether a run of that agent may begin."""
        return self.agents is None or agent in self.agents


@dataclass(frozen=True)
class Claimed:
    """A run that this worker owns, from `last_seq` on; `resumption` is where it goes on."""

    run: Run
    ref: RunRef
    last_seq: int
    resumption: Resumption | None = None


@dataclass(frozen=True)
class ContextSize:
    """Tokens of a run's first input; see `conversations.turns.Gauge`."""

    estimate: int | None = None
    measured: int | None = None
    refused: int | None = None

    @property
    def columns(self) -> dict[str, Any]:
        """The fields of a run's row that hold it."""
        return {f"context_{name}": value for name, value in vars(self).items()}


@dataclass(frozen=True)
class Ending:
    """How a run ends; `parts` is its whole reply, `items` what the model is given of it later.

    `html` is `render_texts(parts)`, made before the transaction; None: the first reader makes it.
    """

    status: RunStatus
    parts: list[dict[str, Any]]
    items: list[dict[str, Any]] = field(default_factory=list)
    reason: str = ""
    error_code: str = ""
    retry_after: float | None = None
    usage: TokenUsage = UNKNOWN_USAGE
    context: ContextSize = ContextSize()
    first_token_at: datetime | None = None
    last_token_at: datetime | None = None
    stopped_at: datetime | None = None
    retries: int = 0
    html: list[str] | None = None

    @property
    def event(self) -> tuple[str, dict[str, Any]]:
        """Kind and payload of the terminal event; it holds no text."""
        if self.status == RunStatus.FAILED:
            return "error", {"code": self.error_code, "retry_after": self.retry_after}
        return "complete", {"finish_reason": self.status.value, "reason": self.reason or None}


@transaction.atomic
def claim_run(run_id: UUID, claim: Claim) -> Claimed | None:
    """Take a queued run that is the first of its session; None when it is not to be had."""
    change, run = lock_run(run_id)
    if run is None or change.claimable != run_id or not claim.admits(run.agent):
        transaction.set_rollback(True)
        return None
    claimed = start_run(change, run, claim)
    update_reply(change, run)
    change.announce("activity")
    return claimed


def start_run(change: ChangeBuilder, run: Run, claim: Claim) -> Claimed:
    """Give the head of the locked session's queue to a worker.

    Its journal begins in a new epoch, or goes on where the run has awaited input.
    """
    resumption = load_resumption(run) if run.epoch else None
    if resumption is None:
        run.epoch += 1
        run.last_seq = 1
    run.status = RunStatus.RUNNING
    run.claim += 1
    run.worker = claim.worker
    run.agent = run.agent or claim.agent
    run.model = claim.model
    kept = ("status", "claim", "epoch", "last_seq", "worker", "agent", "model")
    Run.objects.filter(pk=run.pk).update(
        lease_until=Now() + claim.lease,
        claimed_at=Now(),
        **{name: getattr(run, name) for name in kept},
    )
    if resumption is None:
        first = (1, "run.started", {"agent": run.agent})
        write_events(run, [first])
        change.add(RunAdvanced(run, [first]))
    return Claimed(run, run_ref(run), run.last_seq, resumption)


@transaction.atomic
def finish_run(
    claimed: Claimed, *, last_seq: int, events: Sequence[EventRow], ending: Ending
) -> UUID | None:
    """Write the last events, the reply, its items and the terminal status; the next run's id.

    `last_seq` is the last one committed, `events` go on from it. Raises `RunLostError`.
    """
    change, run = lock_run(claimed.run.pk, claimed.run.session_id)
    if run is None or (run.claim, run.last_seq) != (claimed.run.claim, last_seq):
        raise RunLostError
    if ending.status == RunStatus.CANCELLED:
        ending = replace(ending, reason=run.reason or EndReason.USER)
    rows = [*events, (last_seq + len(events) + 1, *ending.event)]
    _write_outcome(run, ending, rows[-1][0])
    change.unfinished.remove(run)
    write_events(run, rows)
    write_items(run, ending.items)
    RunState.objects.filter(run_id=run.pk).delete()
    run.reply.parts = ending.parts
    update_reply(change, run)
    if ending.html:
        save_html(run.reply_id, ending.parts, ending.html)
    change.add(RunAdvanced(run, rows, ending.html))
    change.announce("activity")
    return change.claimable


def _write_outcome(run: Run, ending: Ending, last_seq: int) -> None:
    """The terminal status, fenced once more: a commit of text does not take the session's lock."""
    outcome: dict[str, Any] = {
        "status": ending.status,
        "reason": ending.reason,
        "error_code": ending.error_code,
        "first_token_at": ending.first_token_at,
        "last_token_at": ending.last_token_at,
        "stopped_at": ending.stopped_at,
        "retries": ending.retries,
        **usage_columns(ending.usage, run.model),
        **ending.context.columns,
        "last_seq": last_seq,
        "lease_until": None,
    }
    mine = Run.objects.filter(
        pk=run.pk, claim=run.claim, last_seq=run.last_seq, status=RunStatus.RUNNING
    )
    if not mine.update(ended_at=Now(), **outcome):
        raise RunLostError
    for name, value in outcome.items():
        setattr(run, name, value)


@transaction.atomic
def fail_queued(run_id: UUID, error_code: ErrorCode) -> None:
    """End a run that nobody will begin; nothing if somebody has."""
    change, run = lock_run(run_id)
    if run is None or run.status != RunStatus.QUEUED:
        transaction.set_rollback(True)
        return
    fail_unowned(change, run, error_code)
    change.announce("activity")


@transaction.atomic
def recover_run(run_id: UUID, *, max_attempts: int, worker: str | None = None) -> UUID | None:
    """Decide about a run whose worker is gone: queue it again, or end it with its text kept.

    Without `worker` the lease must have expired; a worker that stops gives up its own runs.
    The id of the run that may be claimed next, if any.
    """
    change, run = lock_run(run_id)
    mine = Run.objects.filter(pk=run_id, status=RunStatus.RUNNING)
    mine = mine.filter(lease_until__lt=Now()) if worker is None else mine.filter(worker=worker)
    if run is None or not mine.exists():
        transaction.set_rollback(True)
        return None
    if run.cancel_requested_at is not None:
        _end_orphan(change, run, RunStatus.CANCELLED, EndReason(run.reason or EndReason.USER))
    elif _may_try_again(run, max_attempts):
        _queue_again(change, run)
    else:
        _end_orphan(change, run, RunStatus.INTERRUPTED, EndReason.WORKER_LOST)
    change.announce("activity")
    return change.claimable


def _may_try_again(run: Run, max_attempts: int) -> bool:
    """Nothing was shown since the run began, or since its requests were answered."""
    state = RunState.objects.filter(run_id=run.pk).first()
    since, attempts = (state.seq, state.attempts) if state else (0, run.epoch)
    events = RunEvent.objects.filter(run_id=run.pk, epoch=run.epoch, seq__gt=since)
    return attempts < max_attempts and not events.filter(kind__in=SHOWN_KINDS).exists()


def _queue_again(change: ChangeBuilder, run: Run) -> None:
    again = {"status": RunStatus.QUEUED, "queued_at": timezone.now(), "worker": ""}
    write_unowned(change, run, [], claim=run.claim + 1, lease_until=None, **again)
    update_reply(change, run)


def _end_orphan(change: ChangeBuilder, run: Run, status: RunStatus, reason: EndReason) -> None:
    """What was committed is the reply, for people and for the model."""
    parts = read_parts(run).parts
    write_items(run, items_of_parts(parts))
    facts = _orphan_facts(run, parts)
    end_unowned(change, run, status, reason, claim=run.claim + 1, lease_until=None, **facts)


def _orphan_facts(run: Run, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """What its worker would have told: when it spoke, and what it took."""
    turns = read_path(run, run.prompt_id, ASKED_TURNS).turns
    asked = [item for turn in turns for item in (turn.text, *turn.items)]
    tokens = RunEvent.objects.filter(run_id=run.pk, epoch=run.epoch, kind="token")
    spoke = tokens.aggregate(first_token_at=Min("created_at"), last_token_at=Max("created_at"))
    return usage_columns(estimate_orphan(run, asked, parts), run.model) | spoke


@transaction.atomic
def fold_events(age: timedelta) -> int:
    """Drop some streamed text of runs that ended longer than `age` ago; of how many runs.

    The text is in the message, its timing in the run's sketch; the other events stay. 0 when
    nothing is left to do.
    """
    ended = Run.objects.filter(folded=False, ended_at__lt=Now() - age).order_by("ended_at")
    folded = 0
    for run_id in ended.values_list("pk", flat=True)[:20]:
        rows = RunEvent.objects.filter(run_id=run_id, kind__in=("token", "reasoning.delta"))
        _keep_sketch(run_id)
        seqs = list(rows.values_list("epoch", "seq")[:FOLD_ROWS])
        _delete_events(run_id, seqs)
        if len(seqs) < FOLD_ROWS:
            Run.objects.filter(pk=run_id).update(folded=True)
        folded += 1
        if len(seqs) == FOLD_ROWS:
            break
    return folded


def _keep_sketch(run_id: UUID) -> None:
    """Once, before the first of its events goes."""
    run = Run.objects.get(pk=run_id)
    if run.sketch is not None:
        return
    tokens = RunEvent.objects.filter(run_id=run_id, epoch=run.epoch, kind="token").order_by("seq")
    times = tokens.values_list("created_at", "payload")
    deltas = ((moment, len(payload["delta"])) for moment, payload in times.iterator())
    Run.objects.filter(pk=run_id).update(sketch=draw_sketch(run.created_at, deltas))


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
