"""A web process that works on nothing, and a worker that serves nobody."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Iterator

import psycopg
import pytest

from tests.drills.conftest import SETTINGS
from tests.support.processes import Child
from tests.support.provider import Gate, Provider, Reply, words
from tests.support.servers import Postgres, Valkey, scratch_dir
from tests.support.site import ROOT, Site, prepared_database, run_site
from tests.support.waiting import poll


@pytest.fixture
def web(postgres: Postgres, valkey: Valkey, provider: Provider) -> Iterator[Site]:
    changes = {"REDIS_URL": valkey.url, "OPENAI_BASE_URL": provider.base_url, "ROLE": "web"}
    with run_site(postgres, **SETTINGS, **changes) as site:
        yield site


@contextlib.contextmanager
def run_worker(site: Site) -> Iterator[Child]:
    with scratch_dir("worker") as work_dir:
        argv, env = ["manage.py", "work"], {**site.env, "ROLE": "worker"}
        worker = Child(argv, work_dir / "worker.log", env=env, cwd=ROOT, warm=True)
        worker.start(lambda: True)
        try:
            yield worker
        finally:
            worker.kill()


async def test_a_worker_answers_what_a_web_process_accepts(web: Site, provider: Provider) -> None:
    reply = Reply(words(30), gate=Gate(3))
    provider.queue(reply)
    async with web.chat(web.users["ann"]) as client:
        accepted = await client.chat("Tell me of the mill")
        assert accepted["outcome"] == "queued"
        with run_worker(web) as worker:
            await client.wait_text(accepted["run_id"], reply.start(3), within=60)
            await client.cancel(accepted["session_id"], run_id=accepted["run_id"])
            end = await client.wait_end(accepted["run_id"])
            assert end["content"] == reply.start(3)
            again = await client.chat("And now?", accepted["session_id"])
            assert (await client.wait_end(again["run_id"]))["type"] == "complete"
            assert worker.terminate(within=30) == 0


HangingWorker = Callable[[str], contextlib.AbstractAsyncContextManager[Child]]


@pytest.fixture
def hanging_worker(postgres: Postgres, valkey: Valkey, provider: Provider) -> HangingWorker:
    """A worker without time-outs that hangs in its database, in the middle of a reply."""

    @contextlib.asynccontextmanager
    async def hang(drain_s: str) -> AsyncIterator[Child]:
        reply = Reply(words(30), gate=Gate(3))
        provider.queue(reply)
        changes = {"REDIS_URL": valkey.url, "OPENAI_BASE_URL": provider.base_url, "ROLE": "web"}
        changes |= {"DB_LOCK_TIMEOUT_S": "0", "DB_STATEMENT_TIMEOUT_S": "0", "DRAIN_S": drain_s}
        with prepared_database(postgres) as url, contextlib.ExitStack() as stack:
            settings = {**SETTINGS, **changes, "DATABASE_URL": url}
            web = stack.enter_context(run_site(postgres, **settings))
            async with web.chat(web.users["ann"]) as client:
                accepted = await client.chat("Tell me of the mill")
                worker = stack.enter_context(run_worker(web))
                await client.wait_text(accepted["run_id"], reply.start(3), within=60)
            lock = stack.enter_context(psycopg.connect(url))
            lock.execute("LOCK TABLE conversations_runevent IN ACCESS EXCLUSIVE MODE")
            reply.open()
            await asyncio.to_thread(poll, lambda: is_hanging(url), "a commit to hang")
            yield worker

    return hang


def is_hanging(url: str) -> bool:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
    return row is not None and row[0] > 0


async def test_a_worker_that_hangs_ends_all_the_same(hanging_worker: HangingWorker) -> None:
    async with hanging_worker("0") as worker:
        assert await asyncio.to_thread(worker.terminate) == 0
        assert "shutdown: drain took longer" in worker.log


async def test_a_second_signal_ends_a_worker_at_once(hanging_worker: HangingWorker) -> None:
    async with hanging_worker("600") as worker:

        def ends() -> bool:
            if worker.is_running:
                with contextlib.suppress(ProcessLookupError):
                    worker.signal(signal.SIGTERM)
            return not worker.is_running

        await asyncio.to_thread(poll, ends, "the end")
        assert worker.wait() == 1
        assert "exiting at once: received a second signal" in worker.log
