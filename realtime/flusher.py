"""Commits what all runs of a process have to tell, together, and publishes it after that."""

import asyncio
import logging
import time
from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

from conversations import due_runs, journal_store
from conversations.changes import RunLostError
from conversations.journal_store import Batch
from conversations.run_states import Claimed
from realtime import dbpool
from realtime.conf import get_conf
from realtime.frames import event_frame
from realtime.groups import Envelope, run_frames
from realtime.journal import Journal
from realtime.publisher import Publisher
from realtime.supervisor import Supervisor
from realtime.tracebacks import describe

logger = logging.getLogger(__name__)

RETRY_PAUSE_S = 0.25
"""Between two tries while the database is away."""

LOAD_FACTOR = 4
"""A tick may use a quarter of the time: a slow database widens the interval."""

HANG_S = 1.0
"""A commit that takes longer is left to itself: other runs are committed beside it."""


class Flusher:
    """Ticks while there is something to commit, a lease to renew or a cancel to look for.

    Each commit is a task of its own. A journal is in at most one of them: its batch is handed in
    again only when the commit before has come back. A commit that hangs therefore holds up its own
    runs alone, and those only until they are dropped (`BUFFER_S`, `BUFFER_BYTES`).
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._journals: dict[UUID, Journal] = {}
        self._urgent = asyncio.Event()
        self._dirty = asyncio.Event()
        self._interval_s = get_conf().flush_interval_ms / 1000
        # Commits that hang never have all threads of the pool.
        self._places = asyncio.Semaphore(max(1, get_conf().db_threads // 2))
        self._tasks = Supervisor()
        self._in_flight: set[Journal] = set()
        self._suspects: set[Journal] = set()
        self._looking: asyncio.Task[None] | None = None

    def open(self, claimed: Claimed) -> Journal:
        """A journal for a run that this worker has just claimed."""
        journal = Journal(claimed, self._wake)
        self._journals[claimed.run.pk] = journal
        return journal

    async def close(self, journal: Journal) -> None:
        """Commit no more of this journal; nothing of it is in doubt after this.

        Raises `RunLostError` if it was lost: what was in doubt is dropped then, so that the run
        must not be ended with the text of its folder.
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
        """Commit text as it comes, until cancelled."""
        # After a restart there may be text whose wake-up was lost.
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
        """The time for text to gather; what is urgent does not wait."""
        try:
            async with asyncio.timeout(self._interval_s):
                await self._urgent.wait()
        except TimeoutError:
            return

    async def _tick(self) -> None:
        """One commit of all that waits; not waited for longer than `HANG_S`."""
        started = time.monotonic()
        commits = self._begin_commits(j for j in self._journals.values() if j.is_dirty)
        if not commits:
            return
        # Not for suspects, unless there is nothing else: each may fail again.
        await asyncio.wait(commits[:1], timeout=HANG_S)
        conf = get_conf()
        wanted = max(conf.flush_interval_ms / 1000, LOAD_FACTOR * (time.monotonic() - started))
        self._interval_s = min(wanted, conf.flush_interval_max_ms / 1000)

    async def keep_alive(self) -> None:
        """Renew leases, look for cancels, drop what waits for too long, until cancelled.

        It waits for no database: it must go on while a commit hangs.
        """
        while True:
            conf = get_conf()
            await asyncio.sleep(min(conf.cancel_poll_s, conf.beat_s, conf.buffer_s))
            self._drop_full()
            if not self._journals:
                continue
            if self._looking is None or self._looking.done():
                self._looking = self._tasks.start(self._look_for_cancels(), "looking for cancels")
            due = time.monotonic() - conf.beat_s
            self._begin_commits(j for j in self._journals.values() if j.beaten_at <= due)

    def _drop_full(self) -> None:
        """A run whose text cannot be committed ends here, however its commit stands."""
        conf = get_conf()
        for journal in list(self._journals.values()):
            waited_s = journal.waiting_s
            is_big = journal.size > conf.buffer_bytes and waited_s > HANG_S
            if is_big or waited_s > conf.buffer_s:
                run_id = journal.claimed.run.pk
                logger.error("run %s: not committed for %.0f s, dropped", run_id, waited_s)
                self._lose(journal)

    async def _look_for_cancels(self) -> None:
        try:
            found = await dbpool.read_first(due_runs.list_cancelled, list(self._journals))
        except Exception as exc:
            logger.error("looking for cancels failed: %s", describe(exc))
            return
        for run_id in found:
            if journal := self._journals.get(run_id):
                journal.cancelled.set()

    def _begin_commits(self, journals: Iterable[Journal]) -> list[asyncio.Task[None]]:
        """Commit those that are in no commit yet: together, but each suspect alone."""
        free = {journal for journal in journals if journal not in self._in_flight}
        suspects = free & self._suspects
        groups = [list(free - suspects), *([journal] for journal in suspects)]
        self._in_flight |= free
        return [self._tasks.start(self._commit(group), "a commit") for group in groups if group]

    async def _commit(self, journals: list[Journal]) -> None:
        """One commit of these; after an error each is a suspect, so that one bad batch is found."""
        try:
            async with self._places:
                # One may have been closed or dropped meanwhile.
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
        """In full when commits begin to fail, not with each further try."""
        is_known = self._suspects.issuperset(journals)
        detail = type(exc).__name__ if is_known else describe(exc)
        logger.error("commit of %d runs: %s", len(journals), detail)

    async def _write(self, journals: list[Journal]) -> None:
        if not journals:
            return
        batches = [journal.take() for journal in journals]
        lease = timedelta(seconds=get_conf().lease_s)
        committed = await dbpool.write_first(journal_store.commit_batches, batches, lease)
        # Those that were dropped while it hung are nobody's any more.
        for journal in filter(self._holds, journals):
            run_id = journal.claimed.run.pk
            if run_id not in committed.kept:
                logger.warning("run %s: taken by another worker", run_id)
                self._lose(journal)
                continue
            if run_id in committed.cancelled:
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
