"""Executors, background work after a reply, and the sweeper for runs without a live worker."""

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
from realtime.conf import get_conf, is_deferring
from realtime.providers.readiness import ModelReadiness
from realtime.tasks import Supervisor, describe, note_ids
from realtime.telemetry import metrics
from realtime.work.journal import Flusher

if TYPE_CHECKING:
    from realtime.providers.provider import Provider
    from realtime.work.run import RunWork


logger = logging.getLogger(__name__)

DURATION = timedelta(minutes=5)
"""How long one process has the upkeep of a session for itself: longer than it takes. If that
process dies, the upkeep follows a later reply.
"""

TITLED_RUNS = 3
"""A title is tried after the first so many replies."""


@dataclass(frozen=True)
class DueUpkeep:
    """What the session of a run needs after it: a title, a summary, or both."""

    wants_title: bool
    wants_summary: bool


class Upkeep:
    """Makes titles and summaries of sessions, in the process that has worked on the latest run."""

    def __init__(self, provider: "Provider") -> None:
        # Import here: the Agents SDK takes long to import, and is loaded already by now.
        from realtime.work.background import FULL

        self._full = FULL
        self._provider = provider
        self._tasks = Supervisor()

    def find_due(self, run: Run, share: float) -> DueUpkeep | None:
        """Return what is due after `run`; None if nothing is.

        A title is due within the first `TITLED_RUNS` runs if `titles` is `model`, a summary if
        `share`, of `RunWork.context_share`, is at least `FULL`.
        """
        wants_title = get_conf().titles == "model" and run.number <= TITLED_RUNS
        is_full = share >= self._full
        return DueUpkeep(wants_title, is_full) if wants_title or is_full else None

    def follow(self, run: Run, due: DueUpkeep) -> None:
        """Start a task that does what is due after `run`; never waits.

        The task does nothing if other upkeep of the session is under way, in any process. What
        fails is only logged, since the next reply tries again.
        """
        self._tasks.start(self._tend_once(run, due), f"upkeep of session {run.session_id}")

    async def _tend_once(self, run: Run, due: DueUpkeep) -> None:
        if not await dbpool.write(begin_upkeep, run.session_id, DURATION):
            return
        try:
            await self.tend(run, due)
        finally:
            await dbpool.write(end_upkeep, run.session_id)

    async def tend(self, run: Run, due: DueUpkeep) -> bool:
        """Do what is due after `run`; return False if a part of it is to be repeated soon.

        That is a part which failed before the model had begun to answer, and may succeed later:
        others would be paid for again. A failure is logged. What has been done before is not done
        again.
        """
        from realtime.work.background import make_title, shorten

        agent = registry.get_agent(run.agent)
        is_titled = is_shortened = True
        if due.wants_title:
            is_titled = await self._attempt(run, make_title(run, agent, self._provider))
        if due.wants_summary:
            is_shortened = await self._attempt(run, shorten(run, agent, self._provider))
        return is_titled and is_shortened

    async def _attempt(self, run: Run, work: Coroutine[Any, Any, None]) -> bool:
        from realtime.work.run_errors import is_passing

        try:
            await work
        except Exception as exc:
            logger.warning("session %s: upkeep failed: %s", run.session_id, describe(exc))
            return not is_passing(exc)
        return True

    async def settled(self) -> None:
        """Wait until all tasks have ended, tasks started meanwhile included."""
        await self._tasks.settled()

    async def stop(self) -> None:
        """Cancel all tasks and wait for them.

        After a later reply a summary that was cut off is due again if the input is still as large,
        but a title only within the first `TITLED_RUNS` runs, and only if no title call was stored.
        """
        await self._tasks.stop()


class Executor(Protocol):
    """What starts work on runs. All methods are called on the process's event loop."""

    @property
    def waiting(self) -> int:
        """How many runs of this process wait to be set up."""

    def offer_claim(self, agent: str | None) -> Claim | None:
        """Return the claim with which a chat's own transaction can give its run to this process.

        `agent` is the one that the chat names, or None. Returns None if this process works on no
        runs, drains, takes runs from a job queue, or has an embedded model that is not ready and
        that the agent needs. The run is then queued without a claim.
        """

    def enqueue(self, run_id: UUID, claimed: Claimed | None = None) -> None:
        """Start work on a run that a committed transaction has made ready.

        `claimed` is set if that transaction used the claim of `offer_claim`. Returns at once.
        During a drain no work is started, and a claimed run is released. Executors that work on no
        runs, or take them from a job queue, do nothing.
        """

    def cancel(self, run_id: UUID) -> None:
        """Have this process's work on a run stopped, without waiting for its end; else do nothing.

        Call it after the commit of the request to cancel, or of the run's end. A worker that this
        does not reach, or that is just claiming the run, finds the request by polling.
        """

    async def run(self) -> None:
        """Take runs from the job queue until a drain; return at once if there is no queue."""

    async def drain(self, seconds: float) -> None:
        """Start no more runs, give those at work `seconds` to end, then stop and release the rest.

        A released run is queued again, or ended with its committed parts, as `release_run` decides;
        if releasing fails, a sweeper recovers the run after its lease. Runs that wait for an
        embedded model stay queued. Upkeep that this process does is cancelled once the runs have
        ended or are stopped; what is done by jobs goes on in another worker.
        """

    async def settled(self) -> None:
        """Wait until no run is worked on, then for claims and releases, then for upkeep.

        A run that is started while it waits for the latter two may be missed.
        """

    async def close(self) -> None:
        """Cancel what still works, and close the connections to models and tool servers.

        Call `drain` first: nothing is released here.
        """


class NoExecutor:
    """The executor of a process that works on no runs; worker processes do."""

    waiting = 0

    def offer_claim(self, agent: str | None) -> Claim | None:
        return None

    def enqueue(self, run_id: UUID, claimed: Claimed | None = None) -> None:
        """Do nothing: a worker takes the run's job, or finds the run by polling."""

    def cancel(self, run_id: UUID) -> None:
        """Do nothing: the run's worker hears of it by the channel layer, or by polling."""

    async def run(self) -> None:
        """Return at once: this process takes no runs."""

    async def drain(self, seconds: float) -> None:
        """Return at once: no run is worked on here."""

    async def settled(self) -> None:
        """Return at once: no run is worked on here."""

    async def close(self) -> None:
        """Do nothing: there are no connections."""


@dataclass
class _Job:
    """A run that this process has taken on.

    `work` is set once the run is claimed. `again` says that the run became ready meanwhile: it is
    enqueued once more at the end.
    """

    task: asyncio.Task[None] | None = None
    work: "RunWork | None" = None
    is_waiting: bool = False
    again: bool = False

    def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()


class InlineExecutor:
    """Works on runs as tasks of this event loop, each run after it was claimed in the database."""

    def __init__(self, flusher: Flusher, readiness: ModelReadiness) -> None:
        # Import here: the Agents SDK takes more than a second.
        from realtime.providers.provider import Provider
        from realtime.work.tools import ToolServers

        self.worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"[:100]
        self._flusher = flusher
        self._provider = Provider(readiness)
        self._tool_servers = ToolServers()
        self._upkeep = Upkeep(self._provider)
        self._jobs: dict[UUID, _Job] = {}
        self._tasks = Supervisor()
        # Writes of claims and releases: not cancelled, since the process must wait for them.
        self._writes = Supervisor()
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def working(self) -> frozenset[UUID]:
        """The ids of the runs that this process has claimed and works on."""
        return frozenset(run_id for run_id, job in self._jobs.items() if job.work)

    @property
    def waiting(self) -> int:
        return self._provider.starts.waiting

    def offer_claim(self, agent: str | None) -> Claim | None:
        if self._draining:
            return None
        if not self._provider.readiness.is_ready and registry.asks_settings(agent or ""):
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
        """Return at once: runs come by `enqueue` and from the sweeper."""

    async def pick_up(self, age: timedelta) -> None:
        """Enqueue up to 500 runs that can be claimed and have been queued for longer than `age`.

        A run can be claimed if it is queued and the first unfinished one of its session. During a
        drain nothing is enqueued.
        """
        for run_id in await dbpool.read_soon(states.list_forgotten, age):
            self.enqueue(run_id)

    def _work_on(self, run_id: UUID) -> asyncio.Task[None] | None:
        """Start a task that claims a run and works on it; return the task.

        None during a drain, and for a run that this process has taken on already: it is enqueued
        once more when that ends.
        """
        if job := self._jobs.get(run_id):
            job.again = True
            return None
        if self._draining:
            return None
        return self._begin(run_id, lambda job: self._claim_and_run(run_id, job))

    def _take(self, claimed: Claimed) -> None:
        """Work on a run claimed by this process; release it at once during a drain."""
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
        job.task = self._tasks.start(self._run_job(run_id, work(job)), f"run {run_id}")
        # Not in a `finally` of the task: one cancelled before its first step never runs it.
        job.task.add_done_callback(lambda task: self._forget(run_id))
        return job.task

    async def _run_job(self, run_id: UUID, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except RunLostError:
            logger.warning("run %s: another worker or request was first", run_id)

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
                await dbpool.write_soon(lifecycle.refuse_run, run_id, exc.code)
            return
        if self._draining:
            return
        # A task of its own: a drain cancels this one, but must know whether the run was claimed, so
        # that it releases the run.
        claiming = self._writes.start(
            dbpool.write_soon(lifecycle.claim_run, run_id, self._make_claim()), f"claim of {run_id}"
        )
        if (claimed := await asyncio.shield(claiming)) is not None:
            await self._run(job, claimed)

    async def _wait_for_model(self, run_id: UUID, job: _Job) -> None:
        """Return once the run's model is ready; raises `AgentSiteError(model_not_ready)`.

        A model that has failed is started again, whatever process has accepted the run. The run
        stays queued meanwhile: its user may edit or withdraw it, another process may claim it.
        """
        readiness = self._provider.readiness
        if readiness.is_ready:
            return
        asks = registry.asks_settings(await dbpool.read_soon(states.get_agent, run_id))
        # A drain may have begun during the read above. It stops only jobs with `is_waiting`, so no
        # await may come between this check and setting it.
        if asks and not self._draining:
            job.is_waiting = True
            readiness.wake()
            await readiness.wait()
            job.is_waiting = False

    async def _run(self, job: _Job, claimed: Claimed) -> None:
        from realtime.work.run import RunWork

        note_ids(run_id=claimed.run.pk, session_id=claimed.run.session_id)
        job.work = RunWork(claimed, self._flusher, self._provider, self._tool_servers)
        try:
            await job.work.run()
        finally:
            job.work.trace.end()
        if due := self._upkeep.find_due(claimed.run, job.work.context_share):
            self._follow_up(claimed.run, due)

    def _follow_up(self, run: Run, due: DueUpkeep) -> None:
        if not self._draining:
            self._upkeep.follow(run, due)

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
            logger.warning("drain time is over: %d runs are stopped", len(self.working))
        cut = list(self._jobs)
        await self._upkeep.stop()
        await self._tasks.stop()
        # Before releasing: a run whose claim commits later would stay with this worker.
        await self._writes.settled()
        for run_id in cut:
            await self._release(run_id)

    async def _release(self, run_id: UUID) -> None:
        """Release a run of this worker; if that fails, a sweeper recovers it after its lease."""
        try:
            await dbpool.write_first(lifecycle.release_run, run_id, worker=self.worker)
        except RunLostError:
            logger.debug("run %s: nothing to release", run_id)
        except Exception as exc:
            logger.error("run %s: release failed: %s", run_id, describe(exc))

    async def close(self) -> None:
        await self._upkeep.stop()
        await self._tasks.stop()
        await self._writes.settled()
        await self._tool_servers.close()
        await self._provider.close()


FOLDS = 20
"""The most steps of folding in one sweep; even a busy process needs fewer."""


async def fold(steps: int) -> bool:
    """Fold journals of ended runs in at most `steps` transactions; return whether all are done.

    In small steps, so that other writes come between them. Those that ended within `fold_after_s`
    are left alone.
    """
    age = timedelta(seconds=get_conf().fold_after_s)
    for _ in range(steps):
        if not await dbpool.write(events.fold_events, age):
            return True
    return False


class Sweeper:
    """Recovers, expires, starts, cancels and folds runs of all processes; see `sweep`.

    Every process that works on runs has a sweeper; the moves in the database let only one of them
    act on a run.
    """

    def __init__(self, executor: InlineExecutor) -> None:
        self._executor = executor
        self._began = time.monotonic()

    async def run(self) -> None:
        """Call `sweep`, then wait `sweep_s` seconds, until cancelled; an error is only logged."""
        while True:
            try:
                await self.sweep()
            except Exception as exc:
                logger.error("sweep failed: %s", describe(exc))
            await asyncio.sleep(get_conf().sweep_s)

    async def sweep(self) -> None:
        """Do once what a sweeper does for the runs of all processes.

        In this order: recover runs whose lease has expired, except those that this process works
        on; end runs whose approval has expired; have the executor `pick_up` runs that nobody has
        claimed; cancel runs that nobody watches (only with `on_disconnect=cancel`, and only
        `disconnect_grace_s` after this sweeper was made); fold the journals of ended runs, in at
        most `FOLDS` steps, unless a job does that; count unfinished runs for the metrics.

        Where a run is recovered, ended or cancelled, an error is only logged, and the next run
        follows. Any other error is raised, and what comes after it is left to the next sweep.
        """
        conf = get_conf()
        await _each(await dbpool.read_soon(states.list_orphans), self._recover)
        await _each(await dbpool.read_soon(states.list_expired), self._expire)
        await self._executor.pick_up(timedelta(seconds=conf.pickup_s))
        if conf.on_disconnect == "cancel":
            await self._cancel_unwatched(timedelta(seconds=conf.disconnect_grace_s))
        if not is_deferring():
            await fold(FOLDS)
        metrics.observe_backlog(await dbpool.read(states.measure_backlog))

    async def _recover(self, run_id: UUID) -> None:
        if run_id in self._executor.working:
            # This process is its worker: too busy to renew the lease in time, but alive.
            return
        logger.warning("run %s: its lease has expired", run_id)
        metrics.LEASES_EXPIRED.inc()
        await dbpool.write_soon(lifecycle.recover_run, run_id, max_attempts=get_conf().max_attempts)

    async def _expire(self, run_id: UUID) -> None:
        await dbpool.write_soon(lifecycle.expire_run, run_id)

    async def _cancel_unwatched(self, grace: timedelta) -> None:
        """Cancel unwatched runs; not within `grace` of the start, so that viewers can reconnect."""
        if time.monotonic() - self._began >= grace.total_seconds():
            kept = registry.unwatched_agents()
            await _each(await dbpool.read_soon(states.list_unwatched, grace, kept), self._cancel)

    async def _cancel(self, run_id: UUID) -> None:
        await dbpool.write_soon(posting.stop_run, run_id, EndReason.DISCONNECT)


async def _each(runs: Iterable[UUID], mend: Callable[[UUID], Awaitable[None]]) -> None:
    """Apply `mend` to each run; a failure does not stop the others."""
    for run_id in runs:
        try:
            await mend(run_id)
        except RunLostError:
            # Another sweeper, or the run's own worker, was first.
            continue
        except Exception as exc:
            logger.error("run %s: sweep failed: %s", run_id, describe(exc))
