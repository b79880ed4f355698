"""Where runs are worked on, what follows their end, and the sweeper for those left behind."""

import asyncio
import logging
import os
import socket
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from django.conf import settings

from conversations.changes import RunLostError
from conversations.errors import AgentSiteError
from conversations.models import EndReason, Run
from conversations.runs import events, lifecycle, states
from conversations.runs.states import Claim, Claimed
from conversations.sessions import posting
from conversations.sessions.lists import begin_upkeep, end_upkeep
from realtime import dbpool, registry
from realtime.conf import get_conf
from realtime.providers.readiness import ModelReadiness
from realtime.tasks import Supervisor, describe
from realtime.work.journal import Flusher

if TYPE_CHECKING:
    from realtime.providers.provider import Provider
    from realtime.work.run import RunWork


logger = logging.getLogger(__name__)

DURATION = timedelta(minutes=5)
"""Longer than it takes; a process that dies in it leaves it to the reply after that."""

TITLED_RUNS = 3
"""A title that could not be made after the first reply is tried after so many in all."""


class Upkeep:
    """Titles and summaries, made by the process that ended the reply before."""

    def __init__(self, provider: "Provider") -> None:
        # The Agents SDK, which takes long to import, is there already.
        from realtime.work.background import FULL

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
        from realtime.work.background import make_title, shorten

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
        from realtime.providers.provider import Provider
        from realtime.work.tools import ToolServers

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
        for run_id in await dbpool.read(states.list_forgotten, age):
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
        asks = registry.asks_settings(await dbpool.read(states.get_agent, run_id))
        # A drain that began meanwhile has not stopped this job; there is no await before it may.
        if asks and not self._draining:
            job.is_waiting = True
            await readiness.wait()
            job.is_waiting = False

    async def _run(self, job: _Job, claimed: Claimed) -> None:
        from realtime.work.run import RunWork

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
        await _each(await dbpool.read(states.list_orphans), self._recover)
        await _each(await dbpool.read(states.list_expired), self._expire)
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
            await _each(await dbpool.read(states.list_unwatched, grace), self._cancel)

    async def _cancel(self, run_id: UUID) -> None:
        await dbpool.write(posting.stop_run, run_id, EndReason.DISCONNECT)

    async def _fold(self, age: timedelta) -> None:
        """In small pieces, between which other writes have their turn."""
        for _ in range(FOLDS):
            if not await dbpool.write(events.fold_events, age):
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
