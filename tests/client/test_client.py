"""The client module on a real server, also over a network that breaks."""

import asyncio
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from agentsite.client import (
    FORMATS,
    Client,
    ClientError,
    NotSignedInError,
    RefusedError,
    Reply,
    ReplyError,
    UnreachableError,
    draft_of,
)
from agentsite.client.events import (
    ApprovalNeeded,
    Disconnected,
    Event,
    Reconnected,
    Rewritten,
    Started,
    ToolEnded,
    ToolProgress,
    ToolStarted,
)
from agentsite.client.http import Tokens
from agentsite.client.reply import RunView
from conversations.errors import ERRORS, ErrorCode
from conversations.exports.formats import FORMATS as SERVED
from tests.client.kept import shown, texts_of
from tests.support import provider as stand_in
from tests.support.approvals import erase, outputs, times_run
from tests.support.provider import Gate, Provider, ToolCall, words
from tests.support.relay import Relay
from tests.support.site import Site, User
from tests.support.waiting import time_limit

Line = tuple[Relay, str]
EXPORTED = re.compile(rb'"exported_at": "[^"]+"')


async def until_text(reply: Reply, text: str) -> list[Event]:
    """What comes until `text` is there."""
    events: list[Event] = []
    while not reply.text.startswith(text):
        events.append(await anext(reply))
    return events


async def rest_of(reply: Reply) -> list[Event]:
    return [event async for event in reply]


class TestChat:
    async def test_text_comes_in_pieces_that_add_up(self, client: Client) -> None:
        async with client.chat() as chat:
            reply = await chat.send("good morning")
            events = await rest_of(reply)
            assert events[0] == Started("assistant")
            assert shown(events) == reply.text == "You said: good morning"
            assert reply.end is not None
            assert reply.end.usage["output_tokens"] > 0
            again = await (await chat.send("and good night")).wait()
            assert again.text == "You said: and good night"
            assert await texts_of(client, chat.session_id) == [
                *("good morning", reply.text, "and good night", again.text)
            ]

    async def test_two_first_messages_are_of_one_conversation(self, client: Client) -> None:
        async with client.chat() as chat:
            replies = [await chat.send(word) for word in ("one", "two", "three")]
            ends = [await reply.wait() for reply in replies]
            assert [end.text for end in ends] == [f"You said: {w}" for w in ("one", "two", "three")]
            assert len(await texts_of(client, chat.session_id)) == 6

    async def test_a_refused_beginning_does_not_hold_up_the_next(self, client: Client) -> None:
        async with client.chat() as chat:
            long, short = await chat.send("x" * 70_000), await chat.send("short")
            with pytest.raises(RefusedError) as refused:
                await long.wait()
            assert refused.value.code == "too_large"
            assert (await short.wait()).text == "You said: short"

    async def test_tools_are_told_of(self, client: Client, provider: Provider) -> None:
        call = ToolCall("look_up", '{"word": "heron"}')
        first = stand_in.Reply(["Let me see."], tool_calls=[call], gate=Gate(0))
        provider.queue(first, stand_in.Reply(["Yes."]))
        async with client.chat() as chat:
            reply = await chat.send("herons")
            # Whoever is late is given a snapshot, which has no progress.
            events = [await anext(reply)]
            first.open()
            events += await rest_of(reply)
        started, progress, ended = (
            next(event for event in events if isinstance(event, kind))
            for kind in (ToolStarted, ToolProgress, ToolEnded)
        )
        assert isinstance(started, ToolStarted)
        assert (started.name, json.loads(started.arguments)) == ("look_up", {"word": "heron"})
        assert isinstance(progress, ToolProgress)
        assert (progress.progress, progress.fraction) == ("Looking for heron", 0.5)
        assert isinstance(ended, ToolEnded)
        assert (ended.failed, ended.output) == (False, "“heron” was found.")
        assert reply.text == "Let me see.\n\nYes."

    async def test_stop(self, client: Client, provider: Provider) -> None:
        provider.queue(stand_in.Reply(words(20), gate=Gate(3)))
        async with client.chat() as chat:
            reply = await chat.send("a long story")
            await until_text(reply, "the river bends")
            await reply.stop()
            end = await reply.wait()
            assert (end.finish_reason, end.reason) == ("cancelled", "user")
            assert end.text == "the river bends "
            assert (await texts_of(client, chat.session_id))[1] == end.text
            await reply.stop()

    async def test_stop_before_it_is_taken(self, client: Client, provider: Provider) -> None:
        provider.queue(stand_in.Reply(words(20), hold=Gate()))
        async with client.chat() as chat:
            reply = await chat.send("never mind")
            await reply.stop()
            assert (await reply.wait()).finish_reason == "cancelled"

    async def test_a_chat_that_is_left_lets_nobody_wait(
        self, client: Client, provider: Provider
    ) -> None:
        provider.queue(stand_in.Reply(words(20), gate=Gate(3)))
        async with client.chat() as chat:
            reply = await chat.send("a long story")
            await until_text(reply, "the river bends")
        async with time_limit("the end of what was left"):
            for left in (reply, await chat.send("too late")):
                with pytest.raises(ClientError, match="left"):
                    await left.wait()

    async def test_a_reply_that_fails(self, client: Client, provider: Provider) -> None:
        provider.queue(stand_in.Reply(words(9), cut_after=2))
        async with client.chat() as chat:
            reply = await chat.send("hello")
            with pytest.raises(ReplyError) as failed:
                await reply.wait()
            assert (failed.value.code, failed.value.retryable) == ("provider_cut", True)
            assert str(failed.value) == str(ERRORS[ErrorCode.PROVIDER_CUT].text)
            assert reply.text == "the river "
            with pytest.raises(ReplyError):
                await reply.wait()

    async def test_refusals_carry_codes(self, client: Client, provider: Provider) -> None:
        async with client.chat(agent="nobody") as chat:
            with pytest.raises(RefusedError) as refused:
                await (await chat.send("hello")).wait()
            assert refused.value.code == "unknown_agent"
        provider.queue(stand_in.Reply(words(20), gate=Gate(1)))
        async with client.chat() as chat:
            await until_text(await chat.send("hello"), "the")
            with pytest.raises(RefusedError) as refused:
                await (await chat.send("me too", on_busy="reject")).wait()
            assert (refused.value.code, refused.value.retryable) == ("busy", True)

    async def test_a_foreign_session(self, client: Client, site: Site) -> None:
        async with site.chat(site.users["ben"]) as other:
            foreign = (await other.chat("mine"))["session_id"]
        async with client.chat(foreign) as chat:
            with pytest.raises(RefusedError) as refused:
                await (await chat.send("hello")).wait()
            assert refused.value.code == "not_found"
            with pytest.raises(RefusedError):
                await chat.running()

    async def test_what_works_already_is_followed(self, client: Client, provider: Provider) -> None:
        reply_of_model = stand_in.Reply(words(40), gate=Gate(30))
        provider.queue(reply_of_model)
        async with client.chat() as chat:
            await until_text(await chat.send("hello"), reply_of_model.start(30))
        async with client.chat(chat.session_id) as chat:
            running = await chat.running()
            assert running is not None
            reply_of_model.open()
            events = await rest_of(running)
            assert shown(events) == running.text == reply_of_model.text
            assert await chat.running() is None


class TestApprovals:
    @pytest.mark.parametrize("decision", ["approve", "reject"])
    async def test_decide(
        self, client: Client, provider: Provider, tmp_path: Path, decision: str
    ) -> None:
        file = tmp_path / "file"
        provider.queue(stand_in.Reply(["I will."], tool_calls=[erase(file)]))
        async with client.chat() as chat, client.chat() as other:
            reply = await chat.send("erase it")
            asked = await asked_by(reply)
            assert reply.open_requests == [asked.request_id]
            assert (asked.tool, json.loads(asked.arguments)) == ("erase", {"path": str(file)})
            other.session_id = chat.session_id
            seen = await other.running()
            assert seen is not None
            assert await asked_by(seen) == asked
            if decision == "approve":
                answer = await reply.approve(asked.request_id)
            else:
                answer = await reply.reject(asked.request_id, "not that one")
            assert answer == (decision, "ann", False)
            assert (await reply.wait()).finish_reason == "completed"
            assert (await seen.wait()).text == reply.text
            assert times_run(file) == (decision == "approve")
            assert ("not that one" in str(outputs(provider))) == (decision == "reject")
            assert (await seen.approve(asked.request_id)) == (decision, "ann", True)

    async def test_a_request_that_is_not_there(self, client: Client) -> None:
        async with client.chat() as chat:
            reply = await chat.send("hello")
            await reply.wait()
            with pytest.raises(RefusedError) as refused:
                await reply.approve("nonsense")
            assert refused.value.code == "not_found"


async def asked_by(reply: Reply) -> ApprovalNeeded:
    """The request that it comes to."""
    while not isinstance(event := await anext(reply), ApprovalNeeded):
        pass
    return event


@pytest.fixture
def snapshots(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """What came of every snapshot, so that a test knows which way a reply was caught up with."""
    seen: list[Event] = []
    replace = RunView._replace

    def spy(view: RunView, snapshot: dict[str, Any]) -> list[Event]:
        seen.extend(events := replace(view, snapshot))
        return events

    monkeypatch.setattr(RunView, "_replace", spy)
    return seen


async def until_kept(client: Client, session_id: str, text: str) -> None:
    """Wait until the database has so much of the latest reply."""
    async with time_limit("the text to be kept"):
        while not (await texts_of(client, session_id))[-1].startswith(text):
            pass


class TestBrokenLines:
    @pytest.mark.parametrize("missed", [1, 5], ids=["events", "snapshot"])
    async def test_the_text_goes_on_where_it_was(
        self,
        far_client: Client,
        client: Client,
        line: Line,
        provider: Provider,
        snapshots: list[Event],
        missed: int,
    ) -> None:
        relay, _ = line
        said = stand_in.Reply(words(60), gate=Gate(5))
        provider.queue(said)
        async with far_client.chat() as chat:
            reply = await chat.send("hello")
            events = await until_text(reply, said.start(5))
            for place in (10, 20):
                relay.refuses = True
                relay.cut()
                for count in range(place, place + missed):
                    said.release(count - provider.calls[-1].sent)
                    await until_kept(client, chat.session_id, said.start(count))
                relay.refuses = False
                events += await until_text(reply, said.start(place + missed - 1))
            said.open()
            events += await rest_of(reply)
            assert shown(events) == reply.text == said.text
            assert len([event for event in events if isinstance(event, Reconnected)]) == 2
            assert not [event for event in events if isinstance(event, Rewritten)]
            assert (await texts_of(far_client, chat.session_id))[1] == said.text
        assert bool(snapshots) == (missed > 1)

    async def test_a_message_whose_answer_was_lost_is_taken_once(
        self, far_client: Client, client: Client, line: Line, provider: Provider
    ) -> None:
        relay, _ = line
        async with far_client.chat() as chat:
            await (await chat.send("first")).wait()
            relay.swallows_after = b""
            reply = await chat.send("only once")
            await provider.until(lambda p: len(p.calls) == 2)
            relay.cut()
            assert (await reply.wait()).text == "You said: only once"
            assert (await texts_of(client, chat.session_id))[2:] == ["only once", reply.text]
        assert len(provider.calls) == 2

    async def test_a_first_message_whose_answer_was_lost_begins_one_conversation(
        self, far_client: Client, client: Client, line: Line, provider: Provider
    ) -> None:
        relay, _ = line
        relay.swallows_after = b'"connected"'
        async with far_client.chat() as chat:
            reply, later = await chat.send("a toucan"), await chat.send("and a crane")
            await provider.until(lambda p: len(p.calls) == 1)
            relay.cut()
            await reply.wait()
            await later.wait()
        found = [session async for session in client.list_sessions(search="toucan")]
        assert [session["id"] for session in found] == [chat.session_id]
        assert found[0]["message_count"] == 4

    async def test_what_is_sent_while_the_line_is_down_arrives(
        self, far_client: Client, line: Line, provider: Provider
    ) -> None:
        relay, _ = line
        provider.queue(stand_in.Reply(words(20), gate=Gate(2)))
        async with far_client.chat() as chat:
            reply = await chat.send("hello")
            await until_text(reply, "the river")
            relay.refuses = True
            relay.cut()
            while not isinstance(await anext(reply), Disconnected):
                pass
            stopping = asyncio.create_task(reply.stop())
            later = await chat.send("later")
            relay.refuses = False
            await stopping
            assert (await reply.wait()).finish_reason == "cancelled"
            assert (await later.wait()).text == "You said: later"

    async def test_patience_ends(self, line: Line, ann: User, provider: Provider) -> None:
        relay, url = line
        provider.queue(stand_in.Reply(words(20), gate=Gate(2)))
        async with Client(url, patience_s=0.5) as client:
            await client.sign_in(ann.username, ann.password)
            async with client.chat() as chat:
                reply = await chat.send("hello")
                await until_text(reply, "the river")
                relay.refuses = True
                relay.cut()
                with pytest.raises(UnreachableError, match="cannot be reached"):
                    await reply.wait()
                assert reply.text == "the river "
                with pytest.raises(UnreachableError):
                    await (await chat.send("again")).wait()

    async def test_the_server_dies(self, client: Client, site: Site, provider: Provider) -> None:
        provider.queue(stand_in.Reply(words(20), gate=Gate(2)))
        async with client.chat() as chat:
            reply = await chat.send("hello")
            await until_text(reply, "the river")
            site.kill()
            site.start()
            end = await reply.wait()
            assert (end.finish_reason, end.reason) == ("interrupted", "worker_lost")
            assert (await texts_of(client, chat.session_id))[1] == end.text == "the river "


class TestSignIn:
    async def test_a_wrong_password(self, site: Site) -> None:
        async with Client(site.origin) as client:
            with pytest.raises(NotSignedInError, match="name and password are not known"):
                await client.sign_in("ann", "wrong")
            with pytest.raises(NotSignedInError):
                await anext(client.list_sessions())
            async with client.chat() as chat:
                with pytest.raises(RefusedError):
                    await (await chat.send("hello")).wait()

    async def test_access_that_has_run_out_is_renewed(
        self, client: Client, ann: User, site: Site
    ) -> None:
        login = {"username": ann.username, "password": ann.password}
        refresh = site.request("POST", "/api/token/", data=login).json()["refresh"]
        for use in (self.list_them, self.talk):
            client._http.credentials = Tokens("stale", client._refresher(refresh))
            await use(client)
        client._http.credentials = Tokens("stale", client._refresher("stale"))
        for use in (self.list_them, self.talk):
            with pytest.raises(NotSignedInError):
                await use(client)

    async def list_them(self, client: Client) -> None:
        assert [session async for session in client.list_sessions()]

    async def talk(self, client: Client) -> None:
        async with client.chat() as chat:
            await (await chat.send("hello")).wait()

    async def test_guests(self, site: Site) -> None:
        async with Client(site.origin) as client:
            await client.sign_in_as_guest()
            async with client.chat() as chat:
                assert (await (await chat.send("hello")).wait()).text == "You said: hello"
            assert [s["id"] async for s in client.list_sessions()] == [chat.session_id]

    async def test_keys_do_what_their_scopes_say(
        self, client: Client, site: Site, ann: User
    ) -> None:
        site.request("POST", "/api/sessions/", user=ann, data={"title": "kept"})
        asked = {"name": "backup", "scopes": ["read", "export"]}
        key = site.request("POST", "/api/keys/", user=ann, data=asked).json()["key"]
        async with Client(site.origin, key=key) as client:
            await self.list_them(client)
            assert b"".join([piece async for piece in client.download("text")])
            async with client.chat() as chat:
                with pytest.raises(RefusedError) as refused:
                    await (await chat.send("hello")).wait()
                assert refused.value.code == "forbidden"

    def test_a_file_that_cannot_be_replaced_leaves_no_other(self, tmp_path: Path) -> None:
        taken = tmp_path / "taken"
        taken.mkdir()
        with pytest.raises(OSError, match="taken"), draft_of(taken) as draft:
            draft.write(b"text")
        assert list(tmp_path.iterdir()) == [taken]

    @pytest.mark.parametrize("url", ["chat.example.org", "ws://chat.example.org", "https://", ""])
    def test_what_is_no_address(self, url: str) -> None:
        with pytest.raises(ValueError, match="is not an address"):
            Client(url)

    async def test_nobody_is_there(self, line: Line) -> None:
        relay, url = line
        relay.refuses = True
        async with Client(url) as client:
            with pytest.raises(UnreachableError, match="cannot be reached: the connection broke"):
                await client.sign_in("ann", "x")
        async with Client("http://127.0.0.1:1") as client:
            with pytest.raises(UnreachableError, match="cannot be reached: connection refused"):
                await client.sign_in("ann", "x")

    async def test_something_else_is_there(self, provider: Provider) -> None:
        async with Client(f"http://127.0.0.1:{provider.port}") as client:
            with pytest.raises(UnreachableError, match="is answered by 404"):
                await client.sign_in("ann", "x")


class TestSessions:
    async def test_lists_go_over_pages(self, client: Client, site: Site) -> None:
        async with client.chat() as chat:
            await (await chat.send("a pelican")).wait()
        assert [s["id"] async for s in client.list_sessions(search="pelican")] == [chat.session_id]
        by_ones = [s["id"] async for s in client.list_sessions(page_size="1")]
        assert by_ones == [s["id"] async for s in client.list_sessions()]
        assert len(by_ones) > 1

    async def test_a_filter_that_is_wrong(self, client: Client) -> None:
        with pytest.raises(RefusedError) as refused:
            await anext(client.list_sessions(state="nonsense"))
        assert refused.value.code == "bad_frame"


class TestExports:
    def test_the_formats_are_those_of_the_site(self) -> None:
        assert set(SERVED) == set(FORMATS)

    @pytest.mark.parametrize("kind", FORMATS)
    async def test_every_format(
        self, client: Client, site: Site, ann: User, tmp_path: Path, kind: str
    ) -> None:
        async with client.chat() as chat:
            await (await chat.send("to be kept")).wait()
        file = tmp_path / "kept"
        size = await client.export(file, kind, chat.session_id)
        path = f"/api/sessions/{chat.session_id}/transcript/?export_format={kind}"
        kept, served = file.read_bytes(), site.request("GET", path, user=ann).body
        assert EXPORTED.sub(b"", kept) == EXPORTED.sub(b"", served)
        assert size == len(kept)
        assert b"to be kept" in kept

    async def test_what_breaks_off_leaves_no_file(self, far_client: Client, tmp_path: Path) -> None:
        file = tmp_path / "kept.json"
        file.write_text("the one before")
        with pytest.raises(RefusedError) as refused:
            await far_client.export(file, "json", "00000000-0000-0000-0000-000000000000")
        assert refused.value.code == "not_found"
        assert file.read_text() == "the one before"
        assert os.listdir(tmp_path) == ["kept.json"]  # noqa: PTH208

    async def test_all_that_match(self, client: Client) -> None:
        async with client.chat() as chat:
            await (await chat.send("an albatross")).wait()
        pieces = [piece async for piece in client.download("jsonl", search="albatross")]
        lines = [json.loads(line) for line in b"".join(pieces).splitlines()]
        assert {line["session_id"] for line in lines if "session_id" in line} <= {chat.session_id}
        assert "an albatross" in str(lines)


async def test_what_is_too_long_is_refused_and_others_are_sent(site: Site, ann: User) -> None:
    async with Client(site.origin) as client:
        await client.sign_in("ann", ann.password)
        async with client.chat() as chat, time_limit("two answers"):
            long, short = await chat.send("x" * 3_000_000), await chat.send("hello")
            with pytest.raises(RefusedError, match="64 KB") as refused:
                [_ async for _ in long]
            assert (refused.value.code, refused.value.retryable) == ("too_large", False)
            assert shown([event async for event in short]) == "You said: hello"
