"""Commits that fail: nothing is lost, nothing is written twice, one bad run hurts no other."""

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import OperationalError

from conversations import queries
from conversations.changes import RunLostError
from conversations.models import Run, RunStatus
from conversations.runs import events, lifecycle
from conversations.runs.states import Claim, Claimed
from conversations.runs.usage import ChatLimits
from conversations.sessions import posting
from conversations.sessions.posting import NewChat
from realtime import dbpool
from realtime.channel_layer import Envelope
from realtime.work import journal as flusher_module
from realtime.work.journal import Flusher, Journal
from tests.support.inprocess import make_user
from tests.support.machine import scaled
from tests.support.threads import in_thread
from tests.support.waiting import block_the_loop, poll, time_limit

CLAIM = Claim(worker="w1", lease=timedelta(seconds=15), agent="echo", model="m")


class Collector:
    """In the place of the publisher: what was published."""

    def __init__(self) -> None:
        self.published: list[dict[str, Any]] = []

    def put(self, envelopes: list[Envelope]) -> None:
        self.published += [message for _, message in envelopes]


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
async def flusher(collector: Collector, settings: Any, transactional_db: None) -> Any:
    settings.REALTIME = {**settings.REALTIME, "flush_interval_ms": 1}
    running = Flusher(collector)  # type: ignore[arg-type]
    tasks = [asyncio.create_task(running.run()), asyncio.create_task(running.keep_alive())]
    yield running
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def claim_one(user: AbstractBaseUser) -> Claimed:
    posted = posting.post_chat(
        user=user,
        chat=NewChat(content="hi"),
        limits=ChatLimits(queue_max=1),
        viewed_for=None,
        claim=CLAIM,
    )
    assert posted.claimed is not None
    return posted.claimed


async def open_journal(flusher: Flusher, name: str = "ada") -> Journal:
    user = await in_thread(make_user, name)
    return flusher.open(await in_thread(claim_one, user))


def kept_text(journal: Journal) -> str:
    run = Run.objects.get(pk=journal.claimed.run.pk)
    return "".join(part["text"] for part in queries.read_parts(run).parts)


def fail_times(
    monkeypatch: pytest.MonkeyPatch, times: int, *, after_commit: bool = False
) -> Callable[[], int]:
    """Make the next commits fail, before or after they have taken effect; how many are left."""
    commit, left = events.commit_batches, [times]

    def failing(batches: Any, lease: timedelta) -> Any:
        if not left[0]:
            return commit(batches, lease)
        left[0] -= 1
        if after_commit:
            commit(batches, lease)
        raise OperationalError("the connection is gone")

    monkeypatch.setattr(events, "commit_batches", failing)
    return lambda: left[0]


@pytest.mark.parametrize("after_commit", [False, True])
async def test_a_failed_commit_is_cleared_up(
    flusher: Flusher,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    after_commit: bool,
) -> None:
    journal = await open_journal(flusher)
    left = fail_times(monkeypatch, 2, after_commit=after_commit)
    for word in ("one ", "two ", "three"):
        journal.append("token", {"delta": word})
        await journal.commit()
    assert left() == 0
    assert await in_thread(kept_text, journal) == "one two three"
    firsts = [message["first"] for message in collector.published]
    sizes = [len(message["frames"]) for message in collector.published]
    assert firsts[0] == 2
    assert [first + size for first, size in zip(firsts, sizes, strict=True)][:-1] == firsts[1:]


async def test_text_gathers_into_one_event(flusher: Flusher, collector: Collector) -> None:
    journal = await open_journal(flusher)
    for word in ("a", "b", "c"):
        journal.append("token", {"delta": word})
    await journal.commit()
    assert len(collector.published) == 1
    assert collector.published[0]["chars"] == 3
    assert journal.last_seq == 2


async def test_a_run_that_was_taken_publishes_nothing(
    flusher: Flusher, collector: Collector
) -> None:
    journal = await open_journal(flusher)
    await Run.objects.filter(pk=journal.claimed.run.pk).aupdate(claim=9)
    journal.append("token", {"delta": "stale"})
    with pytest.raises(RunLostError):
        await journal.commit()
    assert journal.lost.is_set()
    assert collector.published == []


async def test_one_bad_run_does_not_hold_up_the_others(
    flusher: Flusher, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.REALTIME = {**settings.REALTIME, "buffer_s": 0.5}
    bad, good = await open_journal(flusher, "ada"), await open_journal(flusher, "bob")
    commit = events.commit_batches

    def refuse_bad(batches: Any, lease: timedelta) -> Any:
        if any(batch.run_id == bad.claimed.run.pk for batch in batches):
            raise OperationalError("this one cannot be written")
        return commit(batches, lease)

    monkeypatch.setattr(events, "commit_batches", refuse_bad)
    bad.append("token", {"delta": "x"})
    good.append("token", {"delta": "y"})
    async with time_limit("a loss and a commit"):
        await good.commit()
        await bad.lost.wait()
    assert await in_thread(kept_text, good) == "y"


async def test_a_silent_run_keeps_its_lease_and_sees_its_cancel(
    flusher: Flusher, settings: Any
) -> None:
    settings.REALTIME = {**settings.REALTIME, "beat_s": 0.05, "cancel_poll_s": 0.05}
    journal = await open_journal(flusher)
    run_id = journal.claimed.run.pk
    first = (await Run.objects.aget(pk=run_id)).lease_until
    await in_thread(
        posting.cancel_run,
        user=await in_thread(lambda: Run.objects.get(pk=run_id).owner),
        session_id=str(journal.claimed.run.session_id),
    )
    async with time_limit("the cancel"):
        await journal.cancelled.wait()
    await in_thread(poll, lambda: Run.objects.get(pk=run_id).lease_until != first, "a new lease")


@pytest.fixture
def seldom_beating(settings: Any) -> None:
    """So that no beat commits what has been left behind."""
    settings.REALTIME = {**settings.REALTIME, "beat_s": 3_600}


@pytest.mark.usefixtures("seldom_beating")
async def test_what_cannot_be_published_stops_no_later_commit(
    flusher: Flusher, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = await open_journal(flusher)
    put = collector.put

    def put_second(envelopes: list[Envelope]) -> None:
        monkeypatch.setattr(collector, "put", put)
        raise ValueError("no frame")

    monkeypatch.setattr(collector, "put", put_second)
    fail_times(monkeypatch, 1, after_commit=True)
    async with time_limit("two commits"):
        for word in ("one ", "two"):
            journal.append("token", {"delta": word})
            await journal.commit()
    assert await in_thread(kept_text, journal) == "one two"
    assert [message["first"] for message in collector.published] == [3]


async def test_closing_does_not_wait_for_the_commits_of_others(
    flusher: Flusher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the end of many replies at once would stand before the leases of all others."""
    quiet, busy = await open_journal(flusher, "ada"), await open_journal(flusher, "bob")
    commit, began, release = events.commit_batches, threading.Event(), threading.Event()

    def held(batches: Any, lease: timedelta) -> Any:
        began.set()
        release.wait(scaled(60))
        return commit(batches, lease)

    monkeypatch.setattr(events, "commit_batches", held)
    busy.append("token", {"delta": "x"})
    await in_thread(began.wait, scaled(60))
    async with time_limit("the close of a quiet journal"):
        await flusher.close(quiet)
    closing = asyncio.create_task(flusher.close(busy))
    release.set()
    await closing
    assert await in_thread(kept_text, busy) == "x"


async def test_closing_leaves_the_rest_for_the_end(flusher: Flusher) -> None:
    journal = await open_journal(flusher)
    journal.append("token", {"delta": "x"})
    await flusher.close(journal)
    rest = journal.take_rest()
    ending = lifecycle.Ending(RunStatus.COMPLETED, journal.folder.close())
    await in_thread(
        lifecycle.finish_run,
        journal.claimed,
        last_seq=journal.last_seq,
        events=rest,
        ending=ending,
    )
    run = await Run.objects.select_related("reply").aget(pk=journal.claimed.run.pk)
    assert run.reply.text == "x"
    assert run.last_seq == 3


async def test_a_journal_is_closed_whatever_happens(
    flusher: Flusher, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that stayed open would keep its run's lease for ever."""

    def fail(envelopes: list[Envelope]) -> None:
        raise ValueError("no frame")

    journal = await open_journal(flusher)
    monkeypatch.setattr(collector, "put", fail)
    fail_times(monkeypatch, 1, after_commit=True)
    journal.append("token", {"delta": "x"})
    await journal.commit()
    journal.append("token", {"delta": "y"})
    journal.take()
    async with time_limit("what is tested", within=10):
        await flusher.close(journal)
    assert not flusher._holds(journal)


class HungCommits:
    """Commits that hold any of some runs hang until they are released; then they take effect."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *journals: Journal) -> None:
        self.began = threading.Event()
        self.release = threading.Event()
        self._runs = {journal.claimed.run.pk for journal in journals}
        self._commit = events.commit_batches
        monkeypatch.setattr(events, "commit_batches", self._hang)

    def _hang(self, batches: Any, lease: timedelta) -> Any:
        if self._runs.intersection(batch.run_id for batch in batches):
            self.began.set()
            self.release.wait(timeout=scaled(60))
        return self._commit(batches, lease)


@pytest.fixture
def two_writers(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Postgres, where one thread that hangs is not the only one."""
    monkeypatch.setattr(dbpool, "_writers", dbpool._readers)
    monkeypatch.setattr(flusher_module, "HANG_S", 0.05)
    settings.REALTIME = {**settings.REALTIME, "cancel_poll_s": 0.02, "buffer_s": 0.3}


@pytest.mark.usefixtures("two_writers")
async def test_a_commit_that_hangs_costs_its_own_runs_alone(
    flusher: Flusher, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, other = await open_journal(flusher, "ada"), await open_journal(flusher, "bob")
    hung = HungCommits(monkeypatch, stuck)
    try:
        stuck.append("token", {"delta": "x"})
        assert await in_thread(hung.began.wait, scaled(60))
        waiting = asyncio.create_task(stuck.commit())
        async with time_limit("what is tested", within=10):
            # While the commit hangs: its run is dropped, and another one is committed.
            await stuck.lost.wait()
            with pytest.raises(RunLostError):
                await waiting
            other.append("token", {"delta": "y"})
            await other.commit()
        assert not hung.release.is_set()
    finally:
        hung.release.set()
    assert await in_thread(kept_text, other) == "y"
    # What it commits in the end belongs to nobody here, and is published by nobody.
    await in_thread(poll, lambda: kept_text(stuck) == "x", "the hung commit")
    async with time_limit("what is tested", within=10):
        await flusher.close(other)
    assert [message["run_id"] for message in collector.published] == [str(other.claimed.run.pk)]


@pytest.mark.usefixtures("two_writers")
async def test_a_silent_run_is_closed_while_its_lease_cannot_be_renewed(
    flusher: Flusher, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REALTIME = {**settings.REALTIME, "beat_s": 0.02}
    journal = await open_journal(flusher)
    hung = HungCommits(monkeypatch, journal)
    try:
        assert await in_thread(hung.began.wait, scaled(60))
        async with time_limit("what is tested", within=10):
            # And is not ended as if all of its text were committed.
            with pytest.raises(RunLostError):
                await flusher.close(journal)
    finally:
        hung.release.set()


@pytest.mark.usefixtures("two_writers")
async def test_hung_commits_leave_threads_for_others(
    flusher: Flusher, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("ada", "bob", "cid", "dan", "eve", "fay")
    journals = [await open_journal(flusher, name) for name in names]
    flusher._suspects.update(journals)  # so that each is committed alone
    hung = HungCommits(monkeypatch, *journals)
    try:
        for journal in journals:
            journal.append("token", {"delta": "x"})
        assert await in_thread(hung.began.wait, scaled(60))
        assert await dbpool.read_first(Run.objects.count) == len(names)
        async with time_limit("what is tested", within=10):
            await asyncio.gather(*(journal.lost.wait() for journal in journals))
    finally:
        hung.release.set()


async def test_a_commit_that_came_to_nothing_known_is_cancelled_all_the_same(
    flusher: Flusher, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """It was committed, its answer was lost, and the run was to be cancelled by then."""
    settings.REALTIME = {**settings.REALTIME, "cancel_poll_s": 3_600, "beat_s": 3_600}
    journal = await open_journal(flusher)
    run = journal.claimed.run
    fail_times(monkeypatch, 1, after_commit=True)
    await Run.objects.filter(pk=run.pk).aupdate(cancel_requested_at=run.created_at)
    journal.append("token", {"delta": "x"})
    await journal.commit()
    assert journal.cancelled.is_set()


async def test_a_blocked_loop_is_not_taken_for_a_database_that_hangs(
    flusher: Flusher, settings: Any
) -> None:
    settings.REALTIME = {**settings.REALTIME, "buffer_s": 0.4, "cancel_poll_s": 0.05}
    # Its pauses begin with these settings.
    await asyncio.sleep(0.6)
    journal = await open_journal(flusher)
    journal.append("token", {"delta": "x"})
    block_the_loop(0.6)
    await journal.commit()
    assert await in_thread(kept_text, journal) == "x"
