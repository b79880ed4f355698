"""A web process that works on nothing, and a worker that serves nobody."""

import contextlib
import sys
from collections.abc import Iterator

import pytest

from tests.drills.conftest import SETTINGS
from tests.support.processes import Child
from tests.support.provider import Gate, Provider, Reply, words
from tests.support.servers import Postgres, Valkey, scratch_dir
from tests.support.site import ROOT, Site, run_site


@pytest.fixture
def web(postgres: Postgres, valkey: Valkey, provider: Provider) -> Iterator[Site]:
    changes = {"REDIS_URL": valkey.url, "OPENAI_BASE_URL": provider.base_url, "ROLE": "web"}
    with run_site(postgres, **SETTINGS, **changes) as site:
        yield site


@contextlib.contextmanager
def run_worker(site: Site) -> Iterator[Child]:
    with scratch_dir("worker") as work_dir:
        argv = [sys.executable, "manage.py", "work"]
        worker = Child(argv, work_dir / "worker.log", env={**site.env, "ROLE": "worker"}, cwd=ROOT)
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
