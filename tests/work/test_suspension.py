"""A run that awaits input in the database, by workers that are well and workers that are gone."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from conversations import queries
from conversations.changes import RunLostError, locked_run
from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import Approval, EndReason, Item, Run, RunEvent, RunState, RunStatus
from conversations.runs import events as events_module
from conversations.runs import lifecycle, states
from conversations.runs.events import Batch
from conversations.runs.lifecycle import Request, Suspension, suspend_run
from conversations.runs.states import Claim, Claimed
from conversations.sessions import history, lists, posting
from conversations.sessions.posting import Posted
from conversations.shapes import run_view
from tests.support.chats import ask, begin, make_user, session_of

pytestmark = pytest.mark.django_db(transaction=True)

CLAIM = Claim(worker="w1", lease=timedelta(seconds=15), agent="assistant", model="m")
ITEMS = [{"role": "assistant", "content": "Well."}]


@pytest.fixture
def ann(transactional_db: None) -> Any:
    return make_user("ann")


def suspend(posted: Posted, *, requests: int = 1) -> Claimed:
    """The run has said "Well." and asks."""
    claimed = begin(posted, "Well.")
    asked = [Request(f"call_{n}", "erase", f'{{"n": {n}}}') for n in range(requests)]
    suspension = Suspension(
        requests=asked, state={"s": "\x00"}, items=ITEMS, expires_in=timedelta(days=1)
    )
    assert suspend_run(claimed, last_seq=2, events=[], suspension=suspension)
    return claimed


def answer(user: Any, decision: Any = "approve", place: int = 0) -> lifecycle.Decided:
    request = Approval.objects.order_by("seq")[place]
    return lifecycle.decide(
        user=user, request_id=str(request.pk), verdict=decision, viewed_for=None
    )


def commit(work: Claimed, kind: str = "token", **payload: Any) -> bool:
    run = Run.objects.get(pk=work.run.pk)
    events = [(run.last_seq + 1, kind, payload or {"delta": "More."})]
    batch = Batch(run.pk, work.run.claim, work.run.epoch, run.last_seq, events)
    return run.pk in events_module.commit_batches([batch], CLAIM.lease).kept


def expire_lease() -> None:
    Run.objects.update(lease_until=Now() - timedelta(seconds=1))


def test_nobody_owns_a_run_that_awaits_input(ann: Any) -> None:
    posted = ask(ann, "hi")
    worker = suspend(posted)
    run = Run.objects.get()
    assert (run.status, run.lease_until, run.last_seq) == (RunStatus.AWAITING_INPUT, None, 3)
    assert not commit(worker)
    assert states.list_orphans() == []
    assert lifecycle.claim_run(run.pk, CLAIM) is None
    assert [kind for _, kind, _ in queries.read_events(run)] == [
        "run.started",
        "token",
        "input.requested",
    ]
    assert history.get_history(session_of(posted)).run == run_view(run)


def test_it_goes_on_in_the_same_epoch_behind_a_new_fence(ann: Any) -> None:
    worker = suspend(ask(ann, "hi"))
    decided = answer(ann)
    assert (decided.approval.decision, decided.duplicate) == ("approve", False)
    again = lifecycle.claim_run(worker.run.pk, CLAIM)
    assert again is not None
    assert again.resumption is not None
    assert (again.run.claim, again.run.epoch, again.last_seq) == (2, 1, 4)
    assert again.resumption.state == {"s": "\x00"}
    assert again.resumption.items == ITEMS
    assert [part["type"] for part in again.resumption.folder.parts] == ["text", "approval"]
    assert not commit(worker)
    assert commit(again)


def test_a_run_that_is_to_stop_is_not_suspended(ann: Any) -> None:
    posted = ask(ann, "hi")
    claimed = begin(posted)
    posting.cancel_run(user=ann, session_id=str(posted.session_id))
    suspension = Suspension([Request("c", "erase", "{}")], {}, [], timedelta(days=1))
    assert not suspend_run(claimed, last_seq=1, events=[], suspension=suspension)
    assert Run.objects.get().status == RunStatus.RUNNING
    assert not Approval.objects.exists()


def test_a_stale_worker_asks_nothing(ann: Any) -> None:
    claimed = begin(ask(ann, "hi"))
    expire_lease()
    lifecycle.recover_run(claimed.run.pk, max_attempts=2)
    suspension = Suspension([Request("c", "erase", "{}")], {}, [], timedelta(days=1))
    with pytest.raises(RunLostError):
        suspend_run(claimed, last_seq=1, events=[], suspension=suspension)
    assert not Approval.objects.exists()


def test_a_worker_that_dies_before_it_shows_more_is_replaced_once(ann: Any) -> None:
    worker = suspend(ask(ann, "hi"))
    answer(ann)
    for attempt in (1, 2):
        assert lifecycle.claim_run(worker.run.pk, CLAIM) is not None, attempt
        expire_lease()
        lifecycle.recover_run(worker.run.pk, max_attempts=2)
    run = Run.objects.select_related("reply").get()
    assert (run.status, run.reason, run.epoch) == (
        RunStatus.INTERRUPTED,
        EndReason.WORKER_LOST,
        1,
    )
    assert run.reply.text == "Well."
    assert not RunState.objects.exists()


def test_a_planned_release_after_the_answer_is_no_attempt(ann: Any) -> None:
    worker = suspend(ask(ann, "hi"))
    answer(ann)
    for _ in range(3):
        assert lifecycle.claim_run(worker.run.pk, CLAIM) is not None
        lifecycle.release_run(worker.run.pk, worker=CLAIM.worker)
    assert lifecycle.claim_run(worker.run.pk, CLAIM) is not None
    expire_lease()
    lifecycle.recover_run(worker.run.pk, max_attempts=2)
    assert Run.objects.get().status == RunStatus.QUEUED


def test_a_tool_that_was_begun_is_not_begun_again(ann: Any) -> None:
    worker = suspend(ask(ann, "hi"))
    answer(ann)
    again = lifecycle.claim_run(worker.run.pk, CLAIM)
    assert again is not None
    assert commit(again, "tool.started", tool_call_id="call_0", name="erase")
    expire_lease()
    lifecycle.recover_run(worker.run.pk, max_attempts=2)
    run = Run.objects.select_related("reply").get()
    assert run.status == RunStatus.INTERRUPTED
    assert [part.get("status", part.get("decision")) for part in run.reply.parts[1:]] == [
        "approve",
        "failed",
    ]


def test_a_run_that_is_stopped_when_all_was_answered_keeps_what_it_said(ann: Any) -> None:
    posted = ask(ann, "hi")
    suspend(posted)
    answer(ann)
    posting.cancel_run(user=ann, session_id=str(posted.session_id))
    run = Run.objects.select_related("reply").get()
    assert (run.status, run.reply.text) == (RunStatus.CANCELLED, "Well.")
    assert [item.payload for item in Item.objects.all()] == ITEMS
    seqs = RunEvent.objects.filter(run=run).order_by("seq").values_list("seq", "kind")
    assert list(seqs) == [
        (1, "run.started"),
        (2, "token"),
        (3, "input.requested"),
        (4, "input.resolved"),
        (5, "complete"),
    ]


def test_what_waits_behind_it_is_started_when_it_ends(ann: Any) -> None:
    posted = ask(ann, "hi")
    suspend(posted, requests=2)
    behind = ask(ann, "next", session_of(posted), on_busy="enqueue")
    assert lifecycle.claim_run(behind.run_id, CLAIM) is None
    answer(ann, "reject")
    posting.cancel_run(user=ann, session_id=str(posted.session_id))
    assert lifecycle.claim_run(behind.run_id, CLAIM) is not None
    assert [row.decision for row in Approval.objects.order_by("seq")] == ["reject", "cancelled"]


def test_whoever_answers_by_rest_need_not_watch(ann: Any) -> None:
    posted = ask(ann, "hi")
    suspend(posted)
    assert session_of(posted).viewed_until is not None
    answer(ann)
    assert session_of(posted).viewed_until is None


@pytest.mark.parametrize("is_for_good", [True, False])
def test_an_answer_to_what_is_deleted_meanwhile_finds_nothing(
    ann: Any, monkeypatch: pytest.MonkeyPatch, is_for_good: bool
) -> None:
    posted = ask(ann, "hi")
    suspend(posted)

    def lock_late(*args: Any) -> Any:
        delete(ann, posted, is_for_good=is_for_good)
        return locked_run(*args)

    monkeypatch.setattr(lifecycle, "locked_run", lock_late)
    with pytest.raises(AgentSiteError) as refused:
        answer(ann)
    assert refused.value.code == ErrorCode.NOT_FOUND


@pytest.mark.parametrize("is_for_good", [True, False])
def test_a_stop_of_what_is_deleted_meanwhile(
    ann: Any, monkeypatch: pytest.MonkeyPatch, is_for_good: bool
) -> None:
    """For good: there is nothing to be found. Else it was stopped by that."""
    posted = ask(ann, "hi")
    suspend(posted)

    def lock_late(*args: Any) -> Any:
        delete(ann, posted, is_for_good=is_for_good)
        return locked_run(*args)

    monkeypatch.setattr(posting, "locked_run", lock_late)
    if not is_for_good:
        stopped = posting.cancel_run(user=ann, session_id=str(posted.session_id))
        assert (stopped.status, stopped.ended_before) == (RunStatus.CANCELLED, True)
        return
    with pytest.raises(AgentSiteError) as refused:
        posting.cancel_run(user=ann, session_id=str(posted.session_id))
    assert refused.value.code == ErrorCode.NOT_FOUND


def delete(user: Any, posted: Posted, *, is_for_good: bool) -> None:
    if is_for_good:
        session_of(posted).delete()
    else:
        lists.delete_session(user=user, session_id=str(posted.session_id))
