"""Liveness, which looks at nothing, and readiness, which looks at everything a request needs."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.db import connection
from django.test import AsyncClient
from pydantic import SecretStr

from agentsite import health
from agentsite.settings import channel_layer
from realtime import dbpool, tasks
from realtime.channel_layer import Hub, Publisher
from realtime.process import Process, get_process
from realtime.providers.readiness import ModelReadiness
from realtime.sockets.limits import Places
from realtime.sockets.poller import Poller
from realtime.tasks import Supervisor
from realtime.telemetry import metrics
from realtime.work.executor import Sweeper
from realtime.work.journal import Flusher
from tests.support.inprocess import make_user, open_chat_here
from tests.support.servers import run_valkey
from tests.support.site_agents import echo_words
from tests.support.threads import in_thread
from tests.support.waiting import block_the_loop, time_limit

READY = {
    "ok": True,
    "database": True,
    "migrations": True,
    "layer": True,
    "failed_services": [],
    "draining": False,
}


@pytest.fixture(autouse=True)
async def own_look(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setattr(health, "MIGRATIONS", health.Look(health.Migrations().look))
    yield
    await in_thread(dbpool.shutdown)


async def ready() -> tuple[int, dict[str, Any]]:
    answer = await AsyncClient().get("/readyz/")
    assert "no-store" in answer["Cache-Control"]
    return answer.status_code, answer.json()


async def alive() -> bool:
    answer = await AsyncClient().get("/healthz/")
    assert answer.json() == {"ok": True}
    return bool(answer.status_code == 200)


@pytest.mark.django_db(transaction=True)
async def test_all_well() -> None:
    assert await ready() == (200, READY)
    assert await alive()


async def test_who_is_alive_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mark pytest-django refuses every query."""
    monkeypatch.setattr(dbpool, "read_first", None)
    assert await alive()


@pytest.mark.django_db(transaction=True)
async def test_database_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "NAME", "/nowhere/db.sqlite3")
    status, body = await ready()
    assert (status, body) == (503, READY | {"ok": False, "database": False, "migrations": False})
    assert await alive()


@pytest.mark.django_db(transaction=True)
async def test_database_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LOOK_TIMEOUT_S", 0.05)
    looks = []
    hanging = asyncio.Event()

    async def hang() -> bool:
        looks.append(1)
        return await hanging.wait()

    monkeypatch.setattr(health, "DATABASE", health.Look(hang))
    for _ in range(3):
        status, body = await ready()
        assert (status, body["database"]) == (503, False)
    # It was not asked anew each time.
    assert looks == [1]
    hanging.set()
    await asyncio.sleep(0)
    assert (await ready())[1]["database"]


async def test_a_blocked_loop_is_not_taken_for_a_service_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "LOOK_TIMEOUT_S", 0.2)

    async def answer_late() -> bool:
        block_the_loop(0.3)
        for _ in range(5):
            await asyncio.sleep(0)
        return True

    assert await health.Look(answer_late).answers()


@pytest.mark.django_db(transaction=True)
async def test_a_migration_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "is_migrated", lambda: False)
    assert await ready() == (503, READY | {"ok": False, "migrations": False})
    monkeypatch.undo()
    assert (await ready())[0] == 200


@pytest.mark.django_db(transaction=True)
async def test_redis_comes_and_goes(settings: Any) -> None:
    with run_valkey() as valkey:
        settings.CHANNEL_LAYERS = {"default": channel_layer(SecretStr(valkey.url))}
        assert await ready() == (200, READY)
        valkey.kill()
        assert await ready() == (503, READY | {"ok": False, "layer": False})
        assert await alive()


async def test_only_reading() -> None:
    for address in ("/healthz/", "/readyz/"):
        assert (await AsyncClient().post(address)).status_code == 405


async def test_not_while_draining(process: Process) -> None:
    await process.drain(0)
    assert await ready() == (503, READY | {"ok": False, "draining": True})
    assert await alive()


class Mortal:
    """A service that raises whenever a test says so; else it is the real one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: Any, name: str) -> None:
        self._serve = getattr(kind, name)
        self._kills: asyncio.Queue[None] = asyncio.Queue()
        self._started: asyncio.Queue[None] = asyncio.Queue()
        mortal = self

        async def serve(*args: Any) -> None:
            await mortal._live(*args)

        monkeypatch.setattr(kind, name, serve)

    async def _live(self, *args: Any) -> None:
        self._started.put_nowait(None)
        serving = asyncio.create_task(self._serve(*args))
        try:
            await self._kills.get()
            raise RuntimeError("a fault of its own")
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    async def die(self) -> None:
        """Raise once; the service has been started again after this."""
        async with time_limit("what is tested", within=20):
            await self._started.get()
            self._kills.put_nowait(None)
            await self._started.get()
        self._started.put_nowait(None)


SERVICES: dict[str, tuple[Any, str]] = {
    "flusher": (Flusher, "run"),
    "lease keeper": (Flusher, "keep_alive"),
    "loop monitor": (metrics, "measure_loop_lag"),
    "publisher": (Publisher, "run"),
    "hub": (Hub, "run"),
    "poller": (Poller, "run"),
    "heartbeat": (Poller, "beat"),
    "socket counter": (Places, "run"),
    "sweeper": (Sweeper, "run"),
    "model": (ModelReadiness, "run"),
}


def test_every_service_is_killed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[str] = []
    monkeypatch.setattr(Supervisor, "keep", lambda self, serve, name: kept.append(name))

    async def begin() -> None:
        Process("all").start()

    asyncio.run(begin())
    Process.current = None
    assert sorted(kept) == sorted(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
async def test_a_service_that_dies_is_started_again(
    name: str,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    transactional_db: None,
) -> None:
    settings.AGENTS = "tests.support.site_agents"
    monkeypatch.setattr(tasks, "RESTART_PAUSE_S", 0.01)
    mortal = Mortal(monkeypatch, *SERVICES[name])
    process = get_process()
    try:
        async with open_chat_here(await in_thread(make_user, "ada")) as client:
            for deaths in (1, 2):
                await mortal.die()
                accepted = await client.chat(f"hello {deaths}")
                end = await client.wait_end(accepted["run_id"])
                assert end["content"] == "".join(echo_words(f"hello {deaths}"))
                status, body = await ready()
                failed = [name] if deaths == 2 else []
                assert (status, body["failed_services"]) == (503 if failed else 200, failed)
                assert await alive()
        assert f"{name} died: RuntimeError: a fault of its own" in caplog.text
        # After a minute without a death it counts as well again.
        monkeypatch.setattr(tasks, "FAILED_WITHIN_S", 0)
        assert await ready() == (200, READY)
    finally:
        await process.drain(0)
        await process.stop()


async def test_a_service_whose_wait_was_cancelled_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "RESTART_PAUSE_S", 0.01)
    services, again = Supervisor(), asyncio.Event()
    starts: list[int] = []

    async def serve() -> None:
        starts.append(1)
        if len(starts) == 2:
            again.set()
            await asyncio.Event().wait()
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.cancel()
        await waiting

    services.keep(serve, "service")
    async with time_limit("what is tested", within=20):
        await again.wait()
        await services.stop()
