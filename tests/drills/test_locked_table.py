"""A table is locked while replies stream, as by an `ALTER TABLE` that takes its time.

Here its times are about tenths of the defaults, with four streams. In full, with twenty streams,
the default times and a lock of so many seconds, which takes some minutes:

    PYTEST_LOCKED_TABLE_S=90 python -m pytest -n 0 tests/drills/test_locked_table.py
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial

import psycopg
import pytest

from tests.drills.conftest import drill_site
from tests.support.client import ChatClient, frame_of
from tests.support.kept import converge
from tests.support.provider import Gate, Provider, Reply, words
from tests.support.servers import Postgres, Valkey
from tests.support.site import Site, prepared_database
from tests.support.waiting import poll

FULL_S = float(os.environ.get("PYTEST_LOCKED_TABLE_S", "0"))
STREAMS = 20 if FULL_S else 4
QUICK = {"BUFFER_S": "4", "DB_LOCK_TIMEOUT_S": "1", "LEASE_S": "3"}
DEFAULT = dict.fromkeys(("BUFFER_S", "DB_LOCK_TIMEOUT_S", "LEASE_S", "BEAT_S", "SWEEP_S"), "")
WITHIN_S = FULL_S + 120


@dataclass(frozen=True)
class Pair:
    """Two servers on one database."""

    one: Site
    two: Site
    url: str

    def scalar(self, query: str) -> int:
        with psycopg.connect(self.url) as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else reads or writes runs meanwhile."""
        with psycopg.connect(self.url) as connection:
            connection.execute("LOCK TABLE conversations_run IN ACCESS EXCLUSIVE MODE")
            yield
            connection.rollback()

    def have_failed(self) -> bool:
        """Whether both have had a commit refused."""
        return all("commit of" in site.log for site in (self.one, self.two))

    def have_dropped(self, count: int) -> bool:
        """Whether so many replies have been dropped, on both together."""
        return sum(site.log.count(" s without a commit") for site in (self.one, self.two)) == count


@pytest.fixture
def pair(provider: Provider, postgres: Postgres, valkey: Valkey) -> Iterator[Pair]:
    with prepared_database(postgres) as url:
        changes = {"DATABASE_URL": url, "REDIS_URL": valkey.url, "DRAIN_S": "1"}
        changes |= DEFAULT if FULL_S else QUICK
        with (
            drill_site(provider, postgres, **changes) as one,
            drill_site(provider, postgres, **changes) as two,
        ):
            yield Pair(one, two, url)


@dataclass
class Stream:
    """A reply that its client has seen the beginning of."""

    site: Site
    client: ChatClient
    reply: Reply
    run_id: str
    session_id: str


@contextlib.asynccontextmanager
async def streaming(pair: Pair, provider: Provider) -> AsyncIterator[list[Stream]]:
    """Replies under way on both servers."""
    ann, streams = pair.one.users["ann"], []
    async with contextlib.AsyncExitStack() as stack:
        for number in range(STREAMS):
            site = (pair.one, pair.two)[number % 2]
            reply = Reply(words(40), gate=Gate(3))
            provider.queue(reply)
            client = await stack.enter_async_context(site.chat(ann))
            accepted = await client.chat(f"Tell me of mill {number}")
            await client.resume(accepted["session_id"])
            await client.wait_text(accepted["run_id"], reply.start(3))
            run_id, session_id = accepted["run_id"], accepted["session_id"]
            streams.append(Stream(site, client, reply, run_id, session_id))
        yield streams


async def check_nothing_is_stuck(pair: Pair, streams: list[Stream]) -> None:
    """Each run has ended once, clients show what is kept, both servers take chats and stop."""
    ann = pair.one.users["ann"]
    for stream in streams:
        await converge(stream.site, ann, stream.session_id, stream.client, within=WITHIN_S)
    ended_twice = (
        "SELECT count(*) FROM (SELECT run_id FROM conversations_runevent"
        " WHERE kind IN ('complete', 'error') GROUP BY run_id HAVING count(*) <> 1) AS wrong"
    )
    assert await asyncio.to_thread(pair.scalar, ended_twice) == 0
    for stream in streams[:2]:
        again = await stream.client.chat("Go on", stream.session_id)
        end = await stream.client.wait_end(again["run_id"], within=WITHIN_S)
        assert end["content"] == "You said: Go on"
        assert stream.site.request("GET", "/readyz/").status == 200
        assert await asyncio.to_thread(stream.site.terminate) == 0


@pytest.mark.skipif(bool(FULL_S), reason="with the times of a test")
async def test_replies_outlast_a_short_lock(pair: Pair, provider: Provider) -> None:
    async with streaming(pair, provider) as streams:
        with pair.locked():
            for stream in streams:
                stream.reply.release(10)
            await asyncio.to_thread(poll, pair.have_failed, "a commit's time-out on both")
            for stream in streams:
                assert stream.client.transcript.text(stream.run_id) == stream.reply.start(3)
        for stream in streams:
            await stream.client.wait_text(stream.run_id, stream.reply.start(13))
            stream.reply.open()
            assert (await stream.client.wait_end(stream.run_id))["content"] == stream.reply.text
        assert pair.have_dropped(0)
        await check_nothing_is_stuck(pair, streams)


@pytest.mark.timeout(WITHIN_S + 300)
async def test_replies_end_by_a_long_lock_and_servers_do_not(
    pair: Pair, provider: Provider
) -> None:
    async with streaming(pair, provider) as streams, pair.one.chat(pair.one.users["ben"]) as ben:
        with pair.locked():
            began = time.monotonic()
            for stream in streams:
                stream.reply.release(10)
            await ben.send_chat("Is anybody there?")
            error = await ben.wait_for(frame_of("error"), within=WITHIN_S)
            assert error["metadata"]["code"] == "unavailable"
            all_dropped = partial(pair.have_dropped, STREAMS)
            await asyncio.to_thread(poll, all_dropped, "the end of all", within=WITHIN_S)
            for site in (pair.one, pair.two):
                assert site.request("GET", "/healthz/").status == 200
            await asyncio.sleep(max(0.0, FULL_S - (time.monotonic() - began)))
        for stream in streams:
            end = await stream.client.wait_end(stream.run_id, within=WITHIN_S)
            assert end["type"] == "complete", end
            assert end["metadata"]["finish_reason"] == "interrupted"
            assert end["metadata"]["reason"] == "worker_lost"
            stream.reply.open()
        await check_nothing_is_stuck(pair, streams)
