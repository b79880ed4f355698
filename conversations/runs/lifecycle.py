"""What workers, sweepers and people's decisions do with a run, from claim to terminal status.

Each function that writes is one transaction; `conversations.runs.states` makes the moves.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from django.db import transaction
from django.db.models import Max, Min, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from conversations.changes import (
    ChangeBuilder,
    RunLostError,
    add_items,
    locked_run,
    replace_items,
    update_reply,
)
from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import (
    Approval,
    ChatSession,
    EndReason,
    Run,
    RunEvent,
    RunState,
    RunStatus,
)
from conversations.queries import EventRow, User, parse_id, read_parts, sessions_of
from conversations.runs import states
from conversations.runs.inputs import (
    Checkpoint,
    find_checkpoint,
    items_of,
    items_of_parts,
    read_path,
)
from conversations.runs.states import Claim, Claimed, Move, NewEvent
from conversations.runs.usage import (
    UNKNOWN_USAGE,
    TokenUsage,
    estimate_orphan,
    price_orphan,
    spent_columns,
    usage_columns,
)
from conversations.sessions.rendering import save_html
from conversations.shapes import (
    ApprovalView,
    RunRef,
    approval_view,
    request_payload,
    resolved_payload,
    run_ref,
)
from conversations.text import clean_text

_ENDS = {
    RunStatus.COMPLETED: Move.COMPLETE,
    RunStatus.FAILED: Move.FAIL,
    RunStatus.CANCELLED: Move.STOP,
}
SHOWN_KINDS = ("token", "tool.started")
ASKED_TURNS = 60
"""Most turns from which the input of a lost run is estimated."""


@dataclass(frozen=True)
class ContextSize:
    """Tokens of a run's input, to correct the estimates of later runs; None if not known.

    `estimate` is our estimate of the run's first input, `measured` the provider's count of it.
    `refused` is our estimate of the smallest input of any of its model calls that was refused as
    too long; the other two may then be None.
    """

    estimate: int | None = None
    measured: int | None = None
    refused: int | None = None

    @property
    def columns(self) -> dict[str, Any]:
        """The values by the names of the columns of a run's row that hold them."""
        return {f"context_{name}": value for name, value in vars(self).items()}


@dataclass(frozen=True)
class Ending:
    """How a run ends; `parts` is its whole reply, `items` is what the model is given of it later.

    `reason` is an `EndReason`, or "": for a cancelled run that of the requested cancel counts.
    `retry_after` is in seconds. `model` is the one that answered last, and `cost` is the cost of
    all calls by their models. Without `model`, all of `usage` is priced by the model that the run
    was claimed with. `html` is `render_texts(parts)`, rendered before the transaction; None: the
    first reader renders it.
    """

    status: RunStatus
    parts: list[dict[str, Any]]
    items: list[dict[str, Any]] = field(default_factory=list)
    reason: str = ""
    error_code: str = ""
    retry_after: float | None = None
    usage: TokenUsage = UNKNOWN_USAGE
    cost: Decimal | None = None
    model: str = ""
    context: ContextSize = ContextSize()
    first_token_at: datetime | None = None
    last_token_at: datetime | None = None
    stopped_at: datetime | None = None
    retries: int = 0
    html: list[str] | None = None

    @property
    def move(self) -> Move:
        """The move of a running run to `status`; raises `KeyError` if a worker has none to it."""
        return _ENDS[self.status]

    @property
    def event(self) -> tuple[str, dict[str, Any]]:
        """Kind and payload of the terminal event: "error" if the run has failed, else "complete".

        It contains nothing of the reply.
        """
        if self.status == RunStatus.FAILED:
            return "error", {"code": self.error_code, "retry_after": self.retry_after}
        return "complete", {"finish_reason": self.status.value, "reason": self.reason or None}


@dataclass(frozen=True)
class Request:
    """A tool call that needs approval; `description` says what the tool does.

    The effect of one that is `irreversible` cannot be undone.
    """

    tool_call_id: str
    tool: str
    arguments: str
    description: str = ""
    irreversible: bool = False

    @property
    def args_hash(self) -> str:
        """A hash of the tool and its exact arguments, to which a decision is bound."""
        asked = json.dumps([self.tool, self.arguments])
        return hashlib.sha256(asked.encode()).hexdigest()


@dataclass(frozen=True)
class Suspension:
    """A run that stops to await input; `items` is what the model is given if it is never resumed.

    `state` is the SDK's state as JSON, from which the run is resumed; `expires_in` is the time to
    answer from the moment when it is stored. `model` is the one that answered last, and `cost` is
    the cost of all calls by their models; without `model`, all of `usage` is priced by the model
    that the run was claimed with.
    """

    requests: Sequence[Request]
    state: dict[str, Any]
    items: list[dict[str, Any]]
    expires_in: timedelta
    usage: TokenUsage = UNKNOWN_USAGE
    cost: Decimal | None = None
    model: str = ""
    first_token_at: datetime | None = None
    last_token_at: datetime | None = None
    retries: int = 0


def claim_run(run_id: UUID, claim: Claim) -> Claimed | None:
    """Claim a run; None if it is not queued, or not the first unfinished run of its session.

    Raises `Run.DoesNotExist`, and `AgentSiteError(not_found)` if it is purged meanwhile.
    """
    try:
        with locked_run(run_id) as (change, run):
            claimed = states.claim(change, run, claim)
            update_reply(change, run)
            return claimed
    except RunLostError:
        return None


def finish_run(
    claimed: Claimed, *, last_seq: int, events: Sequence[EventRow], ending: Ending
) -> None:
    """Write the last events, the reply, its items and HTML, and the terminal status.

    `last_seq` is the seq of the last committed event, and `events` follow it; `ending.event` is
    added behind them. Raises `RunLostError` if the run's row has another `last_seq`, or this worker
    no longer owns the run, and `AgentSiteError(not_found)` if the session has been purged.
    """
    with _locked_by_worker(claimed, last_seq) as (change, run):
        if ending.status == RunStatus.CANCELLED:
            ending = replace(ending, reason=run.reason or EndReason.USER)
        rows = [*((kind, payload) for _, kind, payload in events), ending.event]
        outcome = _outcome(run, ending)
        states.finish(change, run, ending.move, rows, html=ending.html, **outcome)
        if claimed.resumption is None:
            # Only `suspend_run` and `recover_run` write either before the end.
            add_items(run, ending.items)
        else:
            replace_items(run, ending.items)
            RunState.objects.filter(run_id=run.pk).delete()
        run.reply.parts = ending.parts
        update_reply(change, run)
        if ending.html:
            save_html(run.reply_id, ending.parts, ending.html)


@contextmanager
def _locked_by_worker(claimed: Claimed, last_seq: int) -> Iterator[tuple[ChangeBuilder, Run]]:
    """Lock the run; raise `RunLostError` if its claim or last seq is not what its worker knows."""
    with locked_run(claimed.run.pk, claimed.run.session_id) as (change, run):
        if (run.claim, run.last_seq) != (claimed.run.claim, last_seq):
            raise RunLostError(
                f"run {run.pk} is claimed by another worker, or its journal has changed"
            )
        yield change, run


def _outcome(run: Run, ending: Ending) -> dict[str, Any]:
    """Return the columns that store an ending, besides the state columns."""
    return {
        "reason": ending.reason,
        "error_code": ending.error_code,
        "first_token_at": ending.first_token_at,
        "last_token_at": ending.last_token_at,
        "stopped_at": ending.stopped_at,
        "retries": ending.retries,
        **spent_columns(run, ending.usage, ending.cost, ending.model),
        **ending.context.columns,
        "context_model": run.model if ending.model not in ("", run.model) else "",
    }


class _StopRequestedError(Exception):
    """A cancel was requested before the run could await input; rolls the transaction back."""


def suspend_run(
    claimed: Claimed, *, last_seq: int, events: Sequence[EventRow], suspension: Suspension
) -> bool:
    """Write the last events, the approvals, the items and the state, and release the run.

    `last_seq` is the seq of the last committed event, and `events` follow it; an `input.requested`
    for each request is added behind them. Returns True; if a cancel has been requested, writes
    nothing and returns False. Raises `RunLostError` if the run's row has another `last_seq`, or
    this worker no longer owns the run, and `AgentSiteError(not_found)` if the session has been
    purged.
    """
    try:
        with _locked_by_worker(claimed, last_seq) as (change, run):
            if run.cancel_requested_at is not None:
                raise _StopRequestedError
            _suspend(change, run, [(kind, payload) for _, kind, payload in events], suspension)
    except _StopRequestedError:
        return False
    return True


def _suspend(
    change: ChangeBuilder, run: Run, events: list[NewEvent], suspension: Suspension
) -> None:
    first = run.last_seq + len(events) + 1
    asked = _make_approvals(run, suspension, first)
    events += [
        ("input.requested", request_payload(row, irreversible=request.irreversible))
        for row, request in zip(asked, suspension.requests, strict=True)
    ]
    replace_items(run, suspension.items)
    Approval.objects.bulk_create(asked)
    kept = {"seq": first, "payload": json.dumps(suspension.state), "attempts": 0}
    RunState.objects.update_or_create(run_id=run.pk, defaults=kept)
    columns = {
        "first_token_at": suspension.first_token_at,
        "last_token_at": suspension.last_token_at,
        "retries": suspension.retries,
        **spent_columns(run, suspension.usage, suspension.cost, suspension.model),
    }
    states.suspend(change, run, events, **columns)


def _make_approvals(run: Run, suspension: Suspension, first: int) -> list[Approval]:
    now = timezone.now()
    return [
        Approval(
            run=run,
            seq=seq,
            tool_call_id=request.tool_call_id,
            tool=request.tool,
            description=clean_text(request.description),
            arguments=clean_text(request.arguments),
            args_hash=request.args_hash,
            created_at=now,
            expires_at=now + suspension.expires_in,
        )
        for seq, request in enumerate(suspension.requests, first)
    ]


def expire_run(run_id: UUID) -> None:
    """End a run that awaits an expired approval, as interrupted; all its open approvals expire.

    Raises `RunLostError` for any other run, `Run.DoesNotExist` for an unknown one, and
    `AgentSiteError(not_found)` if it is purged meanwhile.
    """
    with locked_run(run_id) as (change, run):
        if not has_expired(run):
            raise RunLostError(f"run {run_id} awaits no expired approval")
        states.expire(change, run)


def has_expired(run: Run) -> bool:
    """Return whether the run awaits an approval that has expired, by the database's clock."""
    late = Approval.objects.filter(run_id=run.pk, decision="", expires_at__lt=Now())
    return run.status == RunStatus.AWAITING_INPUT and late.exists()


def refuse_run(run_id: UUID, error_code: ErrorCode) -> None:
    """End a queued run that cannot be worked on, as failed with `error_code`.

    Raises `RunLostError` if it is not queued, `Run.DoesNotExist` for an unknown run, and
    `AgentSiteError(not_found)` if it is purged meanwhile.
    """
    with locked_run(run_id) as (change, run):
        states.refuse(change, run, error_code)


def recover_run(run_id: UUID, *, max_attempts: int) -> None:
    """Put a run whose lease has expired back into the queue, or end it with the committed parts.

    It is queued if no cancel was requested, and one of these holds: its epoch shows neither text
    nor a tool call, or none since it awaited input, and it was started, or resumed from there,
    fewer than `max_attempts` times; or the epoch shows some, another worker can go on behind its
    steps (`find_checkpoint`), and it has had fewer than `max_attempts` epochs. What `release_run`
    has ended counts as no attempt.

    Raises `RunLostError` for any other run, and `Run.DoesNotExist` for an unknown one.
    """
    with locked_run(run_id) as (change, run):
        late = Run.objects.filter(pk=run_id, status=RunStatus.RUNNING, lease_until__lt=Now())
        if not late.exists():
            raise RunLostError(f"run {run_id} is not orphaned")
        _recover(change, run, max_attempts)


def release_run(run_id: UUID, *, worker: str) -> None:
    """Queue a running run of `worker` again, or end it, as `recover_run` does; ignores its lease.

    How often it was started does not matter, and this attempt does not count later: a run that is
    given up has not killed its worker. Raises `RunLostError` if the worker does not own the run,
    and `Run.DoesNotExist` for an unknown one.
    """
    with locked_run(run_id) as (change, run):
        mine = Run.objects.filter(pk=run_id, status=RunStatus.RUNNING, worker=worker)
        if not mine.exists():
            raise RunLostError(f"run {run_id} is not of {worker}")
        _recover(change, run, None)


def _recover(change: ChangeBuilder, run: Run, max_attempts: int | None) -> None:
    """Queue a run again, or end it; without `max_attempts` its worker gives it up as planned."""
    state = RunState.objects.filter(run_id=run.pk).first()
    epochs = run.epoch - run.releases
    since, attempts = (state.seq, state.attempts) if state else (0, epochs)
    is_planned = max_attempts is None
    shown = RunEvent.objects.filter(run_id=run.pk, epoch=run.epoch, kind__in=SHOWN_KINDS)
    has_shown = shown.filter(seq__gt=since).exists()
    checkpoint = find_checkpoint(run)
    if run.cancel_requested_at is not None:
        _lose(change, run, checkpoint)
    elif not has_shown and (max_attempts is None or attempts < max_attempts):
        if state is None:
            states.requeue(change, run, releases=run.releases + is_planned)
        else:
            # It stays in its epoch: attempts since its answer are counted here alone.
            state.attempts -= is_planned
            state.save(update_fields=["attempts"])
            states.requeue(change, run)
    elif has_shown and checkpoint and (max_attempts is None or epochs < max_attempts):
        _go_on(change, run, checkpoint, releases=run.releases + is_planned)
    else:
        _lose(change, run, checkpoint)


def _go_on(change: ChangeBuilder, run: Run, checkpoint: Checkpoint, *, releases: int) -> None:
    """Queue a run, to be claimed again behind its checkpoint; what was used so far is counted.

    The state of an earlier suspension is deleted: what was resumed from it has happened. Later runs
    are given the committed parts if it is stopped before it is claimed.
    """
    parts = read_parts(run).parts
    RunState.objects.filter(run_id=run.pk).delete()
    replace_items(run, items_of_parts(parts))
    states.requeue(change, run, releases=releases, **_orphan_facts(run, parts, checkpoint))


def _lose(change: ChangeBuilder, run: Run, checkpoint: Checkpoint | None) -> None:
    """End a run with what was committed as its reply, for people and for the model."""
    parts = read_parts(run).parts
    replace_items(run, items_of_parts(parts))
    states.lose(change, run, **_orphan_facts(run, parts, checkpoint))


def _orphan_facts(
    run: Run, parts: list[dict[str, Any]], checkpoint: Checkpoint | None
) -> dict[str, Any]:
    """Return the timings and the usage that the lost worker would have reported.

    The usage up to `checkpoint` is known, that since is estimated.
    """
    if checkpoint is not None:
        _take_over_spent(run, checkpoint.spent)
        # While a tool works, no model call is under way whose usage must be estimated.
        parts = [] if checkpoint.spent and checkpoint.unfinished else parts
    turns = read_path(run, run.prompt_id, ASKED_TURNS).turns
    asked = [item for turn in turns for item in items_of(turn)]
    asked += checkpoint.items if checkpoint else []
    tokens = RunEvent.objects.filter(run_id=run.pk, epoch=run.epoch, kind="token")
    spoke = tokens.aggregate(first_token_at=Min("created_at"), last_token_at=Max("created_at"))
    usage = estimate_orphan(run, asked, parts)
    since = checkpoint.seq if checkpoint else 0
    cost = price_orphan(run, usage, changed_agent=_has_changed_agent(run, since))
    return {"model": run.model, **usage_columns(usage, cost), **spoke}


def _take_over_spent(run: Run, spent: dict[str, Any]) -> None:
    """Set the run's columns to those of its last step, unless the row has counted more since."""
    if (spent.get("input_tokens") or 0) > (run.input_tokens or 0):
        for name, value in spent.items():
            setattr(run, name, value)


def _has_changed_agent(run: Run, seq: int) -> bool:
    """Return whether another agent took over since `seq` and since the run was suspended."""
    state = RunState.objects.filter(run_id=run.pk).values_list("seq", flat=True).first() or 0
    events = RunEvent.objects.filter(run_id=run.pk, epoch=run.epoch, seq__gt=max(seq, state))
    return events.filter(kind="agent.changed").exists()


def mark_viewed(sessions: Sequence[UUID], duration: timedelta) -> None:
    """Note that these sessions are watched for `duration` from now, by the database's clock.

    Replaces what was noted before, also that a session always counts as watched. Works in
    transactions of 500 sessions, and locks their rows in the order of their ids, as all code that
    locks several sessions does.
    """
    ids = sorted(sessions)
    for start in range(0, len(ids), 500):
        watched = ChatSession.objects.filter(pk__in=ids[start : start + 500])
        with transaction.atomic():
            list(watched.order_by("pk").select_for_update(no_key=True).values_list("pk"))
            watched.update(viewed_until=Now() + duration)


ApprovalAnswer = Literal["approve", "reject"]
APPROVAL_ANSWERS: tuple[ApprovalAnswer, ...] = ("approve", "reject")

MESSAGE_LENGTH = 2_000


@dataclass(frozen=True)
class Decided:
    """An approval as it is now, and its run.

    `duplicate`: this call did not decide it, because it was decided, cancelled or expired.
    """

    approval: ApprovalView
    run: RunRef
    duplicate: bool


def list_approvals(session: ChatSession) -> QuerySet[Approval]:
    """Return all approvals of the session's runs, unordered, with what `approval_view` reads."""
    return Approval.objects.filter(run__session=session).select_related("run", "decided_by")


def _approvals_of(user: User) -> QuerySet[Approval]:
    rows = Approval.objects.filter(run__session__in=sessions_of(user))
    return rows.select_related("run", "decided_by")


def decide(
    *,
    user: User,
    request_id: str,
    verdict: ApprovalAnswer,
    message: str = "",
    session_id: str | None = None,
    viewed_for: timedelta | None,
) -> Decided:
    """Decide an approval of `user`; if no other one of its run is open, queue the run again.

    Changes nothing if the approval has a decision already, or its run has ended. If any open
    approval of the run has expired, the run is ended instead, and the result is a `duplicate`.
    `message` is for the model if it is a rejection; `MESSAGE_LENGTH` characters of it are kept.
    With `session_id`, the approval must be of this session. If the run is queued, the session
    counts as watched for `viewed_for`; None: its runs are never cancelled as unwatched. Raises
    `AgentSiteError(not_found)`, also for an approval in a deleted session.
    """
    mine = _approvals_of(user)
    if session_id is not None:
        mine = mine.filter(run__session_id=parse_id(session_id))
    found = mine.filter(pk=parse_id(request_id)).first()
    if found is None:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    if found.decision:
        return _decided(found, duplicate=True)
    with suppress(RunLostError), locked_run(found.run_id, found.run.session_id) as (change, run):
        # Again under the lock: another request may have decided it meanwhile.
        approval = mine.get(pk=found.pk)
        if approval.decision:
            raise RunLostError("another request has decided this approval")
        if has_expired(run):
            states.expire(change, run)
        else:
            approval.run = run
            _record(approval, user, verdict, message)
            _write_answer(change, approval, viewed_for)
        return _decided(mine.get(pk=found.pk), duplicate=approval.decided_by is None)
    # The block above was left by `RunLostError`. The session may have been deleted meanwhile.
    if (found := mine.filter(pk=found.pk).first()) is None:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    return _decided(found, duplicate=True)


def _decided(approval: Approval, *, duplicate: bool) -> Decided:
    return Decided(approval_view(approval), run_ref(approval.run), duplicate)


def _record(approval: Approval, user: User, verdict: ApprovalAnswer, message: str) -> None:
    approval.decision = verdict
    approval.decided_by_id = user.pk
    approval.decided_at = timezone.now()
    approval.message = clean_text(message.strip())[:MESSAGE_LENGTH]
    approval.save(update_fields=["decision", "decided_by", "decided_at", "message"])


def _write_answer(change: ChangeBuilder, approval: Approval, viewed_for: timedelta | None) -> None:
    """Write the decision to the journal; with the last one queue the run."""
    is_last = not Approval.objects.filter(run_id=approval.run_id, decision="").exists()
    event = "input.resolved", resolved_payload(approval)
    states.answer(change, approval.run, event, is_last=is_last)
    if is_last:
        change.session.viewed_until = None if viewed_for is None else timezone.now() + viewed_for
        change.session.save(update_fields=["viewed_until"])
