"""Where runs are worked on: the seam between what makes a run ready and what works on it."""

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from django.conf import settings

from conversations import due_runs, lifecycle
from conversations.changes import RunLostError
from conversations.errors import AgentSiteError
from conversations.run_states import Claim, Claimed
from realtime import dbpool, registry
from realtime.conf import get_conf
from realtime.flusher import Flusher
from realtime.model_service import ModelReadiness
from realtime.supervisor import Supervisor
from realtime.tracebacks import describe
from realtime.upkeep import Upkeep

if TYPE_CHECKING:
    from realtime.runs import RunWork

logger = logging.getLogger(__name__)


class Executor(Protocol):
    """What a process tells of runs, on its event loop, once a transaction has committed."""

    def offer_claim(self, agent: str | None) -> Claim | None:
        """What a chat with `agent` needs to claim its run for this process in its transaction.

        None where that cannot be begun here at once: then the run becomes ready like others.
        """

    def enqueue(self, run_id: UUID, claimed: Claimed | None = None) -> None:
        """A run may be worked on; `claimed` with a claim of `offer_claim`."""

    def cancel(self, run_id: UUID) -> None:
        """Stop working on this run at once if that happens here.

        Elsewhere its worker's poll of the database sees the cancel.
        """

    async def run(self) -> None:
        """A service: take runs that are offered elsewhere; returns where none are."""

    async def drain(self, seconds: float) -> None:
        """Begin nothing new, let work go on for so long, then release the rest to others."""

    async def settled(self) -> None:
        """Wait until nothing is worked on, nor done after it."""

    async def close(self) -> None:
        """Close connections; drain first."""


class NoExecutor:
    """The executor of a process that works on no run: workers take or find them."""

    def offer_claim(self, agent: str | None) -> Claim | None:
        return None

    def enqueue(self, run_id: UUID, claimed: Claimed | None = None) -> None:
        """A worker is told by its job, or finds the run by polling."""

    def cancel(self, run_id: UUID) -> None:
        """Its worker is told by the channel layer, or its poll sees it."""

    async def run(self) -> None:
        """Nothing is taken here."""

    async def drain(self, seconds: float) -> None:
        """Nothing is begun here."""

    async def settled(self) -> None:
        """Nothing is begun here."""

    async def close(self) -> None:
        """Nothing is open."""


@dataclass
class _Job:
    """A run that this process deals with, from the moment it is told of it.

    `work` is there once the run is claimed. `again` says that it became ready while it was still
    dealt with: it is enqueued once more at the end.
    """

    task: asyncio.Task[None] | None = None
    work: "RunWork | None" = None
    is_waiting: bool = False
    again: bool = False

    def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()


class InlineExecutor:
    """Works on runs as tasks of this event loop; the database decides who may work on which."""

    def __init__(self, flusher: Flusher, readiness: ModelReadiness) -> None:
        # Imported with the first run: the Agents SDK takes more than a second.
        from realtime.providers import Provider
        from realtime.tool_servers import ToolServers

        self.worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"[:100]
        self._flusher = flusher
        self._provider = Provider(readiness)
        self._tool_servers = ToolServers()
        self._upkeep = Upkeep(self._provider)
        self._jobs: dict[UUID, _Job] = {}
        self._tasks = Supervisor()
        # Writes about the owner of a run, which must end before the process does.
        self._writes = Supervisor()
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def working(self) -> frozenset[UUID]:
        """The runs under way here."""
        return frozenset(run_id for run_id, job in self._jobs.items() if job.work)

    def offer_claim(self, agent: str | None) -> Claim | None:
        if self._draining:
            return None
        readiness = self._provider.readiness
        if not readiness.is_ready and registry.asks_settings(agent or ""):
            readiness.wake()
            return None
        return self._make_claim()

    def _make_claim(self) -> Claim:
        return Claim(
            worker=self.worker,
            lease=timedelta(seconds=get_conf().lease_s),
            agent=registry.default_agent(),
            model=settings.AGENT_MODEL,
            models=registry.own_models(),
        )

    def enqueue(self, run_id: UUID, claimed: Claimed | None = None) -> None:
        if claimed is not None and claimed.run.worker == self.worker:
            self._take(claimed)
        else:
            self._work_on(run_id)

    async def run(self) -> None:
        """Runs come by facts and by the sweeper."""

    async def pick_up(self, age: timedelta) -> None:
        """See to runs that have been ready for longer than `age`: whoever was told has gone."""
        for run_id in await dbpool.read(due_runs.list_forgotten, age):
            self.enqueue(run_id)

    def _work_on(self, run_id: UUID) -> asyncio.Task[None] | None:
        """Begin to claim a run and work on it; the task that does.

        None in a drain, and for a run that is dealt with here already: it is looked at once more
        at the end of that.
        """
        if job := self._jobs.get(run_id):
            job.again = True
            return None
        if self._draining:
            return None
        return self._begin(run_id, lambda job: self._claim_and_run(run_id, job))

    def _take(self, claimed: Claimed) -> None:
        """Work on a claim of this process; one that comes during a drain is released at once."""
        run_id = claimed.run.pk
        if self._draining:
            self._writes.start(self._release(run_id), f"release of run {run_id}")
        else:
            self._begin(run_id, lambda job: self._run(job, claimed))

    def _begin(
        self, run_id: UUID, work: Callable[[_Job], Coroutine[Any, Any, None]]
    ) -> asyncio.Task[None]:
        job = self._jobs[run_id] = _Job()
        self._idle.clear()
        job.task = self._tasks.start(self._deal_with(run_id, work(job)), f"run {run_id}")
        # A task that is cancelled before its first step runs no `finally` of its own.
        job.task.add_done_callback(lambda task: self._forget(run_id))
        return job.task

    async def _deal_with(self, run_id: UUID, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except RunLostError:
            logger.warning("run %s: lost to another worker", run_id)

    def _forget(self, run_id: UUID) -> None:
        job = self._jobs.pop(run_id)
        if job.again:
            self._work_on(run_id)
        if not self._jobs:
            self._idle.set()

    async def _claim_and_run(self, run_id: UUID, job: _Job) -> None:
        try:
            await self._wait_for_model(run_id, job)
        except AgentSiteError as exc:
            with suppress(RunLostError):
                await dbpool.write(lifecycle.refuse_run, run_id, exc.code)
            return
        if self._draining:
            return
        # Not cancelled with this task: a drain waits for it, and then knows what to release.
        claiming = self._writes.start(
            dbpool.write(lifecycle.claim_run, run_id, self._make_claim()), f"claim of {run_id}"
        )
        if (claimed := await asyncio.shield(claiming)) is not None:
            await self._run(job, claimed)

    async def _wait_for_model(self, run_id: UUID, job: _Job) -> None:
        """Return once the run's model is ready; raises `AgentSiteError(model_not_ready)`.

        The run stays queued meanwhile: its user may edit or cancel it, another process claim it.
        """
        readiness = self._provider.readiness
        if readiness.is_ready:
            return
        asks = registry.asks_settings(await dbpool.read(due_runs.get_agent, run_id))
        # A drain that began meanwhile has not stopped this job; there is no await before it may.
        if asks and not self._draining:
            job.is_waiting = True
            await readiness.wait()
            job.is_waiting = False

    async def _run(self, job: _Job, claimed: Claimed) -> None:
        from realtime.runs import RunWork

        job.work = RunWork(claimed, self._flusher, self._provider, self._tool_servers)
        await job.work.run()
        if not self._draining:
            self._upkeep.follow(claimed.run, job.work.context_share)

    def cancel(self, run_id: UUID) -> None:
        job = self._jobs.get(run_id)
        if job and job.work:
            job.work.journal.cancelled.set()
        elif job and job.is_waiting:
            job.stop()

    async def settled(self) -> None:
        await self._idle.wait()
        await self._writes.settled()
        await self._upkeep.settled()

    async def drain(self, seconds: float) -> None:
        self._draining = True
        for job in self._jobs.values():
            if job.is_waiting:
                job.stop()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            logger.warning("%d replies are cut off", len(self.working))
        cut = list(self._jobs)
        await self._upkeep.stop()
        await self._tasks.stop()
        await self._writes.settled()
        for run_id in cut:
            await self._release(run_id)

    async def _release(self, run_id: UUID) -> None:
        """Let others have a run of this worker; what cannot be written is found by its lease."""
        try:
            await dbpool.write(
                lifecycle.recover_run,
                run_id,
                max_attempts=get_conf().max_attempts,
                worker=self.worker,
            )
        except RunLostError:
            logger.debug("run %s: nothing to release", run_id)
        except Exception as exc:
            logger.error("run %s: not released: %s", run_id, describe(exc))

    async def close(self) -> None:
        await self._upkeep.stop()
        await self._tasks.stop()
        await self._writes.settled()
        await self._tool_servers.close()
        await self._provider.close()
