"""`RUN_EXECUTOR=procrastinate`: ready runs are jobs in Postgres, which workers take.

A job only delivers a run to a worker. The run's row decides by claim and lease whether a worker may
work on it, and the sweeper recovers it if the worker dies. So a job that is lost, doubled or left
by a dead worker only costs time.
"""

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from procrastinate import App, PsycopgConnector, RetryStrategy
from procrastinate.contrib.django import app as django_app
from procrastinate.contrib.django import connector_params
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
from procrastinate.jobs import DeleteJobCondition, Status
from procrastinate.worker import Worker
from psycopg_pool import AsyncConnectionPool

from conversations.models import Run
from conversations.people import privacy
from conversations.runs import states
from conversations.runs.states import Claim, Claimed
from conversations.runs.usage import count_at_work
from realtime import dbpool
from realtime.conf import get_conf
from realtime.providers.readiness import ModelReadiness
from realtime.tasks import describe
from realtime.work.executor import InlineExecutor
from realtime.work.journal import Flusher

logger = logging.getLogger(__name__)

RUN_QUEUE = "runs"
RUN_TASK = "realtime.run"
UPKEEP_QUEUE = "upkeep"
PURGE_TASK = "realtime.purge"
PURGE_CRON = "17 4 * * *"

POLL_S = 0.5
"""Seconds between two polls for jobs, beside notifications: Procrastinate's worker misses a
notification that comes while it looks for jobs.
"""

HEARTBEAT_S = 5.0
STALLED_S = 30.0
"""Seconds without a heartbeat after which a worker's jobs are deleted."""

RESTART_PAUSE_S = 1.0
POOL_SIZE = 4
POOL_TIMEOUT_S = 5.0

LOWEST_PRIORITY = -100


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


class HandedBackError(Exception):
    """Raised by a job whose worker drains, so that Procrastinate gives it to another worker."""


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
        count. Also deletes the jobs of dead workers, if this process takes jobs now.
        """
        await dbpool.write_soon(_defer_undelivered, age)
        if self._taker is not None:
            await self._delete_stalled(self._taker.app)

    async def _delete_stalled(self, app: App) -> None:
        """Delete jobs of dead workers; the sweeper finds their runs by lease or as ready ones."""
        manager = app.job_manager
        for job in await manager.get_stalled_jobs(seconds_since_heartbeat=STALLED_S):
            # Another sweeper may have deleted it first.
            with suppress(ConnectorException):
                await manager.finish_job(job, status=Status.FAILED, delete_job=True)

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
        retry = RetryStrategy(retry_exceptions={HandedBackError})
        app.task(name=RUN_TASK, queue=RUN_QUEUE, retry=retry)(self._deliver)
        purge = app.task(name=PURGE_TASK, queue=UPKEEP_QUEUE, priority=1)(_purge)
        app.periodic(cron=PURGE_CRON)(purge)
        return app

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


async def _purge(timestamp: int) -> None:
    """Delete what has expired, as `manage.py purge` does; one worker does it once a day."""
    await dbpool.read_aside(privacy.purge)
