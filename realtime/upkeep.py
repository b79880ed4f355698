"""The background work for sessions: after a reply, never in the way of one."""

import logging
from collections.abc import Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from conversations.models import Run
from conversations.upkeep import begin_upkeep, end_upkeep
from realtime import dbpool, registry
from realtime.conf import get_conf
from realtime.supervisor import Supervisor
from realtime.tracebacks import describe

if TYPE_CHECKING:
    from realtime.providers import Provider

logger = logging.getLogger(__name__)

DURATION = timedelta(minutes=5)
"""Longer than it takes; a process that dies in it leaves it to the reply after that."""

TITLED_RUNS = 3
"""A title that could not be made after the first reply is tried after so many in all."""


class Upkeep:
    """Titles and summaries, made by the process that ended the reply before."""

    def __init__(self, provider: "Provider") -> None:
        # The Agents SDK, which takes long to import, is there already.
        from realtime.summaries import FULL

        self._full = FULL
        self._provider = provider
        self._tasks = Supervisor()

    def follow(self, run: Run, share: float) -> None:
        """Do what is due after a run, whose input took `share` of its room; returns at once."""
        wants_title = get_conf().titles == "model" and run.number <= TITLED_RUNS
        is_full = share >= self._full
        if wants_title or is_full:
            work = self._tend(run, wants_title=wants_title, is_full=is_full)
            self._tasks.start(work, f"upkeep of session {run.session_id}")

    async def _tend(self, run: Run, *, wants_title: bool, is_full: bool) -> None:
        from realtime.summaries import shorten
        from realtime.titles import make_title

        if not await dbpool.write(begin_upkeep, run.session_id, DURATION):
            return
        try:
            agent = registry.get_agent(run.agent)
            if wants_title:
                await self._attempt(run, make_title(run, agent, self._provider))
            if is_full:
                await self._attempt(run, shorten(run, agent, self._provider))
        finally:
            await dbpool.write(end_upkeep, run.session_id)

    async def _attempt(self, run: Run, work: Coroutine[Any, Any, None]) -> None:
        """What fails is tried again after the next reply."""
        try:
            await work
        except Exception as exc:
            logger.warning("session %s: upkeep failed: %s", run.session_id, describe(exc))

    async def settled(self) -> None:
        """Wait until nothing is under way."""
        await self._tasks.settled()

    async def stop(self) -> None:
        """Leave what is not done to the next reply."""
        await self._tasks.stop()
