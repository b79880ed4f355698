"""The table of a run's moves: what is in it, what is not, and who may write what it writes."""

import ast
from datetime import timedelta
from typing import Any

import pytest

from conversations import changes
from conversations.changes import (
    Change,
    RunCancelRequested,
    RunEnded,
    RunLostError,
    RunReady,
    locked_run,
)
from conversations.errors import ErrorCode
from conversations.models import ACTIVE, EndReason, Run, RunStatus
from conversations.runs import lifecycle, states
from conversations.runs.states import MOVES, STATE_COLUMNS, Claim, IllegalMoveError, Move
from tests.support.chats import ask, begin, finish, make_user, session_of
from tests.support.site import ROOT

pytestmark = pytest.mark.django_db(transaction=True)

CLAIM = Claim(worker="w1", lease=timedelta(seconds=15), agent="assistant", model="m")
PAIRS = [(status, move) for status in RunStatus for move in Move]


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What committed transactions announce of runs, in order."""
    told: list[Any] = []

    def listen(change: Change) -> None:
        kinds = RunReady | RunCancelRequested | RunEnded
        told.extend(event for event in change.events if isinstance(event, kinds))

    monkeypatch.setattr(changes, "_handlers", [listen])
    return told


def make(move: Move, run: Run) -> None:
    """Make the move as its callers do, whatever the run's status is."""
    with locked_run(run.pk) as (change, locked):
        match move:
            case Move.CLAIM:
                states.claim(change, locked, CLAIM)
            case Move.COMPLETE | Move.FAIL | Move.STOP:
                event = ("complete", {"finish_reason": "completed", "reason": None})
                states.finish(change, locked, move, [event])
            case Move.SUSPEND:
                states.suspend(change, locked, [])
            case Move.REQUEUE:
                states.requeue(change, locked)
            case Move.ANSWER | Move.RESUME:
                event = ("input.resolved", {})
                states.answer(change, locked, event, is_last=move == Move.RESUME)
            case Move.EXPIRE:
                states.expire(change, locked)
            case Move.REFUSE:
                states.refuse(change, locked, ErrorCode.MODEL_NOT_READY)
            case Move.LOSE | Move.LOSE_STOPPED:
                asked = locked.created_at if move == Move.LOSE_STOPPED else None
                locked.cancel_requested_at = asked
                states.lose(change, locked)
            case Move.CANCEL | Move.REQUEST_CANCEL:
                states.stop(change, locked, EndReason.USER)


@pytest.mark.parametrize(("status", "move"), PAIRS, ids=lambda value: str(value))
def test_every_move_leads_where_the_table_says_or_raises(status: RunStatus, move: Move) -> None:
    posted = ask(make_user("ann"), "hi")
    Run.objects.filter(pk=posted.run_id).update(status=status)
    run = Run.objects.get(pk=posted.run_id)
    # One function makes the one that fits: `stop`.
    stops = {Move.CANCEL, Move.REQUEST_CANCEL}
    twin = stops - {move} if move in stops else set()
    if (status, move) in MOVES:
        make(move, run)
        run.refresh_from_db()
        assert run.status == MOVES[status, move].status
        return
    with pytest.raises(IllegalMoveError):
        states.get_rule(status, move)
    if not any((status, other) in MOVES for other in twin):
        with pytest.raises(RunLostError):
            make(move, run)
        after = Run.objects.get(pk=run.pk)
        assert [getattr(after, name) for name in STATE_COLUMNS] == [
            getattr(run, name) for name in STATE_COLUMNS
        ]


def test_nothing_leads_out_of_a_status_of_a_later_version() -> None:
    with pytest.raises(IllegalMoveError):
        states.get_rule("paused", Move.CLAIM)


def test_nothing_leads_out_of_an_ended_run() -> None:
    assert {status for status, _ in MOVES} == set(ACTIVE)


def test_every_status_is_reached() -> None:
    assert {rule.status for rule in MOVES.values()} == set(RunStatus)


def test_a_run_that_ends_says_so_and_what_waits_is_ready(facts: list[Any]) -> None:
    ann = make_user("ann")
    first = ask(ann, "one")
    second = ask(ann, "two", session_of(first))
    assert facts == [RunReady(first.run_id)]
    finish(first, "done")
    assert facts[1:] == [RunEnded(first.run_id), RunReady(second.run_id)]


def test_a_chat_that_claims_hands_its_claim_over(facts: list[Any]) -> None:
    posted = ask(make_user("ann"), "one", claim=CLAIM)
    assert facts == [RunReady(posted.run_id, posted.claimed)]


def test_an_interruption_names_the_run_that_it_interrupts(facts: list[Any]) -> None:
    ann = make_user("ann")
    first = ask(ann, "one", claim=CLAIM)
    ask(ann, "two", session_of(first), on_busy="interrupt")
    assert [fact.run_id for fact in facts] == [first.run_id, first.run_id]
    assert isinstance(facts[1], RunCancelRequested)


def test_a_run_that_waits_is_replaced_by_the_one_that_interrupts_it(facts: list[Any]) -> None:
    ann = make_user("ann")
    first = ask(ann, "one")
    second = ask(ann, "two", session_of(first), on_busy="interrupt")
    assert facts[1:] == [RunEnded(first.run_id), RunReady(second.run_id)]


def test_a_run_that_is_queued_again_is_ready(facts: list[Any]) -> None:
    posted = ask(make_user("ann"), "one")
    begin(posted)
    lifecycle.release_run(posted.run_id, worker="test")
    assert facts == [RunReady(posted.run_id), RunReady(posted.run_id)]


def test_what_is_rolled_back_is_not_told(facts: list[Any]) -> None:
    posted = ask(make_user("ann"), "one")
    rev = session_of(posted).rev
    del facts[:]
    with pytest.raises(IllegalMoveError):
        make(Move.EXPIRE, Run.objects.get(pk=posted.run_id))
    assert facts == []
    assert session_of(posted).rev == rev


WRITERS = {"conversations/runs/states.py", "conversations/runs/events.py"}
MADE_ENDED = {"conversations/exports/imports.py", "benchmarks/sample_rows.py"}
"""They make rows of runs that have ended, and change none."""


def test_nobody_else_writes_the_columns_of_the_state() -> None:
    wrong = []
    for package in ("conversations", "realtime", "agentsite"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if "migrations" in path.parts or name in WRITERS | MADE_ENDED:
                continue
            wrong += [f"{name}:{line}" for line in state_writes(ast.parse(path.read_text()))]
    assert wrong == []


WRITE_CALLS = {"update", "create", "Run", "save", "bulk_update", "aupdate", "update_or_create"}


def state_writes(tree: ast.AST) -> list[int]:
    """Lines that assign one of the columns, or pass one to what writes rows."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {t.attr for t in targets if isinstance(t, ast.Attribute)}
            owners = {
                t.value.id
                for t in targets
                if isinstance(t, ast.Attribute) and isinstance(t.value, ast.Name)
            }
            if names & STATE_COLUMNS and "run" in owners:
                found.append(node.lineno)
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if getattr(getattr(node.func, "value", None), "id", "") == "part":
                continue  # a dictionary of a message
            given = {keyword.arg for keyword in node.keywords}
            if called in WRITE_CALLS and given & STATE_COLUMNS:
                found.append(node.lineno)
    return found


def test_the_search_finds_such_writes() -> None:
    code = 'run.status = "x"\nruns.update(claim=1)\nRun(status=1)\nruns.filter(status=1)'
    assert state_writes(ast.parse(code)) == [1, 2, 3]
