"""Drills of what clients do, and of what is refused to them.

Most are tests of `tests/drills`, which take the cluster's processes in place of their own.
"""

import asyncio
import contextlib
import time
from typing import LiteralString

import psycopg
from psycopg import sql

from tests.cluster_drills.stage import Stage
from tests.drills import (
    test_cancel,
    test_duplicates,
    test_provider_faults,
    test_slow_reader,
    test_two_servers,
)
from tests.support.client import frame_of
from tests.support.kept import converge
from tests.support.provider import Gate, Reply, words
from tests.support.readers import PATIENCE_S
from tests.support.site import User
from tests.support.transcript import Transcript

SESSIONS, FOLLOWERS, TURNS = 100, 10, 10
RETURNING = 1_000
IDLE_S = (30, 600)
RECOVERED_S = 30
CANCELLED_S = 2
TINY_DELTAS = 10_000
LOOK_S = 0.1
STEADY_S = 2
POOL = 16
"""Connections of a web process at most: twice `DB_THREADS`."""


async def lose_messages(stage: Stage) -> str:
    """Ten readers of each of a hundred sessions, over a layer that loses messages."""
    names = [f"person{number}" for number in range(SESSIONS)]
    users = await asyncio.to_thread(stage.site.make_users, *names)
    started = time.monotonic()
    await asyncio.gather(*(_talk_and_compare(stage, user) for user in users))
    replies = SESSIONS * TURNS
    return (
        f"{replies * FOLLOWERS:,} streams of {replies:,} replies in "
        f"{time.monotonic() - started:.0f} s: 0 wrong texts, all converged"
    )


async def _talk_and_compare(stage: Stage, user: User) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(stage.site.chat(user)) for _ in range(FOLLOWERS)]
        session_id = ""
        for number in range(TURNS):
            accepted = await clients[0].chat(f"{number}: tokens=20 rate=10", session_id)
            if not session_id:
                session_id = accepted["session_id"]
                for client in clients:
                    await client.resume(session_id, rev=0)
            await clients[0].wait_end(accepted["run_id"], within=PATIENCE_S)
        kept = await converge(stage.site, user, session_id, *clients, within=PATIENCE_S)
        assert {reply["text"] for reply in kept.replies} == {"".join(words(20))}


async def return_at_once(stage: Stage) -> str:
    """A thousand clients lose their sockets at the same moment, and follow their sessions again."""
    names = [f"person{number}" for number in range(SESSIONS)]
    users = await asyncio.to_thread(stage.site.make_users, *names)
    talks: list[tuple[User, str, Transcript]] = []
    async with contextlib.AsyncExitStack() as stack:
        for user in users:
            client = await stack.enter_async_context(stage.site.chat(user))
            accepted = await client.chat("Hello")
            await client.wait_end(accepted["run_id"])
            for _ in range(RETURNING // SESSIONS):
                other = await stack.enter_async_context(stage.site.chat(user))
                await other.resume(accepted["session_id"], rev=0)
                talks.append((user, accepted["session_id"], other.transcript))
    ended = asyncio.Event()
    counting = asyncio.create_task(_most_connections(stage, ended))
    started = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        await asyncio.gather(*(_come_back(stage, stack, *talk) for talk in talks))
        took = time.monotonic() - started
        ended.set()
    most = await counting
    assert took < RECOVERED_S, took
    assert most <= POOL, most
    return (
        f"all {len(talks)} recovered after {took:.1f} s; {most} connections a web process at most"
    )


async def _come_back(
    stage: Stage, stack: contextlib.AsyncExitStack, user: User, session_id: str, shown: Transcript
) -> None:
    """Every failure of the new socket is raised, also a close of it by the server."""
    client = await stack.enter_async_context(stage.site.chat(user, shown))
    resumed = await client.resume(session_id)
    assert resumed["metadata"]["recovered"]
    await client.ping()


async def _most_connections(stage: Stage, ended: asyncio.Event) -> int:
    """Return how many connections one web process had to Postgres at most."""
    most = 0
    query: LiteralString = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'web-%%'"
        " GROUP BY application_name"
    )
    while not ended.is_set():
        rows = await asyncio.to_thread(stage.cluster.ask, query)
        most = max([most, *(count for (count,) in rows)])
        await asyncio.sleep(LOOK_S)
    return most


async def push_past_sleepers(stage: Stage) -> str:
    web = stage.cluster.web(1)
    before = test_slow_reader.memory_of(web)
    await test_slow_reader.test_sleepers_cost_little_and_are_cut_off(web, stage.model)
    grown = (test_slow_reader.memory_of(web) - before) / 2**20
    pushed = test_slow_reader.PUSHED_BYTES // 10**6
    return (
        f"{pushed} MB past {test_slow_reader.SLEEPERS} sleepers: all cut off, the desk read on; "
        f"the process grew by {grown:.0f} MiB"
    )


async def send_copies(stage: Stage) -> str:
    await test_duplicates.test_over_two_servers(stage.pair, stage.model)
    await test_duplicates.test_into_a_session_that_is_there(stage.pair, stage.model)
    copies = test_duplicates.COPIES
    return f"twice {copies} copies: 1 message, 1 run, {copies - 1} duplicates"


async def share_two_tabs(stage: Stage) -> str:
    await test_cancel.test_by_another_tab_and_twice(stage.site, stage.ann, stage.model)
    await test_two_servers.test_followed_and_stopped_from_the_other(stage.pair, stage.model)
    return "the same end in every tab, on one and on two processes"


async def cancel_anywhere(stage: Stage) -> str:
    site, ann = stage.site, stage.ann
    await test_cancel.test_while_it_waits_behind_another(site, ann, stage.model)
    await test_cancel.test_in_the_same_breath_as_the_chat(site, ann, stage.model)
    await test_cancel.test_before_the_first_token(site, stage.model)
    await test_cancel.test_at_every_token(site, ann, stage.model)
    await test_cancel.test_in_mid_text(site, stage.model)
    await test_cancel.test_during_a_tool(site, stage.model)
    await test_cancel.test_as_the_reply_ends(site, stage.model)
    rows = stage.cluster.ask(
        "SELECT count(*), max(extract(epoch FROM ended_at - cancel_requested_at))::float"
        " FROM conversations_run WHERE status = 'cancelled'"
    )
    [(count, slowest)] = rows
    assert slowest < CANCELLED_S, slowest
    return f"{count} cancelled, the slowest after {slowest * 1000:.0f} ms; every next turn worked"


async def idle(stage: Stage) -> str:
    """A socket that only answers pings is still in its group after half a minute and ten."""
    async with stage.site.chat(stage.ann) as listener:
        session_id = (await listener.chat("Hello"))["session_id"]
        await listener.resume(session_id)
        for seconds in IDLE_S:
            await asyncio.sleep(seconds)
            async with stage.site.chat(stage.ann) as speaker:
                accepted = await speaker.chat(f"After {seconds} s", session_id)
                started = time.monotonic()
                end = await listener.wait_end(accepted["run_id"])
            assert end["content"] == f"You said: After {seconds} s"
        await converge(stage.site, stage.ann, session_id, listener)
        took = time.monotonic() - started
    return f"after {IDLE_S[0]} s and {IDLE_S[1] // 60} min it heard a reply, within {took:.1f} s"


async def make_read_only(stage: Stage) -> str:
    """The database refuses writes for a while, in the middle of a reply."""
    reply = Reply(words(40), gate=Gate(3))
    stage.model.queue(reply)
    async with stage.site.chat(stage.ann) as client:
        accepted = await client.chat("Tell me of the mill")
        run_id, session_id = accepted["run_id"], accepted["session_id"]
        await client.resume(session_id)
        await client.wait_text(run_id, reply.start(3))
        _set_read_only(stage, "on")
        try:
            # Connections hear of it by a signal.
            await asyncio.sleep(STEADY_S)
            reply.release(10)
            await client.send_chat("Are you there?", session_id)
            error = await client.wait_for(frame_of("error"))
            shown = client.transcript.text(run_id)
        finally:
            _set_read_only(stage, "off")
        assert (error["metadata"]["code"], shown) == ("unavailable", reply.start(3))
        await client.wait_text(run_id, reply.start(13))
        reply.open()
        assert (await client.wait_end(run_id))["content"] == reply.text
        again = await client.chat("Go on", session_id)
        await client.wait_end(again["run_id"])
        kept = await converge(stage.site, stage.ann, session_id, client)
    assert kept.prompts == ["Tell me of the mill", "Go on"]
    return "the chat was refused, nothing that was not stored was shown, the reply went on"


def _set_read_only(stage: Stage, value: str) -> None:
    url = stage.site.env["AGENTSITE_DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(
            sql.SQL("ALTER SYSTEM SET default_transaction_read_only = {}").format(
                sql.Literal(value)
            )
        )
        connection.execute("SELECT pg_reload_conf()")


async def break_the_provider(stage: Stage) -> str:
    tests, site = test_provider_faults, stage.site
    for fault in tests.FAULTS:
        await tests.test_is_told_and_leaves_no_trace(site, stage.model, fault)
    for shown in (0, tests.SHOWN):
        await tests.test_silence(site, stage.model, shown)
    for arguments in ("{", '""'):
        await tests.test_tool_arguments_that_are_none(site, stage.model, arguments)
    for tool in ("no_such_tool", "look_up"):
        await tests.test_useless_tool_calls_end(site, stage.model, tool)
    stage.model.queue(Reply(words(TINY_DELTAS)))
    async with site.chat(stage.ann) as client:
        accepted = await client.chat("Much, please")
        end = await client.wait_end(accepted["run_id"])
    assert end["content"] == "".join(words(TINY_DELTAS))
    return (
        f"{len(tests.FAULTS) + 6} faults: a typed error each, the next turn worked; "
        f"{TINY_DELTAS:,} deltas came in {len(client.frames)} frames"
    )
