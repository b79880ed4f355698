"""One for a process: commits the journals of all its runs, a transaction a tick, then publishes."""

import asyncio
import logging
import time
from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

from conversations import due_runs, journal_store
from conversations.journal_store import Batch
from conversations.run_states import Claimed
from realtime import dbpool
from realtime.conf import get_conf
from realtime.frames import event_frame
from realtime.groups import Envelope, run_frames
from realtime.journal import Journal
from realtime.publisher import Publisher
from realtime.tracebacks import describe

logger = logging.getLogger(__name__)

RETRY_PAUSE_S = 0.25
"""Between two tries while the database is away."""

LOAD_FACTOR = 4
"""A tick may use a quarter of the time: a slow database widens the interval."""


class Flusher:
    """Ticks while there is something to commit, a lease to renew or a cancel to look for."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._journals: dict[UUID, Journal] = {}
        self._urgent = asyncio.Event()
        self._dirty = asyncio.Event()
        self._ticking = asyncio.Lock()
        self._interval_s = get_conf().flush_interval_ms / 1000
        self._apart = False
        self._failing = False

    def open(self, claimed: Claimed) -> Journal:
        """A journal for a run that this worker has just claimed."""
        journal = Journal(claimed, self._wake)
        self._journals[claimed.run.pk] = journal
        return journal

    async def close(self, journal: Journal) -> None:
        """Commit no more of this journal; nothing of it is in doubt after this, or it is lost."""
        try:
            while journal.in_doubt is not None and not journal.lost.is_set():
                async with self._ticking:
                    # What it has waited for is the commit that was under way, in most cases.
                    if journal.in_doubt is not None:
                        await self._commit_all([journal])
        finally:
            self._journals.pop(journal.claimed.run.pk, None)

    def _wake(self, journal: Journal, urgent: bool) -> None:
        self._dirty.set()
        if urgent:
            self._urgent.set()

    async def run(self) -> None:
        """Commit text as it comes, until cancelled."""
        while True:
            await self._dirty.wait()
            await self._pause()
            self._dirty.clear()
            self._urgent.clear()
            await self._try_to_tick([j for j in self._journals.values() if j.is_dirty])

    async def _pause(self) -> None:
        """The time for text to gather; what is urgent does not wait."""
        try:
            async with asyncio.timeout(self._interval_s):
                await self._urgent.wait()
        except TimeoutError:
            return

    async def keep_alive(self) -> None:
        """Renew the leases of silent runs and look for cancels, until cancelled."""
        conf = get_conf()
        while True:
            await asyncio.sleep(min(conf.cancel_poll_s, conf.beat_s))
            if not self._journals:
                continue
            try:
                await self._look_for_cancels()
            except Exception as exc:
                logger.error("looking for cancels failed: %s", describe(exc))
            due = time.monotonic() - conf.beat_s
            await self._try_to_tick([j for j in self._journals.values() if j.beaten_at <= due])

    async def _look_for_cancels(self) -> None:
        for run_id in await dbpool.read_first(due_runs.list_cancelled, list(self._journals)):
            if journal := self._journals.get(run_id):
                journal.cancelled.set()

    async def _try_to_tick(self, journals: Iterable[Journal]) -> None:
        """Whatever is wrong with one commit, there are others."""
        try:
            await self._tick(journals)
        except Exception as exc:
            logger.error("a tick failed: %s", describe(exc))

    async def _tick(self, journals: Iterable[Journal]) -> None:
        async with self._ticking:
            live = [j for j in journals if not j.lost.is_set() and self._holds(j)]
            if not live:
                return
            started = time.monotonic()
            await self._commit_all(live)
            conf = get_conf()
            wanted = max(conf.flush_interval_ms / 1000, LOAD_FACTOR * (time.monotonic() - started))
            self._interval_s = min(wanted, conf.flush_interval_max_ms / 1000)

    def _holds(self, journal: Journal) -> bool:
        return self._journals.get(journal.claimed.run.pk) is journal

    async def _commit_all(self, journals: list[Journal]) -> None:
        """Together; after an error run by run, so that one bad batch cannot hold up the others."""
        groups = [[journal] for journal in journals] if self._apart else [journals]
        self._apart = False
        for group in groups:
            # One may have been closed while others were committed.
            held = [journal for journal in group if self._holds(journal)]
            try:
                await self._commit(held)
                self._failing = False
            except Exception as exc:
                self._report(exc, len(held))
                self._apart = True
                await self._resolve(held)
                await asyncio.sleep(RETRY_PAUSE_S)
                self._dirty.set()

    def _report(self, exc: Exception, runs: int) -> None:
        """In full once for each time that commits begin to fail."""
        known, self._failing = self._failing, True
        detail = type(exc).__name__ if known else describe(exc)
        logger.error("commit of %d runs: %s", runs, detail)

    async def _commit(self, journals: list[Journal]) -> None:
        if not journals:
            return
        batches = [journal.take() for journal in journals]
        lease = timedelta(seconds=get_conf().lease_s)
        committed = await dbpool.write_first(journal_store.commit_batches, batches, lease)
        for journal in journals:
            run_id = journal.claimed.run.pk
            if run_id not in committed.kept:
                self._lose(journal)
                continue
            self._settle(journal)
            if run_id in committed.cancelled:
                journal.cancelled.set()

    def _settle(self, journal: Journal) -> None:
        batch = journal.settle()
        if batch.events:
            self._publisher.put([_envelope(journal, batch)])
        if journal.is_dirty:
            self._dirty.set()

    def _lose(self, journal: Journal) -> None:
        logger.warning("run %s: taken by another worker", journal.claimed.run.pk)
        journal.lose()
        self._journals.pop(journal.claimed.run.pk, None)

    async def _resolve(self, journals: list[Journal]) -> None:
        """After an error: was it committed, is it to be tried again, or is the run lost?"""
        conf = get_conf()
        for journal in journals:
            batch = journal.in_doubt
            if batch is None:
                continue
            position = await self._read_position(batch)
            full = journal.is_full(size=conf.buffer_bytes, seconds=conf.buffer_s)
            if position == (batch.claim, batch.next_seq) and batch.events:
                self._settle(journal)
            elif full or position not in (None, (batch.claim, batch.last_seq)):
                self._lose(journal)

    async def _read_position(self, batch: Batch) -> tuple[int, int] | None:
        """None while the database is away."""
        try:
            return await dbpool.read_first(journal_store.read_position, batch.run_id)
        except Exception as exc:
            logger.warning("run %s: database away: %s", batch.run_id, type(exc).__name__)
            return None


def _envelope(journal: Journal, batch: Batch) -> Envelope:
    ref = journal.claimed.ref
    frames = [event_frame(ref, *event).encode() for event in batch.events]
    chars = sum(len(payload["delta"]) for _, kind, payload in batch.events if kind == "token")
    return run_frames(ref, batch.events[0][0], frames, chars=chars, ended=False)
