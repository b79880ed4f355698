"""Chats over REST: whole replies, streams of frames, stops."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from agents.items import TResponseStreamEvent
from channels.layers import get_channel_layer
from django.test import AsyncClient
from django.utils import timezone

from conversations.errors import AgentSiteError
from conversations.models import ApiKey, ChatSession, Run, RunStatus
from conversations.people.accounts import create_key
from conversations.sessions import posting
from conversations.sessions.posting import NewChat, Posted
from realtime import protocol
from realtime.api.turns import stream_turn
from realtime.process import Process
from realtime.sockets.poller import Socket
from realtime.sockets.viewer import Viewer
from tests.support.chats import make_user, talk
from tests.support.conformance import frames_of
from tests.support.site_agents import EchoModel, echo_words
from tests.support.threads import in_thread
from tests.support.transcript import BaseClient
from tests.support.waiting import poll, time_limit

JSON = "application/json"
STREAM = {"Accept": "text/event-stream"}


@pytest.fixture(autouse=True)
def echo(settings: Any) -> None:
    settings.AGENTS = "tests.support.site_agents"


@pytest.fixture
async def ann(process: Process) -> Any:
    return await in_thread(make_user, "ann")


@pytest.fixture
async def api(ann: Any) -> AsyncClient:
    client = AsyncClient()
    await client.aforce_login(ann)
    return client


async def read_stream(response: Any) -> list[dict[str, Any]]:
    return frames_of(b"".join([piece async for piece in response]))


def count_readers(process: Process) -> int:
    readers: list[Any] = []
    process.poller.each(readers.append)
    return len(readers)


async def test_the_answer_is_the_reply(api: AsyncClient) -> None:
    answer = await api.post("/api/chat/", {"content": "hello there"}, JSON)
    assert answer.status_code == 200
    body = answer.json()
    assert body["message"]["text"] == "".join(echo_words("hello there"))
    assert (body["run"]["status"], body["duplicate"]) == ("completed", False)
    assert (await Run.objects.aget()).status == RunStatus.COMPLETED
    session = await ChatSession.objects.aget()
    # Nobody watches it, so nobody's leaving ends it.
    assert session.viewed_until is None
    more = await api.post(f"/api/sessions/{session.pk}/chat/", {"content": "and now"}, JSON)
    assert more.json()["session_id"] == str(session.pk)


async def test_a_stream_of_the_same_frames_as_a_socket(api: AsyncClient) -> None:
    response = await api.post("/api/chat/", {"content": "hello there"}, JSON, headers=STREAM)
    assert response["Content-Type"] == "text/event-stream"
    frames = await read_stream(response)
    assert frames[0]["metadata"]["event"] == "accepted"
    assert frames[-1]["type"] == "complete"
    seqs = [frame["metadata"]["seq"] for frame in frames if "seq" in frame["metadata"]]
    assert seqs == list(range(1, len(seqs) + 1))
    base = BaseClient()
    for frame in frames:
        base.apply(frame)
    assert base.replies == ["".join(echo_words("hello there"))]


async def test_the_same_id_again_is_the_same_reply(api: AsyncClient) -> None:
    asked = {"content": "once", "client_message_id": "m1"}
    first = (await api.post("/api/chat/", asked, JSON)).json()
    again = (await api.post("/api/chat/", asked, JSON)).json()
    assert (again["duplicate"], again["run"]) == (True, first["run"])
    frames = await read_stream(await api.post("/api/chat/", asked, JSON, headers=STREAM))
    assert frames[-1]["content"] == first["message"]["text"]
    other = await api.post("/api/chat/", asked | {"content": "another"}, JSON)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "duplicate_mismatch")
    assert await Run.objects.acount() == 1


async def test_without_waiting_the_reply_goes_on(
    api: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_answered, stream_response = asyncio.Event(), EchoModel.stream_response

    async def stream_late(*args: Any, **options: Any) -> AsyncIterator[TResponseStreamEvent]:
        await is_answered.wait()
        async for event in stream_response(*args, **options):
            yield event

    monkeypatch.setattr(EchoModel, "stream_response", stream_late)
    answer = await api.post("/api/chat/", {"content": "hello", "wait": False}, JSON)
    is_answered.set()
    assert answer.status_code == 202
    run = answer.json()["run"]
    asked = {"content": "x", "client_message_id": "next"}
    follower = await api.post(f"/api/sessions/{answer.json()['session_id']}/chat/", asked, JSON)
    assert follower.json()["run"]["run_number"] == run["run_number"] + 1
    assert (await Run.objects.aget(pk=run["run_id"])).status == RunStatus.COMPLETED


@pytest.mark.parametrize("headers", [{}, STREAM])
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "bad_frame"),
        ({"content": "  "}, 400, "bad_frame"),
        ({"content": "x", "on_busy": "explode"}, 400, "bad_frame"),
        ({"content": "x" * 65_537}, 400, "bad_frame"),
        ({"content": "x", "agent": "nobody"}, 400, "unknown_agent"),
        ({"content": "x", "regenerate": "nonsense"}, 404, "not_found"),
    ],
)
async def test_a_refusal_is_an_http_status(
    api: AsyncClient, headers: dict[str, str], body: dict[str, Any], status: int, code: str
) -> None:
    answer = await api.post("/api/chat/", body, JSON, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_a_foreign_session_is_not_there(api: AsyncClient) -> None:
    foreign = await in_thread(talk, await in_thread(make_user, "ben"), ("secret", "1"))
    for name in ("chat", "cancel"):
        address = f"/api/sessions/{foreign.pk}/{name}/"
        assert (await api.post(address, {"content": "x"}, JSON)).status_code == 404


async def test_strangers_and_cookies_alone_are_refused(api: AsyncClient, ann: Any) -> None:
    assert (await AsyncClient().post("/api/chat/", {"content": "x"}, JSON)).status_code == 401
    careful = AsyncClient(enforce_csrf_checks=True)
    await careful.aforce_login(ann)
    assert (await careful.post("/api/chat/", {"content": "x"}, JSON)).status_code == 403
    assert (await api.get("/api/chat/")).status_code == 405
    assert not await Run.objects.aexists()


async def test_a_reply_is_stopped(api: AsyncClient, ann: Any) -> None:
    asked = NewChat(content="hello", agent="patient")
    async with aclosing(stream_turn(ann, asked, watches=True)) as frames:
        accepted = await anext(frames)
        run_id = accepted["metadata"]["run_id"]
        address = f"/api/sessions/{accepted['session_id']}/cancel/"
        async for frame in frames:
            if frame["type"] == "token":
                answer = await api.post(address, {"run_id": run_id}, JSON)
                assert (answer.status_code, answer.json()["run_id"]) == (200, run_id)
                break
        last = [frame async for frame in frames][-1]
    assert last["type"] == "complete"
    late = await api.post(address, {"run_id": run_id}, JSON)
    assert late.json()["ended_before"]


async def test_a_reader_that_goes_leaves_nothing_behind(process: Process, ann: Any) -> None:
    frames = stream_turn(ann, NewChat(content="hello"), watches=True)
    await anext(frames)
    assert count_readers(process) == 1
    await frames.aclose()
    assert count_readers(process) == 0
    async with time_limit("the refusal"):
        with pytest.raises(AgentSiteError):
            await anext(stream_turn(ann, NewChat(content=""), watches=True))
    assert count_readers(process) == 0


async def test_a_chat_whose_caller_goes_is_begun_all_the_same(
    ann: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the moment between the commit and the answer; nobody waits for a lease to expire."""
    stored, go_on = threading.Event(), threading.Event()
    post_chat = posting.post_chat

    def post_slowly(**asked: Any) -> Posted:
        posted = post_chat(**asked)
        stored.set()
        go_on.wait(10)
        return posted

    monkeypatch.setattr(posting, "post_chat", post_slowly)
    frames = stream_turn(ann, NewChat(content="hello"), watches=False)
    first = asyncio.ensure_future(anext(frames))
    assert await in_thread(stored.wait, 10)
    first.cancel()
    await asyncio.wait([first])
    go_on.set()
    done = {"status": RunStatus.COMPLETED, "epoch": 1}
    await in_thread(poll, lambda: Run.objects.filter(**done).exists(), "the reply", within=10)
    # Nor does the reader that has gone join anything after that.
    assert not any(get_channel_layer().groups.values())


async def test_no_frame_for_every_reader_comes_before_the_answer(
    process: Process, ann: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    post_chat = posting.post_chat
    draining = protocol.status(protocol.Draining(reconnect_after_ms=1)).encode()

    def tell(socket: Socket) -> None:
        socket.outbox.put(draining)

    def post_meanwhile(**asked: Any) -> Posted:
        process.loop.call_soon_threadsafe(process.poller.each, tell)
        return post_chat(**asked)

    monkeypatch.setattr(posting, "post_chat", post_meanwhile)
    async with aclosing(stream_turn(ann, NewChat(content="hello"), watches=False)) as frames:
        first = await anext(frames)
    assert first["metadata"]["event"] == "accepted"


@pytest.mark.parametrize("headers", [{}, STREAM])
async def test_a_server_that_stops_before_the_answer_is_unavailable(
    process: Process,
    api: AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
) -> None:
    post_chat = posting.post_chat

    def post_meanwhile(**asked: Any) -> Posted:
        let_go = threading.Event()

        def cut_all() -> None:
            process.poller.each(lambda socket: socket.outbox.cut(protocol.CLOSE_RESTART))
            let_go.set()

        process.loop.call_soon_threadsafe(cut_all)
        let_go.wait(10)
        return post_chat(**asked)

    monkeypatch.setattr(posting, "post_chat", post_meanwhile)
    answer = await api.post("/api/chat/", {"content": "hello"}, JSON, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


async def test_a_reader_that_cannot_be_served_is_let_go(
    ann: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(viewer: Viewer) -> None:
        raise RuntimeError("nothing can be read")

    monkeypatch.setattr(Viewer, "on_drained", fail)
    frames = stream_turn(ann, NewChat(content="hello", agent="patient"), watches=False)
    async with time_limit("the end of the stream"), aclosing(frames):
        told = [frame["metadata"].get("event") async for frame in frames]
    assert told[0] == "accepted"


@pytest.mark.parametrize("by", ["cookie", "key"])
async def test_a_stream_ends_with_the_sign_in(process: Process, ann: Any, by: str) -> None:
    client, headers = AsyncClient(), dict(STREAM)
    if by == "cookie":
        await client.aforce_login(ann)
    else:
        _, text = await in_thread(create_key, user=ann, name="x", scopes=["read", "write"])
        headers["Authorization"] = f"Bearer {text}"
    asked = {"content": "hello", "agent": "patient"}
    response: Any = await client.post("/api/chat/", asked, JSON, headers=headers)
    pieces = response.streaming_content
    assert b"accepted" in await anext(pieces)
    if by == "cookie":
        await client.alogout()
    else:
        await ApiKey.objects.aupdate(revoked_at=timezone.now())
    await process.poller.poll()
    async with time_limit("the end of the stream"):
        rest = b"".join([piece async for piece in pieces])
    assert b"event: complete" not in rest
    assert count_readers(process) == 0
    response.close()
