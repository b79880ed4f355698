"""Finds what has been left behind: orphaned, forgotten and unwatched runs, streamed text."""

import asyncio
import logging
import time
from datetime import timedelta

from conversations import actions, lifecycle, queries
from conversations.models import EndReason
from realtime import dbpool
from realtime.conf import get_conf
from realtime.executors import InlineExecutor
from realtime.tracebacks import describe

logger = logging.getLogger(__name__)


class Sweeper:
    """Every process has one; the database lets only one of them act on a run."""

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
        await self._recover(conf.max_attempts)
        for run_id in await dbpool.read(queries.list_forgotten, timedelta(seconds=conf.pickup_s)):
            self._executor.start(run_id)
        if conf.on_disconnect == "cancel":
            await self._cancel_unwatched(conf.disconnect_grace_s)
        await dbpool.write(lifecycle.fold_events, timedelta(seconds=conf.fold_after_s))

    async def _recover(self, max_attempts: int) -> None:
        for run_id in await dbpool.read(queries.list_orphans):
            logger.warning("run %s: its worker is gone", run_id)
            following = await dbpool.write(lifecycle.recover_run, run_id, max_attempts=max_attempts)
            if following is not None:
                self._executor.start(following)

    async def _cancel_unwatched(self, grace_s: float) -> None:
        """Viewers of before a restart get the time to come back."""
        if time.monotonic() - self._began < grace_s:
            return
        for run_id in await dbpool.read(queries.list_unwatched, timedelta(seconds=grace_s)):
            await dbpool.write(actions.stop_run, run_id, EndReason.DISCONNECT)
            self._executor.cancel(run_id)
