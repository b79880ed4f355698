"""Limits of sockets on two processes that share Redis."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from realtime.protocol import CLOSE_TOO_FAST
from tests.drills.conftest import TAKEOVER_S, Cluster, drill_site, revived
from tests.support.client import ChatClient
from tests.support.provider import Provider
from tests.support.servers import Postgres, Valkey
from tests.support.site import Site, User, prepared_database
from tests.support.waiting import time_limit

OF_USER, OF_ADDRESS = 3, 5


@pytest.fixture(scope="module")
def pair(shared_provider: Provider, postgres: Postgres, shared_valkey: Valkey) -> Iterator[Cluster]:
    """Two servers with room for a few sockets."""
    with prepared_database(postgres) as url:
        changes = {
            "DATABASE_URL": url,
            "REDIS_URL": shared_valkey.url,
            "SOCKETS_PER_USER": str(OF_USER),
            "SOCKETS_PER_ADDRESS": str(OF_ADDRESS),
        }
        with (
            drill_site(shared_provider, postgres, **changes) as one,
            drill_site(shared_provider, postgres, **changes) as two,
        ):
            yield Cluster(one, two, shared_valkey)


async def enter(stack: contextlib.AsyncExitStack, site: Site, user: User) -> ChatClient | None:
    """A socket that stays open with `stack`; None where it is refused."""
    client = await stack.enter_async_context(site.chat(user))
    await client.wait_until(lambda: client.frames or client.close_code)
    if client.frames:
        return client
    assert client.close_code == CLOSE_TOO_FAST
    return None


async def enter_at_last(stack: contextlib.AsyncExitStack, site: Site, user: User) -> ChatClient:
    """As soon as a place is free."""
    async with time_limit("a place", within=TAKEOVER_S):
        while (client := await enter(stack, site, user)) is None:  # noqa: ASYNC110 (what changes is in Redis)
            await asyncio.sleep(0.05)
    return client


async def test_of_a_user_and_of_an_address(pair: Cluster) -> None:
    """Whoever is refused, those that are open stay."""
    async with contextlib.AsyncExitStack() as stack, contextlib.AsyncExitStack() as later:
        sites = [pair.one, pair.two] * 2
        ann = [await enter(stack, site, pair.ann) for site in sites]
        assert [bool(it) for it in ann] == [True, True, True, False]
        ben = [await enter(later, site, pair.ben) for site in sites]
        assert [bool(it) for it in ben] == [True, True, False, False]
        await later.aclose()
        for client in ann[:3]:
            assert client is not None
            await client.ping()
        for _ in range(OF_ADDRESS - OF_USER):
            await enter_at_last(stack, pair.two, pair.ben)


async def test_all_at_once(pair: Cluster) -> None:
    async with contextlib.AsyncExitStack() as stack:
        await (await enter_at_last(stack, pair.one, pair.ann)).ping()
        tries = (enter(stack, site, pair.ann) for site in [pair.one, pair.two] * 6)
        opened = await asyncio.gather(*tries)
        assert sum(map(bool, opened)) == OF_USER - 1


async def test_a_process_that_dies_takes_its_counts_along(pair: Cluster) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(OF_USER):
            await enter_at_last(stack, pair.two, pair.ann)
        assert await enter(stack, pair.one, pair.ann) is None
        pair.two.process.kill()
        for _ in range(OF_USER):
            await enter_at_last(stack, pair.one, pair.ann)
        assert await enter(stack, pair.one, pair.ann) is None
    revived(pair.two)
