"""Tasks with an owner: each is referenced, its death is logged, and it is cancelled at the end."""

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from typing import Any

from realtime.tracebacks import describe

logger = logging.getLogger(__name__)

RESTART_PAUSE_S = 1.0
"""Before a service that died is started again; doubled with each further death of late."""

RESTART_PAUSE_MAX_S = 15.0

FAILED_WITHIN_S = 60.0
"""A service that has died twice within this counts as failed."""


class Supervisor:
    """A set of background tasks."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._deaths: defaultdict[str, deque[float]] = defaultdict(deque)

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run a task once."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def keep(self, serve: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Run a service: it is started again, after a pause, whenever it raises.

        One that returns has nothing to do and is left alone. `serve` must not rely on what an
        earlier run of it has left half done.
        """
        self.start(self._keep(serve, name), name)

    async def _keep(self, serve: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        while True:
            try:
                await serve()
                return
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
                # Not this task was cancelled, but something that it waited for.
                logger.error("%s died: something it waited for was cancelled", name)
            except Exception as exc:
                logger.error("%s died: %s", name, describe(exc))
            self._deaths[name].append(time.monotonic())
            await asyncio.sleep(self._pause_s(name))

    def _pause_s(self, name: str) -> float:
        doubled: float = RESTART_PAUSE_S * 2 ** (self._count_deaths(name) - 1)
        return min(doubled, RESTART_PAUSE_MAX_S)

    def _count_deaths(self, name: str) -> int:
        """Those of late; earlier ones are forgotten."""
        deaths = self._deaths[name]
        while deaths and time.monotonic() - deaths[0] > FAILED_WITHIN_S:
            deaths.popleft()
        return len(deaths)

    @property
    def failed(self) -> list[str]:
        """The services that have died twice within `FAILED_WITHIN_S`, by name."""
        return sorted(name for name in list(self._deaths) if self._count_deaths(name) >= 2)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            logger.error("%s died: %s", task.get_name(), describe(exc))

    async def settled(self) -> None:
        """Wait for what is under way."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    async def stop(self) -> None:
        """Cancel what is left and wait for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
