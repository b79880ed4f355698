"""Journals of runs at work, and the flusher that commits them together."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.utils import timezone

from conversations.changes import RunLostError
from conversations.queries import EventRow
from conversations.runs import events, states
from conversations.runs.events import Batch
from conversations.runs.inputs import Step
from conversations.runs.states import Claimed
from conversations.sessions.parts import PartsFolder
from realtime import dbpool
from realtime.channel_layer import Envelope, Publisher, run_frames
from realtime.conf import get_conf
from realtime.sockets.frames import event_frame
from realtime.tasks import Supervisor, describe
from realtime.telemetry import metrics

MERGED_KINDS = ("token", "reasoning.delta")

Wake = Callable[["Journal", bool], None]
Pending = tuple[str, dict[str, Any], Step | None]


class Journal:
    """The events of one claimed run until they are committed, and the parts of all of them.

    `folder` has these parts. `append` never waits. Adjacent text of one kind becomes one event.
    Each event calls `wake` with this journal and whether it must not wait for the interval: only
    the reply's first text, events with a step, and those for which a caller of `commit` waits.
    """

    def __init__(self, claimed: Claimed, wake: Wake) -> None:
        self.claimed = claimed
        self.folder = claimed.resumption.folder if claimed.resumption else PartsFolder()
        self.last_seq = claimed.last_seq
        self.first_token_at: datetime | None = claimed.run.first_token_at
        self.last_token_at: datetime | None = claimed.run.last_token_at
        self.beaten_at = time.monotonic()
        self.lost = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.in_doubt: Batch | None = None
        self._wake = wake
        self._pending: list[Pending] = []
        self.size = 0
        """Characters of text that are not committed."""
        self._waiting_since: float | None = None
        self._commits: list[tuple[int, asyncio.Future[None]]] = []
        self._cleared = asyncio.Event()
        self._closed = False

    def excuse(self, seconds: float) -> None:
        """Do not count these seconds in `waiting_s`: the event loop was blocked, not the database.

        At most all that has been counted.
        """
        if self._waiting_since is not None:
            self._waiting_since = min(self._waiting_since + seconds, time.monotonic())

    @property
    def is_dirty(self) -> bool:
        return bool(self._pending) or self.in_doubt is not None

    @property
    def waiting_s(self) -> float:
        """Seconds for which events, or a batch, have waited for a commit; 0.0 if none waits.

        Counted from the last commit, if that came after the oldest waiting event.
        """
        return 0.0 if self._waiting_since is None else time.monotonic() - self._waiting_since

    def append(self, kind: str, payload: dict[str, Any], step: Step | None = None) -> None:
        """Add an event, and apply it to `folder`; does nothing after `close`.

        Text that follows waiting text of the same kind is added to that event. `step` is committed
        with the event.
        """
        if self._closed:
            return
        self.folder.apply(kind, payload)
        first = kind == "token" and self.first_token_at is None
        if kind == "token":
            self.last_token_at = timezone.now()
            self.first_token_at = self.first_token_at or self.last_token_at
        if self._pending and kind in MERGED_KINDS and self._pending[-1][0] == kind:
            self._pending[-1][1]["delta"] += payload["delta"]
        else:
            self._pending.append((kind, dict(payload), step))
        self.size += len(payload.get("delta", ""))
        if self._waiting_since is None:
            self._waiting_since = time.monotonic()
        self._wake(self, first or step is not None)

    async def commit(self) -> None:
        """Wait until all events appended so far are committed.

        Raises `RunLostError` if the run is lost. Also after `close`, even if nothing waits, so that
        a tool that goes on after its run begins nothing new.
        """
        if self.lost.is_set() or self._closed:
            raise RunLostError
        if not self.is_dirty:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._commits.append((self._end_seq(), done))
        self._wake(self, True)
        await done

    def _end_seq(self) -> int:
        taken = self.in_doubt.next_seq if self.in_doubt else self.last_seq
        return taken + len(self._pending)

    def take(self) -> Batch:
        """Take all waiting events as one numbered batch, which is in doubt from now on.

        It may have no events: its commit then only renews the lease. Until `settle` or `lose`,
        further calls return the same batch. So a commit whose answer was lost is repeated
        unchanged, and recognized if it was written.
        """
        if self.in_doubt is None:
            self.in_doubt = self._batch(self.last_seq, self._pop())
            self._cleared.clear()
            if self._waiting_since is None:
                self._waiting_since = time.monotonic()
        return self.in_doubt

    async def cleared(self) -> None:
        """Wait until no batch is in doubt, or the run is lost."""
        if self.in_doubt is not None:
            await self._cleared.wait()

    def take_rest(self) -> list[EventRow]:
        """Take the events that no batch has taken, for the transaction that ends the run.

        Call it only when no batch is in doubt, as the events are numbered from `last_seq` + 1.
        Their steps are dropped.
        """
        return list(self._batch(self.last_seq, self._pop()).events)

    def _pop(self) -> list[Pending]:
        pending, self._pending = self._pending, []
        return pending

    def _batch(self, last_seq: int, pending: list[Pending]) -> Batch:
        run, numbered = self.claimed.run, list(enumerate(pending, last_seq + 1))
        events = [(seq, kind, payload) for seq, (kind, payload, _) in numbered]
        steps = {seq: step for seq, (_, _, step) in numbered if step is not None}
        return Batch(run.pk, run.claim, run.epoch, last_seq, events, steps)

    def settle(self) -> Batch:
        """Note that the batch in doubt is committed; return it. There must be one.

        Calls of `commit` return if all events that they wait for are committed now.
        """
        batch, self.in_doubt = self.in_doubt, None
        assert batch is not None
        self._cleared.set()
        self.last_seq = batch.next_seq
        self.beaten_at = time.monotonic()
        self.size = sum(len(payload.get("delta", "")) for _, payload, _ in self._pending)
        self._waiting_since = self.beaten_at if self._pending else None
        waiting, self._commits = self._commits, []
        for seq, done in waiting:
            if seq > self.last_seq:
                self._commits.append((seq, done))
            elif not done.done():
                done.set_result(None)
        return batch

    def lose(self) -> None:
        """Note that this worker has lost the run: set `lost`, and drop the batch in doubt.

        Calls of `commit` that wait raise `RunLostError`, and so do later ones.
        """
        self.in_doubt = None
        self._cleared.set()
        self.lost.set()
        self._refuse_commits()

    def close(self) -> None:
        """Ignore events from now on; calls of `commit` that wait raise `RunLostError`.

        A batch in doubt may still be settled, and events that wait may still be taken.
        """
        self._closed = True
        self._refuse_commits()

    def _refuse_commits(self) -> None:
        for _, done in self._commits:
            if not done.done():
                done.set_exception(RunLostError())


logger = logging.getLogger(__name__)

RETRY_PAUSE_S = 0.25
"""Seconds between two tries while the database is away."""

LOAD_FACTOR = 4
"""A commit may take a quarter of the time: a slow database widens the interval."""

HANG_S = 1.0
"""Seconds after which a tick no longer waits for its commit: other runs are committed beside it."""


class Flusher:
    """Commits and publishes the events of all runs that this process works on.

    It also renews their leases, and looks for requests to cancel them. Each commit is a task of its
    own. A journal is in at most one commit: its batch is committed again only after the commit
    before has returned. So a commit that hangs delays only its own runs, and these until they are
    dropped (`BUFFER_S`, `BUFFER_BYTES`).
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._journals: dict[UUID, Journal] = {}
        self._urgent = asyncio.Event()
        self._dirty = asyncio.Event()
        self._interval_s = get_conf().flush_interval_ms / 1000
        # At most half of the pool's threads, so that commits that hang never take all.
        self._places = asyncio.Semaphore(max(1, get_conf().db_threads // 2))
        self._tasks = Supervisor()
        self._in_flight: set[Journal] = set()
        self._suspects: set[Journal] = set()
        self._looking: asyncio.Task[None] | None = None

    def open(self, claimed: Claimed) -> Journal:
        """Open the journal of a run that this worker has just claimed.

        Its events are committed by `run` and its lease is renewed by `keep_alive`, until `close` or
        until the run is lost.
        """
        journal = Journal(claimed, self._wake)
        self._journals[claimed.run.pk] = journal
        return journal

    async def close(self, journal: Journal) -> None:
        """Wait until no batch of the journal is in doubt, then stop committing it.

        Its lease is no longer renewed either. Call `journal.close` first. Raises `RunLostError` if
        the run was lost: its batch in doubt was dropped, so the run must not be ended with the text
        in `folder`.
        """
        try:
            await journal.cleared()
        finally:
            self._journals.pop(journal.claimed.run.pk, None)
            self._suspects.discard(journal)
        if journal.lost.is_set():
            raise RunLostError

    def _wake(self, journal: Journal, urgent: bool) -> None:
        self._dirty.set()
        if urgent:
            self._urgent.set()

    async def run(self) -> None:
        """Commit events as they come, once per interval or sooner if urgent, until cancelled.

        The interval is `flush_interval_ms`, and up to `flush_interval_max_ms` while commits are
        slow. When it is cancelled, commits under way are cancelled too.
        """
        # The service may have been restarted: text may wait whose wake-up is lost.
        self._dirty.set()
        try:
            while True:
                await self._dirty.wait()
                await self._pause()
                self._dirty.clear()
                self._urgent.clear()
                await self._tick()
        finally:
            await self._tasks.stop()

    async def _pause(self) -> None:
        """Let text gather for one interval; urgent events end the wait."""
        try:
            async with asyncio.timeout(self._interval_s):
                await self._urgent.wait()
        except TimeoutError:
            return

    async def _tick(self) -> None:
        """Commit all that waits; waits for the commit for `HANG_S` at most."""
        started = time.monotonic()
        commits = self._begin_commits(j for j in self._journals.values() if j.is_dirty)
        if not commits:
            return
        # The first group has no suspects unless there are only suspects; do not wait for these, as
        # each may fail again.
        await asyncio.wait(commits[:1], timeout=HANG_S)
        conf = get_conf()
        wanted = max(conf.flush_interval_ms / 1000, LOAD_FACTOR * (time.monotonic() - started))
        self._interval_s = min(wanted, conf.flush_interval_max_ms / 1000)

    async def keep_alive(self) -> None:
        """Renew leases, look for cancel requests and drop overdue journals, until cancelled.

        A journal is overdue if events have waited for `buffer_s`, or for `HANG_S` with more than
        `buffer_bytes` characters of text; its run is then lost. This starts tasks for the database
        but never awaits them: it must go on while a commit hangs.
        """
        while True:
            conf = get_conf()
            pause_s = min(conf.cancel_poll_s, conf.beat_s, conf.buffer_s)
            due = time.monotonic() + pause_s
            await asyncio.sleep(pause_s)
            for journal in self._journals.values():
                journal.excuse(max(0.0, time.monotonic() - due))
            self._drop_full()
            if not self._journals:
                continue
            if self._looking is None or self._looking.done():
                self._looking = self._tasks.start(
                    self._look_for_cancels(), "poll for cancel requests"
                )
            beaten = time.monotonic() - conf.beat_s
            self._begin_commits(j for j in self._journals.values() if j.beaten_at <= beaten)

    def _drop_full(self) -> None:
        """Give up runs whose text has waited for too long, even if a commit is under way."""
        conf = get_conf()
        for journal in list(self._journals.values()):
            waited_s = journal.waiting_s
            is_big = journal.size > conf.buffer_bytes and waited_s > HANG_S
            if is_big or waited_s > conf.buffer_s:
                run_id = journal.claimed.run.pk
                logger.error("run %s: dropped after %.0f s without a commit", run_id, waited_s)
                self._lose(journal)

    async def _look_for_cancels(self) -> None:
        try:
            found = await dbpool.read_first(states.list_cancelled, list(self._journals))
        except Exception as exc:
            logger.error("polling for cancel requests failed: %s", describe(exc))
            return
        for run_id in found:
            if journal := self._journals.get(run_id):
                journal.cancelled.set()

    def _begin_commits(self, journals: Iterable[Journal]) -> list[asyncio.Task[None]]:
        """Start commits of the journals that are in none: one for all, and one for each suspect."""
        free = {journal for journal in journals if journal not in self._in_flight}
        suspects = free & self._suspects
        groups = [list(free - suspects), *([journal] for journal in suspects)]
        self._in_flight |= free
        return [self._tasks.start(self._commit(group), "a commit") for group in groups if group]

    async def _commit(self, journals: list[Journal]) -> None:
        """Commit these journals together; after an error each is a suspect and committed alone."""
        try:
            async with self._places:
                # A journal may have been closed or dropped while this task waited for its place.
                await self._write([journal for journal in journals if self._holds(journal)])
            self._suspects.difference_update(journals)
        except Exception as exc:
            self._report(exc, journals)
            self._suspects.update(filter(self._holds, journals))
            await asyncio.sleep(RETRY_PAUSE_S)
        finally:
            self._in_flight.difference_update(journals)
            if any(journal.is_dirty and self._holds(journal) for journal in journals):
                self._dirty.set()

    def _holds(self, journal: Journal) -> bool:
        return self._journals.get(journal.claimed.run.pk) is journal

    def _report(self, exc: Exception, journals: list[Journal]) -> None:
        """Log in full when commits begin to fail, and only the type at further tries."""
        metrics.BATCHES_IN_DOUBT.inc(len(journals))
        is_known = self._suspects.issuperset(journals)
        detail = type(exc).__name__ if is_known else describe(exc)
        logger.error("commit of %d runs failed: %s", len(journals), detail)

    async def _write(self, journals: list[Journal]) -> None:
        if not journals:
            return
        batches = [journal.take() for journal in journals]
        lease = timedelta(seconds=get_conf().lease_s)
        began = time.monotonic()
        committed = await dbpool.write_first(events.commit_batches, batches, lease)
        metrics.observe_flush(time.monotonic() - began, sum(len(each.events) for each in batches))
        # Journals that were dropped meanwhile are no longer held: their result is ignored.
        for journal in filter(self._holds, journals):
            run_id = journal.claimed.run.pk
            if run_id not in committed.kept:
                logger.warning("run %s: claimed by another worker", run_id)
                self._lose(journal)
                continue
            if run_id in committed.cancelled:
                # Before settling: a tool that awaits this commit must not start after a cancel.
                journal.cancelled.set()
            self._settle(journal)

    def _settle(self, journal: Journal) -> None:
        batch = journal.settle()
        if batch.events:
            self._publisher.put([_envelope(journal, batch)])

    def _lose(self, journal: Journal) -> None:
        self._journals.pop(journal.claimed.run.pk, None)
        self._suspects.discard(journal)
        journal.lose()


def _envelope(journal: Journal, batch: Batch) -> Envelope:
    ref = journal.claimed.ref
    frames = [event_frame(ref, *event).encode() for event in batch.events]
    chars = sum(len(payload["delta"]) for _, kind, payload in batch.events if kind == "token")
    return run_frames(ref, batch.events[0][0], frames, chars=chars, ended=False)
