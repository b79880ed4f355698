"""The client's socket against a server that never gets further than its greeting."""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable

import pytest
import trustme
from aiohttp import WSCloseCode, web

from agentsite.client import Client
from agentsite.client.chat import Chat
from agentsite.client.connection import PATH, Connection, Frame
from agentsite.client.http import ClientError, Http, RefusedError, UnreachableError
from tests.support.relay import relay_to
from tests.support.waiting import time_limit

CONNECTED = {
    "type": "status",
    "metadata": {
        "event": "connected",
        "heartbeat_s": 25,
        "limits": {"frame_max_bytes": 1_024},
    },
}


class Asker:
    """Asks the same on every socket."""

    is_waiting = True

    def __init__(self) -> None:
        self.opened = 0
        self.connection: Connection | None = None

    async def on_open(self) -> None:
        self.opened += 1
        assert self.connection
        await self.connection.send({"type": "chat", "content": "hello"})

    async def on_frame(self, frame: Frame) -> None:
        pass

    def on_lost(self, retry_s: float) -> None:
        pass


async def start_site(
    serve: Callable[[web.Request], Awaitable[web.WebSocketResponse]],
) -> web.AppRunner:
    """Listen on loopback for sockets; the caller ends it by `cleanup`."""
    app = web.Application()
    app.router.add_get(PATH, serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner


async def fault_of(close_code: int) -> tuple[ClientError, int]:
    """How the client gives up, and after how many sockets, where each is closed by that code."""

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(json.dumps(CONNECTED))
        await socket.receive()
        await socket.close(code=close_code)
        return socket

    runner = await start_site(serve)
    http, asker = Http(f"http://127.0.0.1:{runner.addresses[0][1]}"), Asker()
    await http.open()
    asker.connection = Connection(http, asker, patience_s=0.5)
    try:
        async with time_limit("the client's giving up"):
            with pytest.raises(ClientError) as fault:
                await asker.connection.run()
    finally:
        await http.close()
        await runner.cleanup()
    return fault.value, asker.opened


async def test_sockets_that_bring_nothing_are_not_opened_for_ever() -> None:
    fault, _ = await fault_of(WSCloseCode.INTERNAL_ERROR)
    assert isinstance(fault, UnreachableError)


async def test_what_a_proxy_finds_too_big_is_not_sent_again() -> None:
    fault, opened = await fault_of(WSCloseCode.MESSAGE_TOO_BIG)
    assert isinstance(fault, RefusedError)
    assert (fault.code, opened) == ("too_large", 1)


async def serve_chats(answers: list[Frame]) -> tuple[web.AppRunner, list[str]]:
    """A site that answers chats by these frames, each for the message that comes; and what came."""
    came: list[str] = []

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(json.dumps(CONNECTED))
        async for message in socket:
            frame = json.loads(message.data)
            if frame["type"] != "chat":
                continue
            came.append(frame["content"])
            answer = answers.pop(0)
            name = {"client_message_id": frame["metadata"]["client_message_id"]}
            await socket.send_str(json.dumps({**answer, "metadata": answer["metadata"] | name}))
        return socket

    return await start_site(serve), came


def busy(retry_after: float | None) -> Frame:
    metadata = {"code": "unavailable", "retryable": True, "terminal": False}
    metadata |= {} if retry_after is None else {"retry_after": retry_after}
    return {"type": "error", "session_id": "s", "content": "Later.", "metadata": metadata}


def accepted(number: int) -> Frame:
    metadata = {"event": "accepted", "run_id": f"r{number}", "message_id": f"a{number}"}
    return {"type": "status", "session_id": "s", "content": "", "metadata": metadata}


class NotingChat(Chat):
    """Sets `postponed` when the site has had no room for a chat."""

    def __init__(self, http: Http) -> None:
        super().__init__(http, "s", agent="", patience_s=60)
        self.postponed = asyncio.Event()

    def _postpone(self, frame: Frame) -> bool:
        if is_postponed := super()._postpone(frame):
            self.postponed.set()
        return is_postponed


async def test_a_chat_that_has_no_room_is_sent_again_before_later_ones() -> None:
    runner, came = await serve_chats([accepted(1), busy(0.01), accepted(2), accepted(3)])
    http = Http(f"http://127.0.0.1:{runner.addresses[0][1]}")
    await http.open()
    try:
        chat = NotingChat(http)
        async with time_limit("replies"), chat:
            await (await chat.send("one")).taken()
            second = await chat.send("two")
            await chat.postponed.wait()
            third = await chat.send("three")
            await second.taken()
            await third.taken()
    finally:
        await http.close()
        await runner.cleanup()
    assert came == ["one", "two", "two", "three"]


@pytest.mark.parametrize("retry_after", [None, 3_600], ids=["no time", "too long"])
async def test_a_chat_is_refused_that_has_no_room_for_too_long(retry_after: float | None) -> None:
    runner, came = await serve_chats([busy(retry_after)])
    http = Http(f"http://127.0.0.1:{runner.addresses[0][1]}")
    await http.open()
    try:
        async with time_limit("the refusal"), Chat(http, "s", agent="", patience_s=60) as chat:
            with pytest.raises(RefusedError) as refused:
                await (await chat.send("one")).wait()
    finally:
        await http.close()
        await runner.cleanup()
    assert (refused.value.code, came) == ("unavailable", ["one"])


def test_a_site_that_is_busy_says_when_to_come_back() -> None:
    connection = Connection(Http("http://site.test"), Asker(), patience_s=60)
    connection._busy_s = 8.0
    assert 8 <= connection._pause_after(4013) <= 12
    assert connection._pause_after(4013) <= 1


async def test_a_certificate_of_an_unknown_authority_is_named() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with (
        relay_to(1, context) as (_, url),
        Client(url.replace("http:", "https:")) as client,
    ):
        with pytest.raises(UnreachableError, match="its certificate is not accepted: unable to"):
            await client.sign_in("ann", "x")
