"""The consumer and what is behind it, on sockets without a network."""

import asyncio
import json
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.base_user import AbstractBaseUser

from conversations.models import Message, Run, RunStatus
from realtime.process import Process
from realtime.sockets import limits
from tests.support.client import ChatClient, event, frame_of
from tests.support.inprocess import make_user, open_chat_here
from tests.support.site_agents import echo_words
from tests.support.threads import in_thread
from tests.support.transcript import BaseClient


@pytest.fixture(autouse=True)
def echo(settings: Any) -> None:
    settings.AGENTS = "tests.support.site_agents"


@pytest.fixture
def user(transactional_db: None) -> AbstractBaseUser:
    return make_user("ada")


async def test_a_chat_is_answered_and_kept(process: Process, user: AbstractBaseUser) -> None:
    async with open_chat_here(user) as client:
        accepted = await client.chat("hello there")
        end = await client.wait_end(accepted["run_id"])
    assert end["content"] == "".join(echo_words("hello there"))
    run = await Run.objects.select_related("reply", "prompt").aget()
    assert run.status == RunStatus.COMPLETED
    assert run.reply.text == end["content"]
    assert run.prompt.text == "hello there"


async def test_the_base_client_needs_no_metadata(process: Process, user: AbstractBaseUser) -> None:
    base = BaseClient()
    async with open_chat_here(user) as client, open_chat_here(user) as other_tab:
        await client.send({"type": "chat", "content": "hi"})
        first = await client.wait_for(frame_of("complete"))
        session_id = first["session_id"]
        await other_tab.resume(session_id)
        await other_tab.chat("from the other tab", session_id)
        await client.send({"type": "chat", "session_id": session_id, "content": "hi again"})
        await client.wait_for(lambda f: f["type"] == "complete" and "again" in f["content"])
    for frame in client.frames:
        base.apply(frame)
    assert base.replies == ["".join(echo_words("hi")), "".join(echo_words("hi again"))]
    assert base.errors == []


async def test_two_followers_show_the_same(process: Process, user: AbstractBaseUser) -> None:
    async with open_chat_here(user) as one, open_chat_here(user) as two:
        accepted = await one.chat("first")
        await two.resume(accepted["session_id"], rev=0)
        await one.resume(accepted["session_id"])
        second = await two.chat("second", accepted["session_id"])
        await asyncio.gather(*(tab.wait_end(second["run_id"]) for tab in (one, two)))
        shown = {str(m.pk): m.text async for m in Message.objects.all()}
        for tab in (one, two):
            await tab.wait_until(partial(_shows, tab, accepted["session_id"], shown))


def _shows(tab: ChatClient, session_id: str, kept: dict[str, str]) -> bool:
    return tab.transcript.shown(session_id) == kept


async def test_pong_echoes_the_time_it_was_given(process: Process, user: AbstractBaseUser) -> None:
    async with open_chat_here(user) as client:
        pong = await client.ping(ts=12.5)
    assert pong["metadata"]["ts"] == 12.5


BAD_FRAMES = [
    "",
    "not json",
    "[]",
    '"chat"',
    "{}",
    '{"type": 1}',
    '{"type": "chat", "content": 1}',
    '{"type": "chat", "content": "x", "metadata": []}',
    '{"type": "chat", "content": "x", "metadata": {"on_busy": "explode"}}',
    '{"type": "ping", "metadata": {"ts": NaN}}',
    '{"type": "ping", "metadata": {"ts": ' + "9" * 5_000 + "}}",
    '{"type": "resume", "session_id": "x", "metadata": {"seq": -1}}',
    "[" * 20_000,
    '{"type": "chat", "content": "   "}',
    '{"type": "chat", "content": "\\u200b\\u2060 \\u3164"}',
    '{"type": "chat", "content": "x", "metadata": {"client_message_id": "a\\u0000"}}',
    '{"type": "chat", "content": "x", "metadata": {"client_message_id": "a\\ud800"}}',
    '{"type": "cancel", "session_id": "x", "metadata": {"client_message_id": "\\u0000"}}',
]
FOREIGN_FRAMES = [
    ('{"type": "run.frames", "frames": ["x"]}', "unsupported_type"),
    ('{"type": "complete", "content": "x"}', "unsupported_type"),
    ('{"type": "cancel"}', "not_found"),
    ('{"type": "resume", "session_id": "nonsense"}', "not_found"),
    (
        '{"type": "chat", "session_id": "00000000-0000-0000-0000-000000000000", "content": "x"}',
        "not_found",
    ),
    ('{"type": "chat", "content": "x", "metadata": {"agent": "nobody"}}', "unknown_agent"),
    (json.dumps({"type": "chat", "content": "x" * 70_000}), "too_large"),
]


async def test_300_bad_frames_then_a_chat(
    process: Process, user: AbstractBaseUser, settings: Any
) -> None:
    settings.REALTIME = {**settings.REALTIME, "frames_per_minute": 10_000}
    cases = [(text, "bad_frame") for text in BAD_FRAMES] + FOREIGN_FRAMES
    async with open_chat_here(user) as client:
        for number in range(300):
            text, code = cases[number % len(cases)]
            after = len(client.frames)
            await client.send_text(text)
            error = await client.wait_for(frame_of("error"), after=after)
            assert error["metadata"]["code"] == code, text[:80]
        accepted = await client.chat("still here")
        assert (await client.wait_end(accepted["run_id"]))["type"] == "complete"


async def test_too_many_frames_are_refused_then_cut_off(
    process: Process, user: AbstractBaseUser, settings: Any
) -> None:
    settings.REALTIME = {**settings.REALTIME, "frames_per_minute": 5}
    async with open_chat_here(user) as client:
        for _ in range(30):
            await client.send({"type": "ping"})
        error = await client.wait_for(frame_of("error"))
        assert error["metadata"]["code"] == "rate_limited"
        assert error["metadata"]["retry_after"] > 0
        assert await client.wait_closed() == 4429
        assert sum(frame["type"] == "pong" for frame in client.frames) == 5


async def test_all_sockets_of_a_user_count_together(
    process: Process, user: AbstractBaseUser, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REALTIME = {**settings.REALTIME, "frames_per_minute": 3}
    monkeypatch.setattr(limits, "SOCKETS_AT_FULL_RATE", 1)
    async with open_chat_here(user) as one, open_chat_here(user) as two:
        for _ in range(3):
            await one.ping()
        await two.send({"type": "ping"})
        error = await two.wait_for(frame_of("error"))
        assert error["metadata"]["code"] == "rate_limited"
        assert error["metadata"]["retry_after"] > 0


async def test_a_chat_that_comes_too_soon_is_refused_by_its_name(
    process: Process, user: AbstractBaseUser, settings: Any
) -> None:
    settings.REALTIME = {**settings.REALTIME, "frames_per_minute": 1}
    async with open_chat_here(user) as client:
        await client.ping()
        await client.send_chat("too soon", client_message_id="m1")
        error = await client.wait_for(frame_of("error"))
    assert error["metadata"]["code"] == "rate_limited"
    assert error["metadata"]["client_message_id"] == "m1"


async def test_a_foreign_session_does_not_exist(process: Process, user: AbstractBaseUser) -> None:
    stranger = await in_thread(make_user, "eve")
    async with open_chat_here(user) as mine, open_chat_here(stranger) as theirs:
        accepted = await mine.chat("private")
        await mine.wait_end(accepted["run_id"])
        for frame in (
            {"type": "resume", "session_id": accepted["session_id"]},
            {"type": "chat", "session_id": accepted["session_id"], "content": "let me in"},
            {"type": "cancel", "session_id": accepted["session_id"]},
            {
                "type": "cancel",
                "session_id": accepted["session_id"],
                "metadata": {"run_id": accepted["run_id"]},
            },
        ):
            after = len(theirs.frames)
            await theirs.send(frame)
            error = await theirs.wait_for(frame_of("error"), after=after)
            assert error["metadata"]["code"] == "not_found"
    assert await Run.objects.acount() == 1


async def test_a_socket_follows_the_sessions_used_last(
    process: Process, user: AbstractBaseUser, settings: Any
) -> None:
    settings.REALTIME = {**settings.REALTIME, "follow_max": 2}
    async with open_chat_here(user) as client:
        sessions = []
        for text in "abc":
            accepted = await client.chat(text)
            await client.wait_end(accepted["run_id"])
            sessions.append(accepted["session_id"])
        for session_id in (*sessions[:2], sessions[0], sessions[2]):
            await client.resume(session_id)
        told = await client.wait_for(event("unfollowed"))
        assert told["session_id"] == sessions[1]
        assert set(process_sessions(process)) == {sessions[0], sessions[2]}
        await client.resume(sessions[1])
        assert set(process_sessions(process)) == {sessions[1], sessions[2]}


def process_sessions(process: Process) -> list[str]:
    """What all sockets here follow."""
    found: list[str] = []
    process.poller.each(lambda socket: found.extend(map(str, socket.viewer.sessions)))
    return found


async def test_a_socket_with_replies_under_way_follows_no_more(
    process: Process, user: AbstractBaseUser, settings: Any
) -> None:
    settings.REALTIME = {**settings.REALTIME, "follow_max": 2}
    async with open_chat_here(user) as client:
        done = await client.chat("short")
        await client.wait_end(done["run_id"])
        for _ in range(2):
            await client.chat("long", agent="patient")
        await client.send({"type": "resume", "session_id": done["session_id"]})
        error = await client.wait_for(frame_of("error"))
        assert error["metadata"]["code"] == "too_many_sessions"


async def test_a_cancel_after_the_end_is_told_so(process: Process, user: AbstractBaseUser) -> None:
    async with open_chat_here(user) as client:
        accepted = await client.chat("short")
        await client.wait_end(accepted["run_id"])
        await client.cancel(accepted["session_id"], run_id=accepted["run_id"])
        head = await client.wait_for(event("run.head", run_id=accepted["run_id"]))
    assert head["metadata"]["status"] == "completed"


async def test_the_same_id_again_starts_nothing(process: Process, user: AbstractBaseUser) -> None:
    async with open_chat_here(user) as client:
        first = await client.chat("once", client_message_id="m1")
        await client.wait_end(first["run_id"])
        again = await client.chat("once", client_message_id="m1")
        assert again["duplicate"]
        assert (again["run_id"], again["message_id"]) == (first["run_id"], first["message_id"])
        await client.send_chat("something else", client_message_id="m1")
        error = await client.wait_for(frame_of("error"))
        assert error["metadata"]["code"] == "duplicate_mismatch"
        assert error["metadata"]["client_message_id"] == "m1"
    assert await Run.objects.acount() == 1


async def test_regenerate_makes_another_reply_to_the_same_message(
    process: Process, user: AbstractBaseUser
) -> None:
    async with open_chat_here(user) as client:
        first = await client.chat("again please")
        await client.wait_end(first["run_id"])
        second = await client.chat("", first["session_id"], regenerate=first["message_id"])
        end = await client.wait_end(second["run_id"])
    assert second["user_message_id"] == first["user_message_id"]
    assert second["message_id"] != first["message_id"]
    assert end["content"] == "".join(echo_words("again please"))


@pytest.mark.parametrize(
    ("frame", "name"),
    [
        ({"content": "x" * 70_000, "metadata": {"client_message_id": "m1"}}, "m1"),
        ({"content": 5, "metadata": {"client_message_id": "m1"}}, "m1"),
        ({"content": "x" * 70_000, "metadata": {"client_message_id": 5}}, None),
        ({"content": "x" * 70_000, "metadata": {"client_message_id": "m" * 101}}, None),
        ({"content": "x" * 70_000, "metadata": "m1"}, None),
        ({"content": "x" * 70_000}, None),
    ],
)
async def test_it_is_told_which_message_was_refused(
    process: Process, user: AbstractBaseUser, frame: dict[str, Any], name: str | None
) -> None:
    async with open_chat_here(user) as client:
        await client.send({"type": "chat", **frame})
        error = await client.wait_for(frame_of("error"))
    assert error["metadata"].get("client_message_id") == name
