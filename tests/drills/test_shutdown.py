"""The server is told to stop, as by a deploy, in the middle of replies."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from http.client import HTTPException

import psycopg
import pytest

from realtime.protocol import CLOSE_RESTART
from tests.drills.conftest import drill_site
from tests.support.client import event
from tests.support.kept import converge
from tests.support.provider import Gate, Provider, Reply, words
from tests.support.servers import Postgres
from tests.support.site import Site, User, prepared_database
from tests.support.transcript import Transcript
from tests.support.waiting import poll


async def test_replies_end_or_are_kept_or_are_answered_later(
    site: Site, ann: User, provider: Provider
) -> None:
    """Of four chats one ends in time, one is cut off, one has shown nothing, one comes too late."""
    quick, cut = Reply(words(8), gate=Gate(2)), Reply(words(30), gate=Gate(5))
    replies = [quick, cut, Reply(words(5), hold=Gate())]
    tabs = [Transcript() for _ in replies]
    accepted = []
    async with (
        site.chat(ann, tabs[0]) as one,
        site.chat(ann, tabs[1]) as two,
        site.chat(ann, tabs[2]) as three,
        site.chat(ann) as late,
    ):
        clients = [one, two, three]
        for number, (client, reply) in enumerate(zip(clients, replies, strict=True)):
            provider.queue(reply)
            accepted.append(await client.chat(f"Chat {number}"))
            await client.resume(accepted[-1]["session_id"])
            await provider.next_call()
        await one.wait_text(accepted[0]["run_id"], quick.start(2))
        await two.wait_text(accepted[1]["run_id"], cut.start(5))
        stopping = asyncio.create_task(asyncio.to_thread(site.terminate))
        for client in (*clients, late):
            draining = await client.wait_for(event("draining"))
            assert draining["metadata"]["reconnect_after_ms"] > 0
        quick.open()
        accepted.append(await late.chat("Too late?"))
        assert (await one.wait_end(accepted[0]["run_id"]))["content"] == quick.text
        interrupted = await two.wait_end(accepted[1]["run_id"])
        assert interrupted["content"] == cut.start(5)
        assert interrupted["metadata"]["finish_reason"] == "interrupted"
        assert interrupted["metadata"]["reason"] == "worker_lost"
        for client in (*clients, late):
            assert await client.wait_closed() == CLOSE_RESTART
        assert await stopping == 0
    site.start()
    async with site.chat(ann, tabs[2]) as three, site.chat(ann) as late:
        await three.resume(accepted[2]["session_id"])
        await late.resume(accepted[3]["session_id"], rev=0)
        for client, number, text in ((three, 2, "Chat 2"), (late, 3, "Too late?")):
            kept = await converge(site, ann, accepted[number]["session_id"], client)
            assert [reply["text"] for reply in kept.replies] == [f"You said: {text}"]
        # With nothing to do it stops at once.
        assert await asyncio.to_thread(site.terminate) == 0
        assert await late.wait_closed() == CLOSE_RESTART


def count_waiting(url: str) -> int:
    """Statements that wait for a lock."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
    return int(row[0]) if row else 0


HangingSite = Callable[[str], contextlib.AbstractAsyncContextManager[Site]]


@pytest.fixture
def hanging_site(provider: Provider, postgres: Postgres) -> HangingSite:
    """A server without time-outs that hangs in its database: a chat does, and a page."""

    @contextlib.asynccontextmanager
    async def hang(drain_s: str) -> AsyncIterator[Site]:
        with prepared_database(postgres) as url, contextlib.ExitStack() as stack:
            changes = {"DATABASE_URL": url, "DRAIN_S": drain_s}
            changes |= {"DB_LOCK_TIMEOUT_S": "0", "DB_STATEMENT_TIMEOUT_S": "0"}
            site = stack.enter_context(drill_site(provider, postgres, **changes))
            ann = site.users["ann"]
            async with site.chat(ann) as client:
                accepted = await client.chat("Hello")
                await client.wait_end(accepted["run_id"])
                lock = stack.enter_context(psycopg.connect(url))
                lock.execute("LOCK TABLE conversations_run IN ACCESS EXCLUSIVE MODE")
                await client.send_chat("Is anybody there?", accepted["session_id"])
                asked = asyncio.create_task(asyncio.to_thread(ask_in_vain, site, ann))
                await asyncio.to_thread(poll, lambda: count_waiting(url) >= 2, "both to hang")
                yield site
                await asked

    return hang


def ask_in_vain(site: Site, user: User) -> None:
    with contextlib.suppress(OSError, HTTPException):
        site.request("GET", "/api/sessions/", user=user)


async def test_a_server_that_hangs_ends_all_the_same(hanging_site: HangingSite) -> None:
    async with hanging_site("0") as site:
        assert await asyncio.to_thread(site.terminate) == 1
        assert "exiting at once: threads did not end" in site.log


async def test_a_second_signal_ends_a_server_at_once(hanging_site: HangingSite) -> None:
    async with hanging_site("600") as site:

        def ends() -> bool:
            if site.process.is_running:
                with contextlib.suppress(ProcessLookupError):
                    site.process.signal(signal.SIGTERM)
            return not site.process.is_running

        await asyncio.to_thread(poll, ends, "the end")
        assert site.process.wait() == 1
        assert "exiting at once: received a second signal" in site.log
