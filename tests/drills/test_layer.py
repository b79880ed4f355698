"""The channel layer on Valkey: idle for long, and very many at once."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from tests.drills.conftest import drill_site
from tests.support.client import ChatClient, event, frame_of
from tests.support.kept import converge
from tests.support.provider import Provider
from tests.support.servers import Postgres, Valkey
from tests.support.site import Site, User, prepared_database
from tests.support.transcript import BaseClient

HEAD_INTERVAL_S = 16
HEARTBEATS = 3
"""From the first to the last of them more than 30 seconds pass."""
CROWD = 1_000
CROWD_S = 120


@pytest.fixture
def two_sites(
    provider: Provider, postgres: Postgres, valkey: Valkey
) -> Iterator[tuple[Site, Site]]:
    """Their clocks run slowly: what comes between two heads has come by the layer."""
    slow = {"HEAD_INTERVAL_S": str(HEAD_INTERVAL_S), "HEARTBEAT_S": str(HEAD_INTERVAL_S)}
    usual = dict.fromkeys(("LEASE_S", "BEAT_S", "SWEEP_S", "PICKUP_S"), "")
    with prepared_database(postgres) as url:
        changes = {"DATABASE_URL": url, "REDIS_URL": valkey.url, **slow, **usual}
        with (
            drill_site(provider, postgres, **changes) as idle,
            drill_site(provider, postgres, **changes) as busy,
        ):
            yield idle, busy


@pytest.mark.timeout(300)
async def test_a_thousand_at_once_while_another_server_is_idle(
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
            await pings(listener, since, HEARTBEATS - 1)
            # The last one has only just come: until the next head there is the layer alone.
            await pings(listener, len(listener.frames), 1)
            accepted = await speaker.chat("Still there?", session_id)
            await listener.wait_end(accepted["run_id"], within=HEAD_INTERVAL_S - 2)
        await converge(idle, ann, session_id, listener)


async def pings(client: ChatClient, since: int, count: int) -> None:
    """Wait until the server has sent so many heartbeats."""

    def heard() -> int:
        return sum(frame["type"] == "ping" for frame in client.frames[since:])

    await client.wait_until(lambda: heard() >= count, within=(count + 1) * HEAD_INTERVAL_S)


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
