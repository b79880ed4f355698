"""Drills that kill, stop or restart processes under a crowd."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any

import psycopg

from tests.cluster_drills.crowd import Crowd, described, percentile
from tests.cluster_drills.stage import Stage
from tests.support.cluster import SITE_PROCESSES, VALKEY_BACK, Cluster
from tests.support.processes import Child
from tests.support.servers import scratch_dir
from tests.support.site import ROOT
from tests.support.waiting import poll

OUTAGE_S = 5
STEADY_S = 4
"""Seconds of undisturbed streaming before and after a fault."""
STOPPED_S = 45


async def kill_processes(stage: Stage) -> str:
    """A worker and a web process at a time; only the cluster starts them again."""
    streams, kills = 100, stage.kills
    with scratch_dir("tools") as folder:
        crowd = Crowd(stage.cluster, streams, tokens=40, rate=2.5, tools=folder)
        started = time.monotonic()
        async with crowd.chatting():
            await asyncio.gather(
                _kill_in_turn(stage.cluster, "worker", kills // 2),
                _kill_in_turn(stage.cluster, "web", kills - kills // 2),
            )
        took = time.monotonic() - started
        ends = await crowd.check()
    return (
        f"{kills} kills in {took:.0f} s; {described(ends)}; each ended once, "
        "0 wrong texts, 0 tools run twice"
    )


async def _kill_in_turn(cluster: Cluster, kind: str, kills: int) -> None:
    """Kill the processes of a kind in turn, each when the one before is back."""
    for number in range(kills):
        name = f"{kind}-{1 + number % cluster.size}"
        back = f"{name} is back"
        count = cluster.log.count(back)
        cluster.kill(name)
        await cluster.until(back, count + 1)


async def stop_a_worker(stage: Stage) -> str:
    """SIGSTOP for longer than its lease, then SIGCONT."""
    cluster = stage.cluster
    crowd = Crowd(cluster, 20, tokens=40, rate=2)
    async with crowd.chatting():
        name, pid = "worker-1", cluster.pid("worker-1")
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(STOPPED_S)
            lost = _rows(cluster, pid)
        finally:
            os.kill(pid, signal.SIGCONT)
        noticed = "claimed by another worker"
        await asyncio.to_thread(poll, lambda: noticed in _log(cluster, name), "it to notice")
        await asyncio.sleep(STEADY_S)
        assert _rows(cluster, pid, *(row[0] for row in lost)) == lost
    ends = await crowd.check()
    assert cluster.pid(name) == pid
    return f"{len(lost)} lost replies, none written to afterwards; {described(ends)}"


def _rows(cluster: Cluster, pid: int, *ids: object) -> list[tuple[object, ...]]:
    """Return the ended runs that a worker had, as they are stored, with their events counted."""
    return cluster.ask(
        "SELECT r.id, row_to_json(r)::text,"
        " (SELECT count(*) FROM conversations_runevent AS e WHERE e.run_id = r.id)"
        " FROM conversations_run AS r WHERE (worker LIKE %s AND status = 'interrupted'"
        " AND cardinality(%s::uuid[]) = 0) OR id = ANY(%s::uuid[]) ORDER BY id",
        *(f"%-{pid}-%", list(ids), list(ids)),
    )


def _log(cluster: Cluster, name: str) -> str:
    return (cluster.folder / "logs" / f"{name}.log").read_text()


async def lose_valkey(stage: Stage) -> str:
    """Killed, away for five seconds, back and empty."""
    return await _outage(stage, lambda: stage.cluster.kill("valkey"), "valkey", _valkey_answers)


async def lose_postgres(stage: Stage) -> str:
    """Its backends are terminated; then it is restarted, away for five seconds."""

    def stop() -> None:
        os.kill(stage.cluster.pid("postgres"), signal.SIGINT)

    terminate = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )

    async def before() -> None:
        await asyncio.to_thread(stage.cluster.ask, terminate)
        await asyncio.sleep(STEADY_S)

    return await _outage(stage, stop, "postgres", _postgres_answers, before)


async def _outage(
    stage: Stage,
    end: Callable[[], None],
    name: str,
    answers: Callable[[Cluster], bool],
    before: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> str:
    cluster, site = stage.cluster, SITE_PROCESSES
    crowd, pids = Crowd(cluster, 100, tokens=40, rate=2), cluster.pids(*site)
    async with crowd.chatting():
        await asyncio.sleep(STEADY_S)
        if before is not None:
            await before()
        with cluster.unattended():
            end()
            await asyncio.sleep(OUTAGE_S)
        await asyncio.to_thread(poll, lambda: answers(cluster), f"{name} to answer")
        back = time.monotonic()
        await asyncio.sleep(20)
    ends = await crowd.check()
    assert cluster.pids(*site) == pids, "a process of the site was restarted"
    return (
        f"all text flowed {crowd.recovered_after_s(back):.1f} s after the return; {described(ends)}"
    )


def _valkey_answers(cluster: Cluster) -> bool:
    return VALKEY_BACK in cluster.log


def _postgres_answers(cluster: Cluster) -> bool:
    try:
        cluster.ask("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


async def restart_all(stage: Stage) -> str:
    """Web processes and workers one by one, as a deploy does."""
    cluster = stage.cluster
    crowd = Crowd(cluster, stage.streams, tokens=60, rate=2)
    before = cluster.pids(*SITE_PROCESSES)
    started = time.monotonic()
    async with crowd.chatting():
        await asyncio.sleep(STEADY_S)
        os.kill(cluster.pid("cluster"), signal.SIGUSR1)
        await cluster.until("restarted one by one")
        await asyncio.sleep(STEADY_S)
    took = time.monotonic() - started
    ends = await crowd.check()
    assert not set(before) & set(cluster.pids(*SITE_PROCESSES))
    still = crowd.stillness_s()
    return (
        f"{stage.streams} streams, {took:.0f} s; {described(ends)}; text of a reader stood still "
        f"at p50 {percentile(still, 0.5):.2f} s, p99 {percentile(still, 0.99):.2f} s, at most "
        f"{max(still):.2f} s"
    )


async def run_a_fast_clock(stage: Stage) -> str:
    """A third worker, two minutes ahead, takes its share and then dies."""
    cluster = stage.cluster
    env = {**cluster.site.env, "ROLE": "worker", "PGAPPNAME": "worker-ahead"}
    env["DJANGO_SETTINGS_MODULE"] = "tests.support.ahead_settings"
    ahead = Child(["manage.py", "work"], cluster.folder / "ahead.log", env=env, cwd=ROOT, warm=True)
    listening = "SELECT FROM pg_stat_activity WHERE application_name = %s AND query ~ '^LISTEN'"
    ahead.start(lambda: cluster.ask(listening, "worker-ahead"))
    try:
        crowd = Crowd(cluster, 30, tokens=40, rate=2)
        async with crowd.chatting():
            await asyncio.sleep(2 * 15)
        ends = await crowd.check()
        [(share, claims)] = cluster.ask(
            "SELECT count(*), max(claim) FROM conversations_run"
            " WHERE id = ANY(%s) AND worker LIKE %s",
            *([reader.run_id for reader in crowd.readers], f"%-{ahead.pid}-%"),
        )
        assert (claims, set(ends)) == (1, {"completed"})
        dying = Crowd(cluster, 30, tokens=40, rate=2)
        async with dying.chatting():
            ahead.kill()
        lost = await dying.check()
    finally:
        ahead.kill()
    return (
        f"it wrote {share} of {len(crowd.readers)} replies, none taken from it; "
        f"killed: {described(lost)}"
    )
