"""Postgres drops its connections, or is away for a while, in the middle of a reply."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.drills.conftest import Cluster, drill_site
from tests.support.client import frame_of
from tests.support.kept import converge
from tests.support.machine import scaled
from tests.support.provider import Gate, Provider, Reply, words
from tests.support.servers import Postgres, run_postgres
from tests.support.site import Site
from tests.support.waiting import poll


async def test_connections_dropped_in_mid_reply(
    cluster: Cluster, postgres: Postgres, provider: Provider
) -> None:
    reply = Reply(words(40), gate=Gate(3))
    provider.queue(reply)
    ann = cluster.ann
    async with cluster.one.chat(ann) as near, cluster.two.chat(ann) as far:
        accepted = await near.chat("Tell me of the mill")
        run_id, session_id = accepted["run_id"], accepted["session_id"]
        await asyncio.gather(near.resume(session_id), far.resume(session_id, rev=0))
        await far.wait_text(run_id, reply.start(3))
        for count in (13, 23, 33):
            postgres.terminate_backends()
            reply.release(10)
            for client in (near, far):
                await client.wait_text(run_id, reply.start(count))
        postgres.terminate_backends()
        reply.open()
        for client in (near, far):
            assert (await client.wait_end(run_id))["content"] == reply.text
        postgres.terminate_backends()
        again = await far.chat("Go on", session_id)
        assert (await near.wait_end(again["run_id"]))["content"] == "You said: Go on"
        await converge(cluster.one, ann, session_id, near, far)


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    with run_postgres() as running:
        yield running


@pytest.fixture
def patient_site(own_postgres: Postgres, provider: Provider) -> Iterator[Site]:
    """It keeps its runs for as long as its database is away here."""
    with drill_site(provider, own_postgres, LEASE_S=str(scaled(30))) as site:
        yield site


async def test_away_for_a_while(
    patient_site: Site, own_postgres: Postgres, provider: Provider
) -> None:
    site, ann = patient_site, patient_site.users["ann"]
    reply = Reply(words(40), gate=Gate(3))
    provider.queue(reply)
    async with site.chat(ann) as client:
        accepted = await client.chat("Tell me of the mill")
        run_id, session_id = accepted["run_id"], accepted["session_id"]
        await client.resume(session_id)
        await client.wait_text(run_id, reply.start(3))
        own_postgres.kill()
        reply.release(10)
        # What cannot be kept is not accepted, and nothing that is not kept is shown.
        await client.send_chat("Are you there?", session_id)
        error = await client.wait_for(frame_of("error"))
        assert (error["metadata"]["code"], error["metadata"]["retryable"]) == ("unavailable", True)
        await asyncio.to_thread(poll, lambda: "commit of" in site.log, "the failed commit")
        assert client.transcript.text(run_id) == reply.start(3)
        own_postgres.start()
        await client.wait_text(run_id, reply.start(13))
        reply.open()
        assert (await client.wait_end(run_id))["content"] == reply.text
        again = await client.chat("Go on", session_id)
        await client.wait_end(again["run_id"])
        kept = await converge(site, ann, session_id, client)
    assert kept.prompts == ["Tell me of the mill", "Go on"]
