"""The channel layer on Valkey: idle for long, and very many at once."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from tests.drills.conftest import drill_site
from tests.support.client import ChatClient, event, frame_of
from tests.support.kept import converge
from tests.support.machine import crowd
from tests.support.provider import Provider
from tests.support.servers import Postgres, Valkey
from tests.support.site import Site, User, prepared_database
from tests.support.transcript import BaseClient
from tests.support.waiting import TIMEOUT_S

HEAD_INTERVAL_S = 6
HEARTBEATS = 3
"""From the first to the last of them more time passes than redis-py's default time-out, 5 s."""
CROWD = crowd(1_000)
"""At its smallest it is as large as redis-py's default pool of connections."""
CROWD_S = 120
TRIES = 5


@pytest.fixture
def two_sites(
    provider: Provider, postgres: Postgres, valkey: Valkey
) -> Iterator[tuple[Site, Site]]:
    """Their clocks run slowly: what comes between two heads has come by the layer."""
    slow = {"HEAD_INTERVAL_S": str(HEAD_INTERVAL_S), "HEARTBEAT_S": str(HEAD_INTERVAL_S)}
    usual = dict.fromkeys(("LEASE_S", "BEAT_S", "SWEEP_S", "PICKUP_S"), "")
    with prepared_database(postgres) as url:
        usual["STARTS_WAITING"] = str(2 * CROWD)
        changes = {"DATABASE_URL": url, "REDIS_URL": valkey.url, **slow, **usual}
        with (
            drill_site(provider, postgres, **changes) as idle,
            drill_site(provider, postgres, **changes) as busy,
        ):
            yield idle, busy


@pytest.mark.crowd
@pytest.mark.timeout(300)
async def test_a_crowd_at_once_while_another_server_is_idle(
    two_sites: tuple[Site, Site],
) -> None:
    """The first server's one socket hears nothing for so long, and is still in its groups."""
    idle, busy = two_sites
    ann = idle.users["ann"]
    async with idle.chat(ann) as listener:
        session_id = (await listener.chat("Hello"))["session_id"]
        await listener.resume(session_id)
        await converge(idle, ann, session_id, listener)
        since = len(listener.frames)
        crowd = await asyncio.to_thread(busy.make_users, *(f"user{n}" for n in range(CROWD)))
        await all_talk(busy, crowd)
        async with busy.chat(ann) as speaker:
            await pings(listener, since, HEARTBEATS)
            assert await hears_by_the_layer(listener, speaker, session_id)
        await converge(idle, ann, session_id, listener)


async def hears_by_the_layer(listener: ChatClient, speaker: ChatClient, session_id: str) -> bool:
    """Whether the end of a reply comes between two heartbeats, which are as far apart as heads.

    On a slow machine one may come in between: then it is tried again.
    """
    for _ in range(TRIES):
        await pings(listener, len(listener.frames), 1)
        since = len(listener.frames)
        accepted = await speaker.chat("Still there?", session_id)
        await listener.wait_end(accepted["run_id"])
        if not any(frame["type"] == "ping" for frame in listener.frames[since:]):
            return True
    return False


async def pings(client: ChatClient, since: int, count: int) -> None:
    """Wait until the server has sent so many heartbeats."""

    def heard() -> int:
        return sum(frame["type"] == "ping" for frame in client.frames[since:])

    await client.wait_until(
        lambda: heard() >= count, within=(count + 1) * HEAD_INTERVAL_S + TIMEOUT_S
    )


async def all_talk(site: Site, users: list[User]) -> None:
    """All connect at once; each gets one reply."""
    async with contextlib.AsyncExitStack() as stack:
        clients = await asyncio.gather(
            *(stack.enter_async_context(site.chat(user)) for user in users)
        )
        await asyncio.gather(*(talk(client) for client in clients))


async def talk(client: ChatClient) -> None:
    """As somebody who knows `type` and `content` alone."""
    await client.wait_for(event("connected"), within=CROWD_S)
    await client.send({"type": "chat", "content": "Hello"})
    await client.wait_for(frame_of("complete"), within=CROWD_S)
    base = BaseClient()
    for frame in client.frames:
        base.apply(frame)
    assert (base.replies, base.errors) == (["You said: Hello"], [])
