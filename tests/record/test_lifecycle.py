"""A run's moves in the database, by workers that are well and workers that are gone."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models.functions import Now

from conversations import queries
from conversations.changes import RunLostError
from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import EndReason, Item, Message, Run, RunEvent, RunStatus
from conversations.runs import catch_up, lifecycle, states
from conversations.runs import events as events_module
from conversations.runs.events import Batch
from conversations.runs.inputs import LOST_OUTPUT, Step, Turn, read_path
from conversations.runs.lifecycle import Ending
from conversations.runs.states import Claim, Claimed
from conversations.runs.usage import ChatLimits
from conversations.sessions import posting, queue
from conversations.sessions.posting import NewChat, Posted
from tests.support.inprocess import make_user

pytestmark = pytest.mark.django_db(transaction=True)

CLAIM = Claim(worker="w1", lease=timedelta(seconds=15), agent="echo", model="m")


@pytest.fixture
def user(transactional_db: None) -> AbstractBaseUser:
    return make_user("ada")


def post(user: AbstractBaseUser, content: str = "hi", **fields: Any) -> Posted:
    chat = NewChat(content=content, **fields)
    return posting.post_chat(
        user=user, chat=chat, limits=ChatLimits(), viewed_for=None, claim=CLAIM
    )


def claimed(posted: Posted) -> Claimed:
    assert posted.claimed is not None
    return posted.claimed


def commit(work: Claimed, *deltas: str) -> events_module.Committed:
    run = Run.objects.get(pk=work.run.pk)
    events = [(run.last_seq + n, "token", {"delta": delta}) for n, delta in enumerate(deltas, 1)]
    batch = Batch(run.pk, work.run.claim, work.run.epoch, run.last_seq, events)
    return events_module.commit_batches([batch], CLAIM.lease)


def expire(work: Claimed) -> None:
    Run.objects.filter(pk=work.run.pk).update(lease_until=Now() - timedelta(seconds=1))


def turns_of(run: Run) -> list[Turn]:
    """What the model may be given for a run, newest first."""
    return read_path(run, run.prompt_id, 10).turns


def test_text_is_committed_under_the_fence(user: AbstractBaseUser) -> None:
    work = claimed(post(user))
    assert commit(work, "one ", "two").kept == {work.run.pk}
    run = Run.objects.get()
    assert run.last_seq == 3
    assert queries.read_parts(run).parts == [{"type": "text", "text": "one two"}]


@pytest.mark.parametrize(
    "change", [{"claim": 2}, {"last_seq": 7}, {"status": RunStatus.INTERRUPTED}]
)
def test_a_run_that_was_taken_away_commits_nothing(
    user: AbstractBaseUser, change: dict[str, Any]
) -> None:
    mine, other = claimed(post(user)), claimed(post(user))
    Run.objects.filter(pk=mine.run.pk).update(**change)
    batches = [
        Batch(work.run.pk, work.run.claim, 1, 1, [(2, "token", {"delta": "x"})])
        for work in (mine, other)
    ]
    committed = events_module.commit_batches(batches, CLAIM.lease)
    assert committed.kept == {other.run.pk}
    assert not RunEvent.objects.filter(run_id=mine.run.pk, seq=2).exists()
    assert RunEvent.objects.filter(run_id=other.run.pk, seq=2).exists()


def test_a_commit_tells_of_cancels(user: AbstractBaseUser) -> None:
    posted = post(user)
    posting.cancel_run(user=user, session_id=str(posted.session_id))
    assert commit(claimed(posted), "x").cancelled == {posted.run_id}


def test_the_end_starts_what_waits(user: AbstractBaseUser) -> None:
    first = post(user)
    second = post(user, "next", session_id=str(first.session_id))
    assert second.claimed is None
    assert lifecycle.claim_run(second.run_id, CLAIM) is None
    ending = Ending(RunStatus.COMPLETED, [{"type": "text", "text": "done"}])
    lifecycle.finish_run(claimed(first), last_seq=1, events=[], ending=ending)
    assert lifecycle.claim_run(second.run_id, CLAIM) is not None


def test_a_second_end_is_refused(user: AbstractBaseUser) -> None:
    work = claimed(post(user))
    ending = Ending(RunStatus.COMPLETED, [])
    lifecycle.finish_run(work, last_seq=1, events=[], ending=ending)
    with pytest.raises(RunLostError):
        lifecycle.finish_run(work, last_seq=1, events=[], ending=ending)
    assert RunEvent.objects.filter(kind="complete").count() == 1


def test_an_orphan_that_showed_nothing_is_tried_again_once(user: AbstractBaseUser) -> None:
    work = claimed(post(user))
    with pytest.raises(RunLostError, match="is not orphaned"):
        lifecycle.recover_run(work.run.pk, max_attempts=2)
    expire(work)
    assert states.list_orphans() == [work.run.pk]
    lifecycle.recover_run(work.run.pk, max_attempts=2)
    again = lifecycle.claim_run(work.run.pk, CLAIM)
    assert again is not None
    assert again.run.epoch == 2
    assert commit(work, "stale").kept == set()
    expire(again)
    lifecycle.recover_run(work.run.pk, max_attempts=2)
    run = Run.objects.get()
    assert (run.status, run.reason) == (RunStatus.INTERRUPTED, EndReason.WORKER_LOST)


def test_an_orphan_that_showed_text_ends_with_it(user: AbstractBaseUser) -> None:
    posted = post(user)
    commit(claimed(posted), "so ", "far")
    expire(claimed(posted))
    lifecycle.recover_run(posted.run_id, max_attempts=2)
    run = Run.objects.select_related("reply").get()
    assert run.status == RunStatus.INTERRUPTED
    assert run.reply.text == "so far"
    assert [item.payload for item in Item.objects.all()] == [
        {"role": "assistant", "content": "so far"}
    ]
    last = RunEvent.objects.filter(run=run).latest("seq")
    assert (last.epoch, last.seq, last.kind) == (1, 4, "complete")


def test_an_orphan_keeps_the_tools_that_had_finished(user: AbstractBaseUser) -> None:
    work = claimed(post(user))
    call = {"tool_call_id": "a", "name": "search"}
    events = [
        (2, "token", {"delta": "Looking."}),
        (3, "tool.started", {**call, "arguments": '{"q": "x"}'}),
        (4, "tool.finished", {**call, "output": "found"}),
        (5, "tool.started", {"tool_call_id": "b", "name": "write", "arguments": '{"te'}),
    ]
    events_module.commit_batches([Batch(work.run.pk, 1, 1, 1, events)], CLAIM.lease)
    expire(work)
    lifecycle.recover_run(work.run.pk, max_attempts=2)
    assert [item.payload for item in Item.objects.order_by("position")] == [
        {"role": "assistant", "content": "Looking."},
        {"type": "function_call", "call_id": "a", "name": "search", "arguments": '{"q": "x"}'},
        {"type": "function_call_output", "call_id": "a", "output": "found"},
        {"type": "function_call", "call_id": "b", "name": "write", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "b", "output": LOST_OUTPUT},
    ]


def lose_behind_a_tool(work: Claimed) -> Run:
    """Its worker is gone while it writes behind a tool; another one may go on."""
    call = {"tool_call_id": "a", "name": "search"}
    made = {"type": "function_call", "call_id": "a", "name": "search", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "a", "output": "found"}
    said: dict[str, Any] = {"role": "assistant", "content": "Looking."}
    events: list[Any] = [
        (2, "token", {"delta": "Looking."}),
        (3, "tool.started", {**call, "arguments": "{}"}),
        (4, "tool.finished", {**call, "output": "found"}),
        (5, "token", {"delta": "So"}),
    ]
    steps: dict[int, Step] = {3: {"items": [said, made]}, 4: {"items": [output]}}
    batch = Batch(work.run.pk, 1, 1, 1, events, steps)
    events_module.commit_batches([batch], CLAIM.lease)
    expire(work)
    lifecycle.recover_run(work.run.pk, max_attempts=2)
    return Run.objects.get(pk=work.run.pk)


def test_an_orphan_goes_on_behind_its_last_step(user: AbstractBaseUser) -> None:
    run = lose_behind_a_tool(claimed(post(user)))
    assert (run.status, run.epoch, run.usage_source) == (RunStatus.QUEUED, 1, "estimated")
    again = lifecycle.claim_run(run.pk, CLAIM)
    assert again is not None
    assert again.resumption is not None
    assert (again.run.epoch, again.run.claim, again.last_seq) == (2, 3, 4)
    assert [item.get("type", "text") for item in again.resumption.items] == [
        *("text", "function_call", "function_call_output"),
    ]
    kept = [kind for _, kind, _ in queries.read_events(again.run)]
    assert kept == ["run.started", "token", "tool.started", "tool.finished"]
    assert again.resumption.folder.parts == queries.read_parts(again.run).parts
    caught_up = catch_up.read_catch_up(run.pk, epoch=1, seq=5, limit=100)
    assert (caught_up.seq, caught_up.events) == (4, [])


def test_a_reader_of_the_row_before_is_shown_the_events_where_they_are_now(
    user: AbstractBaseUser,
) -> None:
    before = lose_behind_a_tool(claimed(post(user)))
    assert lifecycle.claim_run(before.pk, CLAIM) is not None
    for _ in ("built", "held"):
        shown = catch_up.read_snapshot(before)
        assert (shown.run.epoch, shown.run.last_seq) == (2, 4)
        assert [part["type"] for part in shown.parts] == ["text", "tool"]


def test_a_stop_before_it_goes_on_keeps_what_it_had_done(user: AbstractBaseUser) -> None:
    posted = post(user)
    run = lose_behind_a_tool(claimed(posted))
    with pytest.raises(AgentSiteError) as refused:
        queue.edit_queued(
            user=user, session_id=str(posted.session_id), run_id=str(run.pk), content="other"
        )
    assert refused.value.code == ErrorCode.NOT_QUEUED
    posting.cancel_run(user=user, session_id=str(posted.session_id))
    run = Run.objects.select_related("reply").get()
    assert (run.status, run.reply.text) == (RunStatus.CANCELLED, "Looking.\n\nSo")
    assert [item.payload.get("type", "text") for item in Item.objects.order_by("position")] == [
        *("text", "function_call", "function_call_output", "text"),
    ]
    assert run.input_tokens


def test_an_orphan_that_was_to_stop_is_cancelled(user: AbstractBaseUser) -> None:
    posted = post(user)
    posting.cancel_run(user=user, session_id=str(posted.session_id))
    expire(claimed(posted))
    lifecycle.recover_run(posted.run_id, max_attempts=2)
    assert Run.objects.get().status == RunStatus.CANCELLED


def test_a_worker_gives_up_only_its_own(user: AbstractBaseUser) -> None:
    work = claimed(post(user))
    with pytest.raises(RunLostError):
        lifecycle.release_run(work.run.pk, worker="w2")
    lifecycle.release_run(work.run.pk, worker="w1")
    assert Run.objects.get().status == RunStatus.QUEUED


def test_planned_releases_are_no_attempts(user: AbstractBaseUser) -> None:
    """Whatever was released before, a silent run is tried again after its worker's first death."""
    work = claimed(post(user))
    for _ in range(3):
        lifecycle.release_run(work.run.pk, worker="w1")
        assert lifecycle.claim_run(work.run.pk, CLAIM) is not None
    expire(work)
    lifecycle.recover_run(work.run.pk, max_attempts=2)
    assert Run.objects.get().status == RunStatus.QUEUED
    last = lifecycle.claim_run(work.run.pk, CLAIM)
    assert last is not None
    expire(last)
    lifecycle.recover_run(work.run.pk, max_attempts=2)
    assert Run.objects.get().status == RunStatus.INTERRUPTED


def test_a_planned_release_behind_a_step_is_no_attempt(user: AbstractBaseUser) -> None:
    run = lose_behind_a_tool(claimed(post(user)))
    for _ in range(3):
        assert lifecycle.claim_run(run.pk, CLAIM) is not None
        lifecycle.release_run(run.pk, worker="w1")
    again = lifecycle.claim_run(run.pk, CLAIM)
    assert again is not None
    commit(again, "Still looking.")
    expire(again)
    lifecycle.recover_run(run.pk, max_attempts=3)
    assert Run.objects.get().status == RunStatus.QUEUED


def test_folding_keeps_all_but_streamed_text(user: AbstractBaseUser) -> None:
    posted = post(user)
    work = claimed(posted)
    commit(work, "a", "b")
    ending = Ending(RunStatus.COMPLETED, [{"type": "text", "text": "ab"}])
    lifecycle.finish_run(work, last_seq=3, events=[], ending=ending)
    assert events_module.fold_events(timedelta(hours=1)) == 0
    assert events_module.fold_events(timedelta(0)) == 1
    assert list(RunEvent.objects.values_list("kind", flat=True)) == ["run.started", "complete"]
    caught_up = catch_up.read_catch_up(posted.run_id, epoch=1, seq=2, limit=100)
    assert caught_up.parts == [{"type": "text", "text": "ab"}]
    assert [kind for _, kind, _ in caught_up.events] == ["complete"]


def test_forgotten_runs_are_found_when_they_may_be_claimed(user: AbstractBaseUser) -> None:
    chat = NewChat(content="hi")
    first = posting.post_chat(
        user=user, chat=chat, limits=ChatLimits(), viewed_for=None, claim=None
    )
    post(user, "later", session_id=str(first.session_id))
    assert states.list_forgotten(timedelta(0)) == [first.run_id]
    assert states.list_forgotten(timedelta(hours=1)) == []


def test_unwatched_runs_are_found_after_the_grace(user: AbstractBaseUser) -> None:
    posted = post(user)
    assert states.list_unwatched(timedelta(0)) == [], "started by nobody who watches"
    lifecycle.mark_viewed([posted.session_id], timedelta(seconds=-5))
    assert states.list_unwatched(timedelta(0)) == [posted.run_id]
    assert states.list_unwatched(timedelta(minutes=1)) == []


def test_the_model_sees_the_branch_that_is_asked_on(user: AbstractBaseUser) -> None:
    first = post(user, "one")
    reply = [{"type": "text", "text": "1"}]
    items = [{"role": "assistant", "content": "1"}]
    ending = Ending(RunStatus.COMPLETED, reply, items)
    lifecycle.finish_run(claimed(first), last_seq=1, events=[], ending=ending)
    session_id = str(first.session_id)
    second = post(user, "two", session_id=session_id, parent_message_id=str(first.run.message_id))
    run = Run.objects.select_related("prompt").get(pk=second.run_id)
    assert [turn.text or turn.items for turn in turns_of(run)] == ["two", items, "one"]
    other = post(user, "another beginning", session_id=session_id, parent_message_id="")
    run = Run.objects.select_related("prompt").get(pk=other.run_id)
    assert [turn.text for turn in turns_of(run)] == ["another beginning"]


def test_unstorable_characters_are_replaced(user: AbstractBaseUser) -> None:
    post(user, "a\x00b\ud800c")
    assert Message.objects.get(role="user").text == "a\ufffdb\ufffdc"
