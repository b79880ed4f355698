"""`make cluster`: all processes of the site behind a proxy, killed, restarted and stopped."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.drills.conftest import SETTINGS
from tests.support.cluster import SITE_PROCESSES, Cluster, WarmCluster
from tests.support.diagnosis import find_fault
from tests.support.machine import scaled
from tests.support.processes import Child
from tests.support.provider import Gate, Provider, Reply, words
from tests.support.readers import PATIENCE_S, Reader, read_status
from tests.support.servers import scratch_dir
from tests.support.site import ROOT
from tests.support.waiting import Noticeboard, poll

READERS = 8
WORDS = words(30)
SHOWN = 3
ALL = (*SITE_PROCESSES, "postgres", "valkey", "proxy", "cluster")


@pytest.fixture(scope="module")
def cluster(shared_provider: Provider) -> Iterator[Cluster]:
    with scratch_dir("cluster") as folder:
        # Stopping waits for replies, which no test here leaves unfinished.
        changes = SETTINGS | {"DRAIN_S": f"{scaled(60):.0f}"}
        made = WarmCluster(folder, shared_provider.base_url, **changes)
        try:
            made.start()
            yield made
            assert "Traceback" not in made.log
        finally:
            made.process.kill()


@contextlib.asynccontextmanager
async def reading(cluster: Cluster, provider: Provider) -> AsyncIterator[tuple[list[Reader], Gate]]:
    """Yield readers in mid-stream, and the gate of their replies, which they read to the end."""
    board, gate = Noticeboard(), Gate(SHOWN)
    provider.script = lambda call: Reply(WORDS, delay_s=0.2, gate=gate)
    users = list(cluster.site.users.values())
    readers = [Reader(users[number % 2], f"Chat {number}", board) for number in range(READERS)]
    sending = asyncio.Semaphore(READERS)
    async with asyncio.TaskGroup() as group:
        for reader in readers:
            group.create_task(reader.read([cluster.site], sending))
        await board.until(lambda: all(reader.has_begun for reader in readers), within=PATIENCE_S)
        yield readers, gate


async def test_a_page_comes_by_the_proxy(cluster: Cluster, provider: Provider) -> None:
    site = cluster.site
    ann = site.users["ann"]
    async with site.chat_by_cookie(site.login(ann)) as client:
        accepted = await client.chat("Are you there?")
        assert (await client.wait_end(accepted["run_id"]))["content"] == "You said: Are you there?"


LOOPBACK = socket.inet_aton("127.0.0.1")[:: 1 if sys.byteorder == "big" else -1].hex().upper()


def listening_places(pid: int) -> Iterator[str]:
    """Yield the addresses on which a process listens, as Linux writes them."""
    opened = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            _, place, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in opened:
                yield place.partition(":")[0]


def test_nobody_elsewhere_reaches_it(cluster: Cluster) -> None:
    """Its Postgres and Valkey have no passwords."""
    names = [path.name for path in (cluster.folder / "pids").iterdir()]
    places = {place for pid in cluster.pids(*names) for place in listening_places(pid)}
    assert {"postgres", "valkey", "proxy"} <= set(names)
    assert places == {LOOPBACK}
    for name in ("env", "secret_key"):
        assert (cluster.folder / name).stat().st_mode & 0o077 == 0


@pytest.mark.timeout(240)
async def test_a_worker_and_a_web_process_are_killed(cluster: Cluster, provider: Provider) -> None:
    """Both come back; each reply ends once, and is what its reader was shown."""
    before = cluster.scrape()
    async with reading(cluster, provider) as (readers, gate):
        worker = cluster.find_worker(readers[0].run_id)
        killed = {name: cluster.pid(name) for name in (worker, "web-1")}
        for name in killed:
            cluster.kill(name)
        gate.open()
        for name in killed:
            await cluster.until(f"{name} is back")
    ends = [await read_status(cluster.site, reader, WORDS) for reader in readers]
    assert set(ends) <= {"completed", "interrupted"}
    assert {name: cluster.pid(name) for name in killed}.items().isdisjoint(killed.items())
    assert find_fault(before, cluster.scrape()) == ("a worker died", set(killed))


@pytest.mark.parametrize(
    ("name", "fault"),
    [("valkey", "the channel layer was away"), ("postgres", "the database was away")],
)
@pytest.mark.timeout(240)
async def test_its_servers_are_killed(
    cluster: Cluster, provider: Provider, name: str, fault: str
) -> None:
    """Replies go on with the same processes, whose metrics say which server it was."""
    before = cluster.scrape()
    async with reading(cluster, provider) as (readers, gate):
        with cluster.unattended():
            cluster.kill(name)
            gate.release(5)
            await asyncio.to_thread(
                poll, lambda: find_fault(before, cluster.scrape()) == (fault, set()), fault
            )
        gate.open()
        await cluster.until(f"{name} is back")
    # Leases may end while nobody can renew them.
    ends = {await read_status(cluster.site, reader, WORDS) for reader in readers}
    assert ends <= {"completed", "interrupted"}
    assert find_fault(before, cluster.scrape()) == (fault, set())


@pytest.mark.timeout(240)
async def test_a_rolling_restart_cuts_no_reply(cluster: Cluster, provider: Provider) -> None:
    before = cluster.pids(*SITE_PROCESSES)
    async with reading(cluster, provider) as (readers, gate):
        os.kill(cluster.pid("cluster"), signal.SIGUSR1)
        gate.open()
        await cluster.until("restarted one by one")
    ends = {await read_status(cluster.site, reader, WORDS) for reader in readers}
    assert ends == {"completed"}
    assert not set(before) & set(cluster.pids(*SITE_PROCESSES))


def test_its_folder_is_taken(cluster: Cluster) -> None:
    other = Child(cluster.argv, cluster.folder / "other.log", env=cluster.env, cwd=ROOT)
    with pytest.raises(AssertionError, match="another cluster runs already in"):
        other.start(lambda: False)
    assert "Traceback" not in other.log


def test_ctrl_c_leaves_no_process_behind(cluster: Cluster) -> None:
    """The last one here."""
    pids = cluster.pids(*ALL)
    cluster.process.signal(signal.SIGINT)
    assert cluster.process.wait(within=PATIENCE_S) == 0
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    assert "killed" not in cluster.log.rpartition("stopping")[2]
    assert list((cluster.folder / "pids").iterdir()) == []
