"""Finds what has been left behind: orphaned, forgotten and unwatched runs, streamed text."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from uuid import UUID

from conversations import actions, due_runs, folding, lifecycle
from conversations.changes import RunLostError
from conversations.models import EndReason
from realtime import dbpool
from realtime.conf import get_conf
from realtime.executors import InlineExecutor
from realtime.tracebacks import describe

logger = logging.getLogger(__name__)

FOLDS = 20
"""Pieces of streamed text that one round drops at most: more than a busy process writes."""


class Sweeper:
    """Every process that works on runs has one; the database lets only one of them move a run."""

    def __init__(self, executor: InlineExecutor) -> None:
        self._executor = executor
        self._began = time.monotonic()

    async def run(self) -> None:
        while True:
            try:
                await self.sweep()
            except Exception as exc:
                logger.error("sweep failed: %s", describe(exc))
            await asyncio.sleep(get_conf().sweep_s)

    async def sweep(self) -> None:
        """One round."""
        conf = get_conf()
        await _each(await dbpool.read(due_runs.list_orphans), self._recover)
        await _each(await dbpool.read(due_runs.list_expired), self._expire)
        await self._executor.pick_up(timedelta(seconds=conf.pickup_s))
        if conf.on_disconnect == "cancel":
            await self._cancel_unwatched(timedelta(seconds=conf.disconnect_grace_s))
        await self._fold(timedelta(seconds=conf.fold_after_s))

    async def _recover(self, run_id: UUID) -> None:
        if run_id in self._executor.working:
            # Its worker is this process: busy, so that a lease ran out, but not dead.
            return
        logger.warning("run %s: its worker is gone", run_id)
        await dbpool.write(lifecycle.recover_run, run_id, max_attempts=get_conf().max_attempts)

    async def _expire(self, run_id: UUID) -> None:
        await dbpool.write(lifecycle.expire_run, run_id)

    async def _cancel_unwatched(self, grace: timedelta) -> None:
        """Viewers of before a restart get the time to come back."""
        if time.monotonic() - self._began >= grace.total_seconds():
            await _each(await dbpool.read(due_runs.list_unwatched, grace), self._cancel)

    async def _cancel(self, run_id: UUID) -> None:
        await dbpool.write(actions.stop_run, run_id, EndReason.DISCONNECT)

    async def _fold(self, age: timedelta) -> None:
        """In small pieces, between which other writes have their turn."""
        for _ in range(FOLDS):
            if not await dbpool.write(folding.fold_events, age):
                return


async def _each(runs: Iterable[UUID], mend: Callable[[UUID], Awaitable[None]]) -> None:
    """One that cannot be helped is no hindrance to the others."""
    for run_id in runs:
        try:
            await mend(run_id)
        except RunLostError:
            # Another sweeper, or its own worker, was first.
            continue
        except Exception as exc:
            logger.error("run %s: left as it is: %s", run_id, describe(exc))
