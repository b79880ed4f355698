"""The states of a run: the table of moves, the code that makes them, and runs that need attention.

No other code writes the columns in `STATE_COLUMNS`, with one exception: `events._advance`, a raw
statement on the hot path, renews `lease_until` of running runs with every commit of text.

Each move needs an open transaction that holds the session's lock (`changes.lock_session`), which
puts the moves of a session in order. Commits of text do not take that lock, so a move compares
`status`, `claim` and `last_seq` with what it has read, and raises `RunLostError` if they differ.

`ChangeBuilder.announce` sends facts to other code once the transaction has committed:
`RunCancelRequested` and `RunEnded` by the table, and `RunReady` whenever a queued run has become
the first of its session, by any move.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db.models import Count, Exists, Min, OuterRef, QuerySet, TextField
from django.db.models.functions import Cast, Now
from django.utils import timezone

from conversations.changes import (
    ChangeBuilder,
    RunAdvanced,
    RunCancelRequested,
    RunEnded,
    RunLostError,
    RunReady,
    insert,
    update,
    update_reply,
    write_events,
)
from conversations.errors import ErrorCode
from conversations.models import (
    ACTIVE,
    Approval,
    Decision,
    EndReason,
    Preferences,
    Run,
    RunEvent,
    RunState,
    RunStatus,
)
from conversations.queries import read_parts
from conversations.runs.events import FromNow
from conversations.runs.inputs import Resumption, load_resumption
from conversations.runs.usage import (
    NO_USAGE,
    add_to_totals,
    count_new_tokens,
    price,
    usage_columns,
)
from conversations.shapes import RunRef, resolved_payload, run_ref

NewEvent = tuple[str, dict[str, Any]]
"""Kind and payload; the move that writes the event assigns its seq."""

STATE_COLUMNS = frozenset(
    {"status", "claim", "epoch", "worker", "lease_until", "cancel_requested_at"}
)


class IllegalMoveError(RunLostError):
    """The run's status, or its place in its session, does not allow this move.

    The move has written nothing; raised inside a transaction, the error rolls that back.
    """


class Move(StrEnum):
    """What may happen to a run, grouped by who usually does it; `MOVES` has what each leads to."""

    # An executor.
    CLAIM = "claim"
    REFUSE = "refuse"
    # The worker that has claimed it.
    COMPLETE = "complete"
    FAIL = "fail"
    STOP = "stop"
    SUSPEND = "suspend"
    # Its user.
    REQUEST_CANCEL = "request_cancel"
    CANCEL = "cancel"
    ANSWER = "answer"
    RESUME = "resume"
    # A sweeper, or a worker that shuts down.
    REQUEUE = "requeue"
    LOSE = "lose"
    LOSE_STOPPED = "lose_stopped"
    EXPIRE = "expire"


@dataclass(frozen=True)
class Rule:
    """What a move from one status does: `status` is the one that it leads to.

    `columns` are the state columns besides `status` that it must write. `fact` is announced with
    it, besides `RunAdvanced` and `RunReady`, which any move may announce; None: nothing is.
    """

    status: RunStatus
    columns: frozenset[str] = frozenset()
    fact: type[RunCancelRequested] | type[RunEnded] | None = None


_CLAIMED = frozenset({"claim", "epoch", "worker", "lease_until"})
_RELEASED = frozenset({"worker", "lease_until"})
# A worker that is believed dead may still write: raising `claim` fences it off.
_FENCED = frozenset({"claim", "lease_until"})
_LEASE = frozenset({"lease_until"})

MOVES: dict[tuple[RunStatus, Move], Rule] = {
    (RunStatus.QUEUED, Move.CLAIM): Rule(RunStatus.RUNNING, _CLAIMED),
    (RunStatus.QUEUED, Move.REFUSE): Rule(RunStatus.FAILED, fact=RunEnded),
    (RunStatus.QUEUED, Move.CANCEL): Rule(RunStatus.CANCELLED, fact=RunEnded),
    (RunStatus.RUNNING, Move.COMPLETE): Rule(RunStatus.COMPLETED, _LEASE, RunEnded),
    (RunStatus.RUNNING, Move.FAIL): Rule(RunStatus.FAILED, _LEASE, RunEnded),
    (RunStatus.RUNNING, Move.STOP): Rule(RunStatus.CANCELLED, _LEASE, RunEnded),
    (RunStatus.RUNNING, Move.SUSPEND): Rule(RunStatus.AWAITING_INPUT, _RELEASED),
    (RunStatus.RUNNING, Move.REQUEST_CANCEL): Rule(
        RunStatus.RUNNING, frozenset({"cancel_requested_at"}), RunCancelRequested
    ),
    (RunStatus.RUNNING, Move.REQUEUE): Rule(RunStatus.QUEUED, _FENCED | _RELEASED),
    (RunStatus.RUNNING, Move.LOSE): Rule(RunStatus.INTERRUPTED, _FENCED, RunEnded),
    (RunStatus.RUNNING, Move.LOSE_STOPPED): Rule(RunStatus.CANCELLED, _FENCED, RunEnded),
    (RunStatus.AWAITING_INPUT, Move.ANSWER): Rule(RunStatus.AWAITING_INPUT),
    (RunStatus.AWAITING_INPUT, Move.RESUME): Rule(RunStatus.QUEUED),
    (RunStatus.AWAITING_INPUT, Move.CANCEL): Rule(RunStatus.CANCELLED, fact=RunEnded),
    (RunStatus.AWAITING_INPUT, Move.EXPIRE): Rule(RunStatus.INTERRUPTED, fact=RunEnded),
}
"""All legal moves. None leads out of an ended run."""


def get_rule(status: str, move: Move) -> Rule:
    """Return the rule of `move` for a run with this status.

    Raises `IllegalMoveError` if the table has none, as for a status of a later version.
    """
    try:
        return MOVES[RunStatus(status), move]
    except (KeyError, ValueError):
        raise IllegalMoveError(f"cannot {move} a run that is {status}") from None


@dataclass(frozen=True)
class Claim:
    """Which worker claims a run; the claim ends after `lease` unless it is renewed.

    A run that names no agent gets `agent`. Its model is that of its agent in `models`, else
    `model`; a run that is resumed keeps the model that it had.
    """

    worker: str
    lease: timedelta
    agent: str
    model: str
    models: Mapping[str, str] = field(default_factory=dict)

    def model_of(self, agent: str) -> str:
        """Return the name of the model of an agent: that in `models`, else `model`."""
        return self.models.get(agent, self.model)


@dataclass(frozen=True)
class Claimed:
    """A run that was claimed; the seq of the first event that its worker adds is `last_seq` + 1.

    `run` is its row after the claim, except `claimed_at` and `lease_until`, which only the database
    knows; `ref` has its new epoch. `resumption` is what the run is resumed from; None if it starts
    anew. `checked_at` is the `time.monotonic()` at which this process has checked the limits of its
    user, in the transaction that added the run; None if it was claimed later.
    """

    run: Run
    ref: RunRef
    last_seq: int
    resumption: Resumption | None = None
    checked_at: float | None = None


def claim(change: ChangeBuilder, run: Run, claim: Claim) -> Claimed:
    """Give `run`, the first unfinished run of its session, to the worker of `claim`.

    A new epoch of the run's journal begins, unless it is resumed after it awaited input. Behind a
    checkpoint, the events up to there move into the new epoch, and later ones stay in the old one.
    A run that is not stored yet is stored as claimed. The caller announces the reply, such as by
    `update_reply`. Raises `IllegalMoveError` if the run is not queued or not the first one, and
    `RunLostError` if its row has changed since it was read.
    """
    if change.claimable != run.pk:
        raise IllegalMoveError(f"run {run.number} is not claimable")
    resumption = load_resumption(run) if run.epoch else None
    agent = run.agent or claim.agent
    events: list[NewEvent] = []
    after, checkpoint = None, resumption.checkpoint if resumption else None
    if resumption is None:
        after, events = 0, [("run.started", {"agent": agent})]
    elif checkpoint is not None:
        after, events = checkpoint.seq, [("tool.failed", call) for call in checkpoint.unfinished]
    columns: dict[str, Any] = {
        "claim": run.claim + 1,
        "epoch": run.epoch + (after is not None),
        "worker": claim.worker,
        "lease_until": FromNow(claim.lease),
        "claimed_at": FromNow(),
        "agent": agent,
        "model": claim.model_of(agent) if resumption is None else run.model,
        # Tokens of a lost worker stay in the totals; a new epoch is counted from 0 in addition.
        "counted_tokens": 0 if resumption is None else run.counted_tokens,
    }
    _make(change, run, Move.CLAIM, events, after=after, **columns)
    if checkpoint is not None:
        _move_events(run, checkpoint.seq)
    return Claimed(run, run_ref(run), run.last_seq, resumption)


def _move_events(run: Run, seq: int) -> None:
    """Move the events of the epoch before the present one, up to `seq`, into the present one."""
    before = RunEvent.objects.filter(run_id=run.pk, epoch=run.epoch - 1, seq__lte=seq)
    before.update(epoch=run.epoch)


def hand_over(change: ChangeBuilder, claimed: Claimed) -> None:
    """Add to `change` a `RunReady` with the claim, which must have been made for this process.

    Once `change` is announced and committed, this process's executor starts the run.
    """
    change.add(RunReady(claimed.run.pk, claimed))


def finish(
    change: ChangeBuilder,
    run: Run,
    move: Move,
    events: Sequence[NewEvent],
    *,
    html: list[str] | None = None,
    **columns: Any,
) -> None:
    """End a running run by `move`, which is COMPLETE, FAIL or STOP; write its row and `events`.

    For the run's worker, whose claim the caller must have checked. The last of `events` must be the
    terminal one. The caller also writes the reply (`update_reply`) and its items, and deletes the
    `RunState`, in the same transaction. `html` has the HTML of the reply's text parts, for the
    terminal frame; None if it has not been rendered. `columns` are other columns of the row, none
    of `STATE_COLUMNS`. Raises `IllegalMoveError` if the run is not running, and `RunLostError` if
    its row has changed since it was read.
    """
    _make(change, run, move, events, html=html, lease_until=None, ended_at=FromNow(), **columns)


def suspend(change: ChangeBuilder, run: Run, events: Sequence[NewEvent], **columns: Any) -> None:
    """Suspend a running run until its user decides; write `events`, and save its reply.

    For the run's worker, whose claim the caller must have checked. The worker and the lease are
    cleared; the number of the claim stays. `events` must have an `input.requested` for each
    approval. The caller writes the approvals, the items and the `RunState`. `columns` are other
    columns of the row, none of `STATE_COLUMNS`. Raises `IllegalMoveError` if the run is not
    running, and `RunLostError` if its row has changed since it was read.
    """
    _make(change, run, Move.SUSPEND, events, worker="", lease_until=None, **columns)
    update_reply(change, run)


def requeue(change: ChangeBuilder, run: Run, **columns: Any) -> None:
    """Queue a running run again, whose worker is gone or gives it up; it stays the first one.

    Writes no event. Later commits of that worker are refused. `columns` are other columns of the
    row to write. Raises `IllegalMoveError` if the run is not running, and `RunLostError` if its row
    has changed.
    """
    again: dict[str, Any] = {"claim": run.claim + 1, "worker": "", "lease_until": None}
    _make(change, run, Move.REQUEUE, queued_at=timezone.now(), **again, **columns)
    update_reply(change, run)


def lose(change: ChangeBuilder, run: Run, **columns: Any) -> None:
    """End a running run whose worker is gone or gives it up; its reply is what was committed.

    The run becomes cancelled if a cancel was requested, else interrupted. Later commits of that
    worker are refused. The caller writes the items of the reply. `columns` are other columns of the
    row to write. Raises `IllegalMoveError` if the run is not running, and `RunLostError` if its row
    has changed.
    """
    fence = {"claim": run.claim + 1, "lease_until": None}
    if run.cancel_requested_at is not None:
        reason = EndReason(run.reason or EndReason.USER)
        _end(change, run, Move.LOSE_STOPPED, reason=reason, **fence, **columns)
    else:
        _end(change, run, Move.LOSE, reason=EndReason.WORKER_LOST, **fence, **columns)


def stop(change: ChangeBuilder, run: Run, reason: EndReason) -> None:
    """Cancel a run that no worker owns, or request a cancel from the worker of a running one.

    If a cancel has been requested already, changes nothing, and its first reason stays. Raises
    `IllegalMoveError` for an ended run, and `RunLostError` if the row has changed since it was
    read.
    """
    if run.status != RunStatus.RUNNING:
        _end(change, run, Move.CANCEL, reason=reason)
    elif run.cancel_requested_at is None:
        _request_cancel(change, run, reason)


def _request_cancel(change: ChangeBuilder, run: Run, reason: EndReason) -> None:
    """Request a cancel; does not compare `last_seq`, since the worker may commit text meanwhile."""
    get_rule(run.status, Move.REQUEST_CANCEL)
    run.cancel_requested_at = timezone.now()
    running = Run.objects.filter(pk=run.pk, status=run.status, claim=run.claim)
    if not running.update(cancel_requested_at=Now(), reason=reason):
        raise RunLostError
    change.add(RunCancelRequested(run_ref(run)))


def answer(change: ChangeBuilder, run: Run, event: NewEvent, *, is_last: bool) -> None:
    """Write `event`, a decision, to the journal of a run that awaits input.

    With `is_last`, which the caller determines, the run is queued, still as the first unfinished
    run of its session. The caller stores the decision itself. Raises `IllegalMoveError` if the run
    does not await input, and `RunLostError` if its row has changed.
    """
    if not is_last:
        _make(change, run, Move.ANSWER, [event])
        return
    _make(change, run, Move.RESUME, [event], queued_at=timezone.now())
    update_reply(change, run)


def expire(change: ChangeBuilder, run: Run) -> None:
    """End a run that awaits input as interrupted, with its parts so far as the reply.

    The caller must have checked that an approval has expired. All open approvals of the run become
    expired. Raises `IllegalMoveError` if the run does not await input, and `RunLostError` if its
    row has changed.
    """
    _end(change, run, Move.EXPIRE, reason=EndReason.APPROVAL_EXPIRED)


def refuse(change: ChangeBuilder, run: Run, error_code: ErrorCode) -> None:
    """End a queued run that cannot be worked on, as failed with `error_code`.

    Its reply is what was committed before, if it had begun. Raises `IllegalMoveError` if the run is
    not queued, and `RunLostError` if its row has changed.
    """
    _end(change, run, Move.REFUSE, error_code=error_code.value)


def _end(change: ChangeBuilder, run: Run, move: Move, **columns: Any) -> None:
    """End a run that no worker owns: close its approvals, write its last event, row and reply.

    The reply is what was committed; a run without an epoch, never claimed, has no parts to read.
    """
    status, now = get_rule(run.status, move).status, timezone.now()
    requests = _close_requests(run, columns.get("reason")) if run.epoch else []
    events = [*requests, _last_event(status, columns)]
    if not run.claim:
        columns |= usage_columns(NO_USAGE, price(NO_USAGE, run.model))
    if status == RunStatus.CANCELLED:
        columns["stopped_at"] = now
    _make(change, run, move, events, ended_at=now, **columns)
    if run.epoch:
        run.reply.parts = read_parts(run).close()
        RunState.objects.filter(run_id=run.pk).delete()
    update_reply(change, run)


def _last_event(status: RunStatus, columns: dict[str, Any]) -> NewEvent:
    if status == RunStatus.FAILED:
        return "error", {"code": columns["error_code"], "retry_after": None}
    return "complete", {"finish_reason": status.value, "reason": columns["reason"].value}


def _close_requests(run: Run, reason: EndReason | None) -> list[NewEvent]:
    """Close the open approvals of a run that ends; return their events."""
    expired = reason == EndReason.APPROVAL_EXPIRED
    still_open = list(Approval.objects.filter(run_id=run.pk, decision="").order_by("seq"))
    for approval in still_open:
        approval.run = run
        approval.decision = Decision.EXPIRED if expired else Decision.CANCELLED
        approval.decided_at = timezone.now()
        approval.save(update_fields=["decision", "decided_at"])
    return [("input.resolved", resolved_payload(approval)) for approval in still_open]


def _make(
    change: ChangeBuilder,
    run: Run,
    move: Move,
    events: Sequence[NewEvent] = (),
    *,
    after: int | None = None,
    html: list[str] | None = None,
    **columns: Any,
) -> None:
    """Make a move: write the row and its events (after seq `after`), and collect its facts.

    Raises `IllegalMoveError`, and `RunLostError` if the row has changed since it was read.
    """
    rule = get_rule(run.status, move)
    assert STATE_COLUMNS & columns.keys() == rule.columns, (
        f"wrong columns for {move}: {set(columns)}"
    )
    first = (run.last_seq if after is None else after) + 1
    rows = [(seq, *event) for seq, event in enumerate(events, first)]
    columns |= {"status": rule.status, "last_seq": first + len(rows) - 1}
    spent, columns["counted_tokens"] = count_new_tokens(run, columns)
    if run._state.adding:
        _insert(run, columns)
    else:
        # Before all else: it raises if another writer has changed the row since it was read.
        _compare_and_set(run, columns)
    add_to_totals(run, spent)
    write_events(run, rows)
    if run.is_ended:
        change.unfinished.remove(run)
    if rows:
        change.add(RunAdvanced(run, rows, html))
    if rule.fact is RunEnded:
        change.add(RunEnded(run.pk))


def _insert(run: Run, columns: dict[str, Any]) -> None:
    before = {name: getattr(run, name) for name in columns}
    _set(run, columns)
    insert([run])
    _set(run, {name: before[name] for name, value in columns.items() if _is_computed(value)})


def _compare_and_set(run: Run, columns: dict[str, Any]) -> None:
    same = {name: getattr(run, name) for name in ("id", "status", "claim", "last_seq")}
    if not update(Run, columns, where=same):
        raise RunLostError
    _set(run, {name: value for name, value in columns.items() if not _is_computed(value)})


def _is_computed(value: Any) -> bool:
    """Return whether only the database knows the value; then the object keeps what it has."""
    return isinstance(value, FromNow)


def _set(run: Run, columns: Mapping[str, Any]) -> None:
    for name, value in columns.items():
        setattr(run, name, value)


def list_cancelled(run_ids: Iterable[UUID]) -> list[UUID]:
    """Return the ids of those runs whose cancel has been requested, ended ones too, unordered."""
    runs = Run.objects.filter(pk__in=list(run_ids), cancel_requested_at__isnull=False)
    return list(runs.values_list("pk", flat=True))


def list_orphans() -> list[UUID]:
    """Return the ids of up to 500 running runs whose lease has expired by the database's clock."""
    runs = Run.objects.filter(status=RunStatus.RUNNING, lease_until__lt=Now())
    return list(runs.values_list("pk", flat=True)[:500])


def list_expired() -> list[UUID]:
    """Return the ids of up to 500 runs that await an expired approval, by the database's clock."""
    late = Approval.objects.filter(
        decision="", expires_at__lt=Now(), run__status=RunStatus.AWAITING_INPUT
    )
    return list(late.values_list("run_id", flat=True).distinct()[:500])


@dataclass(frozen=True)
class Backlog:
    """Unfinished runs, counted by (status, agent); the agent is "" if the run names none yet.

    `oldest_s` is how many seconds ago the oldest claimable run was queued, or queued again; 0.0 if
    there is none. A run is claimable if it is queued and the first unfinished run of its session.
    """

    runs: dict[tuple[str, str], int]
    oldest_s: float


def measure_backlog() -> Backlog:
    """Count the unfinished runs of all users; find how long the oldest claimable one has waited."""
    active = Run.objects.filter(status__in=ACTIVE).order_by()
    counts = active.values_list("status", "agent").annotate(Count("pk"))
    oldest = _claimable_runs().aggregate(oldest=Min("queued_at"))["oldest"]
    oldest_s = max(0.0, (timezone.now() - oldest).total_seconds()) if oldest else 0.0
    return Backlog({(status, agent): count for status, agent, count in counts}, oldest_s)


def list_forgotten(age: timedelta) -> list[UUID]:
    """Return the ids of up to 500 claimable runs that have been queued for longer than `age`.

    A run is claimable if it is queued and the first unfinished run of its session.
    """
    runs = _claimable_runs().filter(queued_at__lt=Now() - age)
    return list(runs.values_list("pk", flat=True)[:500])


def list_undelivered(age: timedelta) -> list[Run]:
    """Return up to 500 claimable runs, queued for longer than `age`, without a waiting job.

    A run is claimable if it is queued and the first unfinished run of its session. The job is that
    of Procrastinate, whose app must be installed. The runs that have been queued longest come
    first; only their `pk` and `owner` are loaded.
    """
    # Looked up by name, since Procrastinate, which needs Postgres, is not always installed.
    job: Any = apps.get_registered_model("procrastinate", "ProcrastinateJob")
    jobs = job.objects.filter(status="todo", queueing_lock=Cast(OuterRef("pk"), TextField()))
    runs = _claimable_runs().filter(queued_at__lt=Now() - age).exclude(Exists(jobs))
    return list(runs.order_by("queued_at").only("owner")[:500])


def get_agent(run_id: UUID) -> str:
    """Return the name of the agent that a run begins with; "" if it names none, or is gone.

    A run that names none gets the default agent when it is claimed. Later agents of the reply do
    not count.
    """
    return Run.objects.filter(pk=run_id).values_list("agent", flat=True).first() or ""


def _claimable_runs() -> QuerySet[Run]:
    """Return queued runs that are the first unfinished ones of their sessions."""
    earlier = Run.objects.filter(session=OuterRef("session"), status__in=ACTIVE).filter(
        number__lt=OuterRef("number")
    )
    return Run.objects.filter(status=RunStatus.QUEUED).exclude(Exists(earlier))


def list_unwatched(grace: timedelta, agents: Collection[str] = ()) -> list[UUID]:
    """Return the ids of up to 500 running runs whose session was unwatched for at least `grace`.

    Leaves out runs whose cancel has been requested, sessions that always count as watched, runs of
    `agents`, and those of users who want their replies to go on.
    """
    runs = Run.objects.filter(
        status=RunStatus.RUNNING,
        cancel_requested_at=None,
        session__viewed_until__lt=Now() - grace,
    )
    runs = runs.exclude(agent__in=agents).exclude(
        Exists(Preferences.objects.filter(pk=OuterRef("owner_id"), keeps_going=True))
    )
    return list(runs.values_list("pk", flat=True)[:500])
