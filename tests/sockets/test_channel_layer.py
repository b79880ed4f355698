"""The channel layer: in memory, and on a real Valkey as REDIS_URL configures it."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import servers
import trustme
from channels.layers import get_channel_layer
from django.core.cache import caches
from pydantic import SecretStr

import agentsite.settings as site_settings
from agentsite import health
from realtime.channel_layer import CAPACITY, LocalLayer, Publisher, close_redis
from tests.support.processes import Child
from tests.support.relay import relay_to
from tests.support.servers import Valkey, scratch_dir
from tests.support.threads import in_thread
from tests.support.waiting import poll, time_limit

GROUPS = [f"session.{number}" for number in range(64)]


def configure(settings: Any, url: str) -> None:
    """Use this REDIS_URL from now on."""
    secret = SecretStr(url)
    settings.CHANNEL_LAYERS = {"default": site_settings.channel_layer(secret)}
    settings.CACHES = {"default": site_settings.cache(secret)}


@contextlib.asynccontextmanager
async def member(layer: Any, *groups: str) -> AsyncIterator[str]:
    """Yield a channel in these groups."""
    channel = await layer.new_channel()
    for group in groups:
        await layer.group_add(group, channel)
    try:
        yield channel
    finally:
        clients = [shard._redis for shard in getattr(layer, "_shards", ()) if shard._redis]
        await layer.flush()
        for client in clients:
            await close_redis(client)


async def assert_works() -> None:
    """The layer, the cache, and the client of counts and of the health check."""
    layer = get_channel_layer()
    async with member(layer, "session.x") as channel, time_limit("a message"):
        await layer.group_send("session.x", {"type": "hello"})
        assert await layer.receive(channel) == {"type": "hello"}
    await in_thread(caches["default"].set, "name", 7)
    assert await in_thread(caches["default"].get, "name") == 7
    cache: Any = caches["default"]
    for pool in cache._cache._pools.values():
        pool.disconnect()
        manager = getattr(pool, "sentinel_manager", None)
        for sentinel in manager.sentinels if manager else ():
            sentinel.close()
    assert await health.redis_answers()


async def test_a_full_channel_in_memory_loses_its_oldest_message() -> None:
    layer = LocalLayer()
    async with member(layer, "session.x") as channel:
        for number in range(CAPACITY + 2):
            await layer.group_send("session.x", {"type": "hello", "number": number})
        assert layer.dropped == 2
        received = [(await layer.receive(channel))["number"] for _ in range(CAPACITY)]
    assert received == list(range(2, CAPACITY + 2))


async def test_nothing_in_memory_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even while the machine sleeps: the process's channel would leave all its groups."""
    layer = LocalLayer()
    async with member(layer, "session.x") as channel:
        await layer.group_send("session.x", {"type": "hello", "number": 1})
        later = time.time() + 10 * 86_400
        monkeypatch.setattr(time, "time", lambda: later)
        assert (await layer.receive(channel))["number"] == 1
        await layer.group_send("session.x", {"type": "hello", "number": 2})
        assert (await layer.receive(channel))["number"] == 2


async def test_a_group_that_waits_holds_up_no_other(settings: Any, valkey: Valkey) -> None:
    """One connection is kept busy: what goes by the others arrives."""
    configure(settings, valkey.url)
    layer = get_channel_layer()
    shards = {group: layer._get_shard(layer._get_group_channel_name(group)) for group in GROUPS}
    slow = GROUPS[0]
    free = next(group for group in GROUPS if shards[group] is not shards[slow])
    async with member(layer, slow, free) as channel, shards[slow]._lock:
        publisher = Publisher()
        running = asyncio.create_task(publisher.run())
        publisher.put([(slow, {"type": "slow"}), (free, {"type": "free"})])
        async with time_limit("the message of the other group"):
            assert (await layer.receive(channel))["type"] == "free"
        running.cancel()
        await asyncio.wait([running])


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


async def test_tls(settings: Any, valkey: Valkey, authority: trustme.CA, tmp_path: Path) -> None:
    """As of a managed Redis: a server that is not of this authority is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    root = tmp_path / "root.pem"
    authority.cert_pem.write_to_path(root)
    async with relay_to(valkey.port, context) as (_, address):
        url = address.replace("http://", "rediss://") + "/0"
        configure(settings, f"{url}?ssl_ca_certs={root}")
        await assert_works()
        configure(settings, url)
        with pytest.raises(Exception, match="certificate verify failed"):
            await health.redis_answers()


class Sentinels:
    """A primary, its replica, and one Sentinel that watches them."""

    def __init__(self, folder: Path) -> None:
        ports = servers.free_ports(3)
        self.primary, self.replica, self.sentinel = ports
        self.url = f"redis+sentinel://127.0.0.1:{self.sentinel}/0?service=agentsite"
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {self.sentinel}\nbind 127.0.0.1\n"
            f"sentinel monitor agentsite 127.0.0.1 {self.primary} 1\n"
            "sentinel down-after-milliseconds agentsite 500\n"
        )
        commands = {port: servers.valkey(port, folder) for port in ports[:2]}
        program = commands[self.primary].argv[0]
        self.processes = {
            self.primary: Child.of(commands[self.primary], folder / "primary.log"),
            self.replica: Child(
                [*commands[self.replica].argv, "--replicaof", "127.0.0.1", str(self.primary)],
                folder / "replica.log",
            ),
            self.sentinel: Child([program, str(config), "--sentinel"], folder / "sentinel.log"),
        }


@pytest.fixture
def sentinels() -> Iterator[Sentinels]:
    with scratch_dir("sentinel") as folder:
        made = Sentinels(folder)
        try:
            for port, process in made.processes.items():
                process.start(partial(servers.listens, port))
            yield made
        finally:
            for process in made.processes.values():
                process.kill()


async def test_sentinels(settings: Any, sentinels: Sentinels) -> None:
    """The replica is used after the primary has died."""
    configure(settings, sentinels.url)
    await assert_works()
    sentinel = sentinels.processes[sentinels.sentinel]
    await in_thread(poll, lambda: "+slave" in sentinel.log, "the replica to be known")
    sentinels.processes[sentinels.primary].kill()
    await in_thread(poll, lambda: "+switch-master" in sentinel.log, "another primary")
    await assert_works()
