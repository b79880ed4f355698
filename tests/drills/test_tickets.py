"""Tickets on real servers: one use, whoever tries at once and wherever."""

import asyncio

from realtime.protocol import CLOSE_NOT_AUTHENTICATED
from tests.drills.conftest import Cluster
from tests.support.client import open_chat
from tests.support.site import Site, User

TRIES = 50


def get_ticket(site: Site, user: User) -> str:
    answer = site.request("POST", "/api/ws-tickets/", user=user)
    assert answer.status == 201
    return str(answer.json()["ticket"])


async def enters(site: Site, ticket: str) -> bool:
    """Whether a socket is let in with the ticket."""
    async with open_chat(f"{site.ws_url}?token={ticket}") as client:
        await client.wait_until(lambda: client.frames or client.close_code)
        if client.frames:
            return True
        assert client.close_code == CLOSE_NOT_AUTHENTICATED
        return False


async def test_a_ticket_is_used_once(cluster: Cluster) -> None:
    """By one of 50 that try at once, in two processes."""
    ticket = get_ticket(cluster.one, cluster.ann)
    sites = [cluster.one, cluster.two] * (TRIES // 2)
    entered = await asyncio.gather(*(enters(site, ticket) for site in sites))
    assert sorted(entered) == [False] * (TRIES - 1) + [True]
