"""Reload, lost sockets, two tabs, sleep: each ends with the text of the database."""

import asyncio
import contextlib
import html
import json
import re
import sqlite3
from collections.abc import Iterator

import pytest

from tests.drills.conftest import drill_site
from tests.support.client import ChatClient, event
from tests.support.kept import converge, read_ended, read_history, run_view
from tests.support.provider import Gate, Provider, Reply, words
from tests.support.site import Site, User
from tests.support.transcript import Transcript
from tests.support.waiting import poll

PAGE_DATA = re.compile(r'<script id="chat-data" type="application/json">(.*?)</script>', re.DOTALL)


def read_page(site: Site, cookie: str, session_id: str) -> tuple[str, Transcript]:
    """The rendered page, and what its code starts from."""
    answer = site.request("GET", f"/s/{session_id}/", headers={"Cookie": cookie})
    assert answer.status == 200
    page = answer.body.decode()
    found = PAGE_DATA.search(page)
    assert found
    data = json.loads(found[1])
    transcript = Transcript()
    transcript.seed(run_view(session_id, data["run"], data["parts"]), rev=data["rev"])
    return html.unescape(page), transcript


async def shown_by_another(site: Site, user: User, session_id: str, run_id: str, text: str) -> None:
    """Wait until `text` of a run has been committed and sent, as another tab sees it."""
    async with site.chat(user) as other:
        await other.resume(session_id, rev=0)
        await other.wait_text(run_id, text)


async def test_reload_in_mid_reply(site: Site, ann: User, provider: Provider) -> None:
    reply = Reply(words(30), gate=Gate(5))
    provider.queue(reply)
    cookie = await asyncio.to_thread(site.login, ann)
    async with site.chat_by_cookie(cookie) as client:
        accepted = await client.chat("Tell me of the mill")
        run_id, session_id = accepted["run_id"], accepted["session_id"]
        await client.wait_text(run_id, reply.start(5))
    page, by_page = await asyncio.to_thread(read_page, site, cookie, session_id)
    by_rest = await asyncio.to_thread(read_history, site, ann, session_id)
    assert "Tell me of the mill" in page
    assert reply.start(5).strip() in page
    assert by_page.text(run_id) == by_rest.text(run_id) == reply.start(5)
    # More is said before the page's code has connected.
    reply.release(5)
    await shown_by_another(site, ann, session_id, run_id, reply.start(10))
    async with (
        site.chat_by_cookie(cookie, by_page) as one,
        site.chat(ann, by_rest) as other,
    ):
        await asyncio.gather(one.resume(session_id), other.resume(session_id))
        reply.open()
        ends = [await tab.wait_end(run_id) for tab in (one, other)]
        kept = await converge(site, ann, session_id, other)
    assert [end["content"] for end in ends] == [reply.text] * 2
    assert kept.reply(run_id)["text"] == reply.text


async def test_reload_after_the_end(site: Site, ann: User) -> None:
    async with site.chat(ann) as client:
        accepted = await client.chat("Hello")
        await client.wait_end(accepted["run_id"])
    history = await asyncio.to_thread(read_history, site, ann, accepted["session_id"])
    async with site.chat(ann, history) as client:
        resumed = await client.resume(accepted["session_id"])
        assert resumed["metadata"].get("run_id") is None
        await converge(site, ann, accepted["session_id"], client)


async def test_socket_killed_in_mid_reply(site: Site, ann: User, provider: Provider) -> None:
    reply = Reply(words(40), gate=Gate(3))
    provider.queue(reply)
    transcript = Transcript()
    async with site.chat(ann, transcript) as client:
        accepted = await client.chat("Tell me of the mill")
        run_id, session_id = accepted["run_id"], accepted["session_id"]
        await client.resume(session_id)
        await client.wait_text(run_id, reply.start(3))
        client.drop()
        await client.wait_closed()
    for count in range(6, 40, 6):
        reply.release(6)
        await shown_by_another(site, ann, session_id, run_id, reply.start(count))
        async with site.chat(ann, transcript) as client:
            await client.resume(session_id)
            await client.wait_text(run_id, reply.start(count))
            client.drop()
            await client.wait_closed()
    async with site.chat(ann, transcript) as client:
        await client.resume(session_id)
        reply.open()
        assert (await client.wait_end(run_id))["content"] == reply.text
        await converge(site, ann, session_id, client)


async def test_socket_killed_after_the_end(site: Site, ann: User) -> None:
    """A cursor at the end of an ended run; what comes after is shown all the same."""
    transcript = Transcript()
    async with site.chat(ann, transcript) as client:
        accepted = await client.chat("First")
        session_id = accepted["session_id"]
        await client.resume(session_id)
        await client.wait_end(accepted["run_id"])
        client.drop()
        await client.wait_closed()
    async with site.chat(ann, transcript) as client, site.chat(ann) as other:
        await client.resume(session_id)
        await client.wait_end(accepted["run_id"])
        for sender, content in ((client, "Second"), (other, "Third")):
            accepted = await sender.chat(content, session_id)
            assert (await client.wait_end(accepted["run_id"]))["content"] == f"You said: {content}"
        await converge(site, ann, session_id, client)


async def test_two_tabs_send_and_stop(site: Site, ann: User, provider: Provider) -> None:
    first, second = Reply(words(20), gate=Gate(4)), Reply(words(20), gate=Gate(4))
    provider.queue(first, second)
    async with site.chat(ann) as one, site.chat(ann) as two:
        accepted = await one.chat("From one")
        session_id = accepted["session_id"]
        await asyncio.gather(one.resume(session_id), two.resume(session_id, rev=0))
        behind = await two.chat("From two", session_id)
        first.open()
        for tab in (one, two):
            await tab.wait_end(accepted["run_id"])
            await tab.wait_text(behind["run_id"], second.start(4))
        await one.cancel(session_id, run_id=behind["run_id"])
        await two.cancel(session_id, run_id=behind["run_id"])
        kept = await converge(site, ann, session_id, one, two)
        reloaded = await asyncio.to_thread(read_history, site, ann, session_id)
    assert kept.prompts == ["From one", "From two"]
    assert [reply["text"] for reply in kept.replies] == [first.text, second.start(4)]
    for shown in (one.transcript, two.transcript, reloaded):
        assert shown.shown(session_id) == kept.texts


async def test_asleep_through_two_replies(site: Site, ann: User, provider: Provider) -> None:
    """One phone keeps its socket, another one's is cut meanwhile; both were in mid-reply."""
    reply = Reply(words(30), gate=Gate(3))
    provider.queue(reply)
    cut = Transcript()
    async with site.chat(ann) as desk, site.chat(ann) as phone:
        accepted = await desk.chat("First")
        run_id, session_id = accepted["run_id"], accepted["session_id"]
        await asyncio.gather(desk.resume(session_id), phone.resume(session_id, rev=0))
        async with site.chat(ann, cut) as other:
            await other.resume(session_id, rev=0)
            for client in (phone, other):
                await client.wait_text(run_id, reply.start(3))
            phone.fall_asleep()
        reply.open()
        await desk.wait_end(run_id)
        for content in ("Second", "Third"):
            accepted = await desk.chat(content, session_id)
            await desk.wait_end(accepted["run_id"])
        kept = await read_ended(site, ann, session_id)
        phone.wake_up()
        await converge(site, ann, session_id, desk, phone)
        async with site.chat(ann, cut) as other:
            await other.resume(session_id)
            await converge(site, ann, session_id, other)
            assert cut.runs[run_id].finish_reason == "completed"
    assert kept.prompts == ["First", "Second", "Third"]


@pytest.fixture(scope="module")
def forgetful_site(shared_provider: Provider) -> Iterator[Site]:
    """It keeps streamed text for a moment only, and replays little."""
    changes = {"FOLD_AFTER_S": "0.2", "REPLAY_EVENTS": "5", "REPLAY_MESSAGES": "4"}
    with drill_site(shared_provider, **changes) as site:
        yield site


async def test_cursor_in_a_folded_run(forgetful_site: Site, provider: Provider) -> None:
    site, ann = forgetful_site, forgetful_site.users["ann"]
    reply = Reply(words(30), gate=Gate(3))
    provider.queue(reply)
    transcript = Transcript()
    async with site.chat(ann, transcript) as client:
        accepted = await client.chat("Tell me of the mill")
        run_id, session_id = accepted["run_id"], accepted["session_id"]
        await client.resume(session_id)
        await client.wait_text(run_id, reply.start(3))
        client.drop()
        await client.wait_closed()
    reply.open()
    await asyncio.to_thread(poll, lambda: is_folded(site, run_id), "the fold")
    async with site.chat(ann, transcript) as client, site.chat(ann) as new:
        await client.resume(session_id)
        await new.resume(session_id, rev=0, run_id=run_id)
        for follower in (client, new):
            assert (await follower.wait_end(run_id))["content"] == reply.text
        await converge(site, ann, session_id, client, new)


def is_folded(site: Site, run_id: str) -> bool:
    path = site.env["DATABASE_URL"].removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        question = "SELECT folded FROM conversations_run WHERE id = ?"
        return bool(connection.execute(question, [run_id.replace("-", "")]).fetchone()[0])


async def test_more_missed_than_is_replayed(forgetful_site: Site, provider: Provider) -> None:
    """A snapshot in mid-reply; a reload once too many messages have changed."""
    site, ann = forgetful_site, forgetful_site.users["ann"]
    reply = Reply(words(60), gate=Gate(2))
    provider.queue(reply)
    transcript = Transcript()
    async with site.chat(ann, transcript) as client:
        accepted = await client.chat("Tell me of the mill")
        run_id, session_id = accepted["run_id"], accepted["session_id"]
        await client.resume(session_id)
        await client.wait_text(run_id, reply.start(2))
        client.drop()
        await client.wait_closed()
    async with site.chat(ann) as desk:
        await desk.resume(session_id, rev=0)
        for count in range(5, 50, 5):
            reply.release(5)
            await desk.wait_text(run_id, reply.start(count))
        async with site.chat(ann, transcript) as client:
            await client.resume(session_id)
            await client.wait_for(event("snapshot", run_id=run_id))
            reply.open()
            await converge(site, ann, session_id, client)
        await talk(desk, session_id, 3)
        async with site.chat(ann, transcript) as client:
            resumed = await client.resume(session_id)
            assert resumed["metadata"]["recovered"] is False
        history = await asyncio.to_thread(read_history, site, ann, session_id)
        assert history.shown(session_id) == (await read_ended(site, ann, session_id)).texts


async def talk(client: ChatClient, session_id: str, turns: int) -> None:
    for number in range(turns):
        accepted = await client.chat(f"Turn {number}", session_id)
        await client.wait_end(accepted["run_id"])
