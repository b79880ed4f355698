"""`RUN_EXECUTOR=procrastinate`: ready runs and upkeep are jobs in Postgres, which workers take.

A job only delivers a run to a worker. The run's row decides by claim and lease whether a worker may
work on it, and the sweeper recovers it if the worker dies. So a job that is lost, doubled or left
by a dead worker only costs time.

Jobs of upkeep are the work itself: titles, summaries, folding, purging and the erasure of accounts.
Each may be done twice without harm. One that fails, or whose worker dies, is done again: an erasure
until it has succeeded, others up to `UPKEEP_ATTEMPTS` times.
"""

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ObjectDoesNotExist
from django.db import transaction
from django.db.models import ProtectedError, RestrictedError
from procrastinate import App, PsycopgConnector, RetryStrategy
from procrastinate.contrib.django import app as django_app
from procrastinate.contrib.django import connector_params
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException, UniqueViolation
from procrastinate.jobs import DeleteJobCondition, Job, Status
from procrastinate.manager import JobManager
from procrastinate.worker import Worker
from psycopg_pool import AsyncConnectionPool

from conversations.models import Run
from conversations.people import privacy
from conversations.queries import get_run
from conversations.runs import states
from conversations.runs.states import Claim, Claimed
from conversations.runs.usage import count_at_work
from realtime import dbpool
from realtime.conf import get_conf
from realtime.providers.readiness import ModelReadiness
from realtime.tasks import describe
from realtime.work.executor import DueUpkeep, InlineExecutor, fold
from realtime.work.journal import Flusher

logger = logging.getLogger(__name__)

RUN_QUEUE = "runs"
RUN_TASK = "realtime.run"
UPKEEP_QUEUE = "background"
"""Not "upkeep", as in the version before: its workers would delete jobs whose tasks they lack."""

TEND_TASK = "realtime.tend"
ERASE_TASK = "realtime.erase"
FOLD_TASK = "realtime.fold"
FOLD_CRON = "* * * * *"
FOLD_STEPS = 1_000
"""The most steps of one job, which takes a few milliseconds for each."""

PURGE_TASK = "realtime.purge"
PURGE_CRON = "17 4 * * *"

UPKEEP_ATTEMPTS = 5
UPKEEP_RETRY_S = 60
"""Seconds until a job that failed is done again; for an erasure so many more at each attempt."""

POLL_S = 0.5
"""Seconds between two polls for jobs, beside notifications: Procrastinate's worker misses a
notification that comes while it looks for jobs.
"""

HEARTBEAT_S = 5.0
STALLED_S = 30.0
"""Seconds without a heartbeat after which a worker's jobs are deleted or given to others."""

RESTART_PAUSE_S = 1.0
POOL_SIZE = 4
POOL_TIMEOUT_S = 5.0

LOWEST_PRIORITY = -100
TEND_PRIORITY = LOWEST_PRIORITY - 1
"""Titles and summaries wait behind all runs."""

UPKEEP_PRIORITY = 1
"""What must be done however many runs wait."""


def defer(run: Run) -> None:
    """Add a job for a ready run, in the current transaction; does nothing if one waits already.

    The more sessions of the run's user have a queued or running run now, the lower its priority,
    from 0 down to `LOWEST_PRIORITY`: a user's first run comes before the second runs of all others.
    """
    others = count_at_work(run.owner_id, 1 - LOWEST_PRIORITY) - 1
    job = django_app.configure_task(
        RUN_TASK, queue=RUN_QUEUE, queueing_lock=str(run.pk), priority=-max(others, 0)
    )
    with suppress(AlreadyEnqueued), transaction.atomic():
        job.defer(run_id=str(run.pk))


def _defer_undelivered(age: timedelta) -> None:
    for run in states.list_undelivered(age):
        defer(run)


def _defer_tending(run: Run, due: DueUpkeep) -> None:
    """Add a job for what is due after `run`; does nothing if one for the same waits already."""
    name = f"session {run.session_id}"
    job = django_app.configure_task(
        TEND_TASK,
        queue=UPKEEP_QUEUE,
        lock=name,
        # One that waits for a title does not replace one for a summary.
        queueing_lock=f"{name} {due.wants_title:d}{due.wants_summary:d}",
        priority=TEND_PRIORITY,
    )
    with suppress(AlreadyEnqueued), transaction.atomic():
        job.defer(run_id=str(run.pk), **asdict(due))


@transaction.atomic
def defer_erasure(user: AbstractBaseUser, *, by: AbstractBaseUser) -> None:
    """Disable an account, and add the job that erases it with all its data for the staff `by`.

    Adds no job if one waits already.
    """
    privacy.disable_user(user)
    name = f"account {user.pk}"
    job = django_app.configure_task(
        ERASE_TASK, queue=UPKEEP_QUEUE, lock=name, queueing_lock=name, priority=UPKEEP_PRIORITY
    )
    with suppress(AlreadyEnqueued), transaction.atomic():
        job.defer(user_id=str(user.pk), by_id=str(by.pk))


class HandedBackError(Exception):
    """Raised by a job whose worker drains, so that Procrastinate gives it to another worker."""


class UnfinishedError(Exception):
    """Raised by a job of upkeep that is to be repeated later; what went wrong is in the log."""


class Jobs(JobManager):
    """Procrastinate's jobs, of which one that is to be retried never keeps its lock in vain."""

    async def retry_job(self, job: Job, *args: Any, **kwargs: Any) -> None:
        """Queue a job again; delete it if one with its `queueing_lock` waits, which does the same.

        Procrastinate would leave it as it is, and nothing behind its lock would begin.
        """
        try:
            await super().retry_job(job, *args, **kwargs)
        except UniqueViolation:
            await self.finish_job(job, status=Status.FAILED, delete_job=True)


def _is_repeated(job: Job) -> bool:
    """Return whether a dead worker's job is to be done again."""
    is_upkeep = job.queue == UPKEEP_QUEUE and job.attempts < UPKEEP_ATTEMPTS
    return is_upkeep or job.task_name == ERASE_TASK


class ProcrastinateExecutor(InlineExecutor):
    """Works on the runs whose jobs it takes from Procrastinate, up to `runs_per_worker` at once."""

    def __init__(self, flusher: Flusher, readiness: ModelReadiness) -> None:
        super().__init__(flusher, readiness)
        self._concurrency = get_conf().runs_per_worker
        # Places for runs, not for jobs: runs go on when Procrastinate's worker is restarted.
        self._places = asyncio.Semaphore(self._concurrency)
        self._taker: Worker | None = None

    def offer_claim(self, agent: str | None) -> Claim | None:
        return None

    def enqueue(self, run_id: UUID, claimed: Claimed | None = None) -> None:
        """Do nothing: the transaction that made the run ready has added its job."""

    async def pick_up(self, age: timedelta) -> None:
        """Add jobs for up to 500 runs that can be claimed, and have waited for `age` without a job.

        That is longer than `age` since they were queued; a job that a worker has taken does not
        count. Also settles the jobs of dead workers, if this process takes jobs now: those of runs
        are deleted, since the run is found by its lease or as a ready one, and others done again.
        """
        await dbpool.write_soon(_defer_undelivered, age)
        if self._taker is not None:
            await self._settle_stalled(self._taker.app.job_manager)

    async def _settle_stalled(self, manager: JobManager) -> None:
        for job in await manager.get_stalled_jobs(seconds_since_heartbeat=STALLED_S):
            # Another sweeper may have settled it first.
            with suppress(ConnectorException):
                if _is_repeated(job):
                    await manager.retry_job(job)
                else:
                    await manager.finish_job(job, status=Status.FAILED, delete_job=True)

    def _follow_up(self, run: Run, due: DueUpkeep) -> None:
        """Add a job, also during a drain: another worker does it."""
        job = dbpool.write(_defer_tending, run, due)
        self._writes.start(job, f"upkeep of session {run.session_id}")

    async def run(self) -> None:
        """Take jobs until a drain.

        Procrastinate's worker ends when its connection fails. Runs at work then go on, and a new
        worker takes jobs after `RESTART_PAUSE_S` seconds.
        """
        while not self._draining:
            try:
                await self._take_jobs()
            except Exception as exc:
                logger.warning("the job queue is unavailable: %s", describe(exc))
            if not self._draining:
                await asyncio.sleep(RESTART_PAUSE_S)

    async def _take_jobs(self) -> None:
        pool = AsyncConnectionPool(
            kwargs=connector_params(),
            min_size=1,
            max_size=POOL_SIZE,
            timeout=POOL_TIMEOUT_S,
            check=AsyncConnectionPool.check_connection,
            open=False,
        )
        async with pool:
            app = self._make_app()
            await app.open_async(pool)
            if self._draining:
                return
            self._taker = Worker(
                app,
                queues=[RUN_QUEUE, UPKEEP_QUEUE],
                concurrency=self._concurrency,
                delete_jobs=DeleteJobCondition.ALWAYS,
                install_signal_handlers=False,
                shutdown_graceful_timeout=0,
                fetch_job_polling_interval=POLL_S,
                update_heartbeat_interval=HEARTBEAT_S,
                stalled_worker_timeout=STALLED_S,
            )
            try:
                await self._taker.run()  # type: ignore[no-untyped-call]
            finally:
                self._taker = None

    def _make_app(self) -> App:
        app = App(connector=PsycopgConnector())
        app.job_manager = Jobs(app.connector)
        retry = RetryStrategy(retry_exceptions={HandedBackError})
        app.task(name=RUN_TASK, queue=RUN_QUEUE, retry=retry)(self._deliver)
        retry = RetryStrategy(max_attempts=UPKEEP_ATTEMPTS, wait=UPKEEP_RETRY_S)
        app.task(name=TEND_TASK, queue=UPKEEP_QUEUE, retry=retry)(self._tend)
        # Not exponential: after some deploys the next attempt would be days away.
        always = RetryStrategy(wait=UPKEEP_RETRY_S, linear_wait=UPKEEP_RETRY_S)
        app.task(name=ERASE_TASK, queue=UPKEEP_QUEUE, retry=always)(_erase)
        for name, cron, work in ((FOLD_TASK, FOLD_CRON, _fold), (PURGE_TASK, PURGE_CRON, _purge)):
            task = app.task(
                name=name,
                queue=UPKEEP_QUEUE,
                retry=retry,
                priority=UPKEEP_PRIORITY,
                # One at a time of all workers, and one that waits.
                lock=name,
                queueing_lock=name,
            )
            app.periodic(cron=cron)(task(work))
        return app

    async def _tend(self, run_id: str, wants_title: bool, wants_summary: bool) -> None:
        """Make the title or the summary that is due after a run; nothing if that is gone.

        Raises `UnfinishedError` if a part is to be repeated, as `Upkeep.tend` says.
        """
        try:
            run = await dbpool.read(get_run, UUID(run_id))
        except ObjectDoesNotExist:
            return
        if not await self._upkeep.tend(run, DueUpkeep(wants_title, wants_summary)):
            raise UnfinishedError

    async def _deliver(self, run_id: str) -> None:
        """Work on a run to its end.

        The run goes on even if this job is cancelled with Procrastinate's worker.
        """
        await self._places.acquire()
        task = self._work_on(UUID(run_id))
        if task is None:
            self._places.release()
            if self._draining:
                raise HandedBackError
            return
        task.add_done_callback(lambda _: self._places.release())
        await asyncio.wait([task])

    async def drain(self, seconds: float) -> None:
        self._draining = True
        if self._taker is not None:
            self._taker.stop()  # type: ignore[no-untyped-call]
        await super().drain(seconds)


async def _fold(timestamp: int) -> None:
    """Fold the journals of ended runs, up to `FOLD_STEPS` steps."""
    await _logged("folding", fold(FOLD_STEPS))


async def _purge(timestamp: int) -> None:
    """Delete what has expired, as `manage.py purge` does."""
    await _logged("the purge", dbpool.read_aside(privacy.purge))


async def _erase(user_id: str, by_id: str) -> None:
    """Erase an account as `manage.py erase_user` does; one that others' rows protect stays."""
    try:
        work = dbpool.read_aside(privacy.erase_user_by_id, user_id, by_id=by_id)
        await _logged(f"the erasure of user {user_id}", work)
    except (ProtectedError, RestrictedError):
        logger.error("user %s: erased, but rows of another app keep the disabled account", user_id)


async def _logged(what: str, work: Awaitable[Any]) -> None:
    """Await work of a job; raise `UnfinishedError` for an error, whose message may quote a row."""
    try:
        await work
    except (ProtectedError, RestrictedError):
        raise
    except Exception as exc:
        logger.error("%s failed, and is tried again: %s", what, describe(exc))
        raise UnfinishedError from None
