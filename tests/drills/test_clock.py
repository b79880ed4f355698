"""Two servers whose clocks do not agree: leases go by the database's."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.drills.conftest import SETTINGS, TAKEOVER_S, Cluster, drill_site
from tests.support.client import ChatClient
from tests.support.kept import converge
from tests.support.provider import Gate, Provider, Reply, words
from tests.support.servers import Postgres
from tests.support.site import Site, User

LEASE_S = float(SETTINGS["LEASE_S"])


@pytest.fixture
def ahead(cluster: Cluster, provider: Provider, postgres: Postgres) -> Iterator[Site]:
    """A third server on the same database, two minutes ahead of the others."""
    shared = {name: cluster.one.env[name] for name in ("DATABASE_URL", "REDIS_URL")}
    module = "tests.support.ahead_settings"
    with drill_site(provider, postgres, DJANGO_SETTINGS_MODULE=module, **shared) as site:
        yield site


async def test_no_lease_is_thought_to_have_ended(
    cluster: Cluster, ahead: Site, provider: Provider
) -> None:
    """Replies that take longer than a lease, one at each server, and each followed at the other."""
    long = Reply(words(40), delay_s=1.2 * LEASE_S / 40)
    provider.queue(long, long)
    ann = cluster.ann

    async def is_followed(client: ChatClient, other: ChatClient, site: Site) -> None:
        accepted = await client.chat("Tell me of the mill")
        await other.resume(accepted["session_id"], rev=0)
        for end in await asyncio.gather(
            client.wait_end(accepted["run_id"]), other.wait_end(accepted["run_id"])
        ):
            assert end["content"] == long.text
            assert end["metadata"]["finish_reason"] == "completed"
            assert end["metadata"]["epoch"] == 1
        await converge(site, ann, accepted["session_id"], other)

    async with cluster.one.chat(ann) as near, ahead.chat(ann) as far:
        await asyncio.gather(is_followed(near, far, ahead), is_followed(far, near, cluster.one))


async def test_a_lease_that_ends_is_seen_to(
    cluster: Cluster, ahead: Site, provider: Provider
) -> None:
    """Whichever of them dies, the others take its reply over in time."""
    cluster.two.kill()
    ann = cluster.ann
    async with cluster.one.chat(ann) as follower:
        await taken_over(ahead, follower, ann, provider)
    await ahead.start_aside()
    async with ahead.chat(ann) as follower:
        await taken_over(cluster.one, follower, ann, provider)
        await cluster.one.start_aside()


async def taken_over(dying: Site, follower: ChatClient, user: User, provider: Provider) -> None:
    reply = Reply(words(30), gate=Gate(5))
    provider.queue(reply)
    async with dying.chat(user) as client:
        accepted = await client.chat("Tell me of the mill")
        await follower.resume(accepted["session_id"], rev=0)
        await follower.wait_text(accepted["run_id"], reply.start(5))
        dying.kill()
        end = await follower.wait_end(accepted["run_id"], within=TAKEOVER_S)
        assert end["content"] == reply.start(5)
        assert end["metadata"]["reason"] == "worker_lost"
        await client.wait_closed()
