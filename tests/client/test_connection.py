"""The client's socket against a server that never gets further than its greeting."""

import json
import ssl

import pytest
import trustme
from aiohttp import WSCloseCode, web

from agentsite.client import Client
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


async def fault_of(close_code: int) -> tuple[ClientError, int]:
    """How the client gives up, and after how many sockets, where each is closed by that code."""

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(json.dumps(CONNECTED))
        await socket.receive()
        await socket.close(code=close_code)
        return socket

    app = web.Application()
    app.router.add_get(PATH, serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
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


async def test_a_certificate_of_an_unknown_authority_is_named() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with (
        relay_to(1, context) as (_, url),
        Client(url.replace("http:", "https:")) as client,
    ):
        with pytest.raises(UnreachableError, match="its certificate is not accepted: unable to"):
            await client.sign_in("ann", "x")
