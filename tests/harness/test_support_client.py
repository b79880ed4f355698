"""The chat client: what it waits for, and how it tells that a socket is gone or wrong."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from websockets.asyncio.server import ServerConnection, serve

from tests.harness.test_support_transcript import WHOLE, complete, status, token
from tests.support.client import ChatClient, event, frame_of, open_chat
from tests.support.transcript import Frame
from tests.support.waiting import time_limit

Handler = Callable[[ServerConnection], Awaitable[None]]


@contextlib.asynccontextmanager
async def connected(handler: Handler) -> AsyncIterator[ChatClient]:
    """A client of a server that does what `handler` says."""
    async with serve(handler, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with open_chat(f"ws://127.0.0.1:{port}/", bearer="secret") as client:
            yield client


async def answer(connection: ServerConnection, *frames: Frame) -> None:
    for frame in frames:
        await connection.send(json.dumps(frame))


async def test_chat_and_end() -> None:
    async def handler(connection: ServerConnection) -> None:
        assert connection.request
        assert connection.request.headers["Authorization"] == "Bearer secret"
        chat = json.loads(await connection.recv())
        ids = {"user_message_id": "u", "message_id": "message-1", "run_id": "run-1"}
        ids["client_message_id"] = chat["metadata"]["client_message_id"]
        accepted = status("accepted", **ids, outcome="started", duplicate=False)
        await answer(connection, accepted, *WHOLE)
        await connection.wait_closed()

    async with connected(handler) as client:
        accepted = await client.chat("hi")
        assert accepted["session_id"] == "s"
        assert (await client.wait_end("run-1"))["content"] == "hey"
        await client.wait_text("run-1", "he")
        assert await client.wait_for(frame_of("token", seq=3)) == token("y", 3)
        assert await client.wait_for(event("run.started"), after=1) == WHOLE[0]


async def test_refused_chat() -> None:
    async def handler(connection: ServerConnection) -> None:
        client_message_id = json.loads(await connection.recv())["metadata"]["client_message_id"]
        metadata = {"code": "busy", "retryable": True, "client_message_id": client_message_id}
        refusal = {"type": "error", "session_id": "", "content": "no", "metadata": metadata}
        await answer(connection, refusal)
        await connection.wait_closed()

    async with connected(handler) as client:
        with pytest.raises(AssertionError, match="busy"):
            await client.chat("hi")


async def test_close_code() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.close(4001)

    async with connected(handler) as client:
        assert await client.wait_closed() == 4001
        with pytest.raises(ConnectionError, match="4001"):
            await client.wait_for(frame_of("pong"))


async def test_fault_is_raised_where_somebody_waits_and_at_the_end() -> None:
    async def handler(connection: ServerConnection) -> None:
        await answer(connection, complete("gap", 2))
        await connection.wait_closed()

    async def wait_in_vain() -> None:
        async with connected(handler) as client:
            with pytest.raises(AssertionError, match="seq was 0"):
                await client.wait_for(frame_of("complete"))

    with pytest.raises(AssertionError, match="seq was 0"):
        await wait_in_vain()


async def test_what_came_instead_is_told() -> None:
    async def handler(connection: ServerConnection) -> None:
        await answer(connection, WHOLE[0])
        await connection.wait_closed()

    async with connected(handler) as client:
        await client.wait_for(event("run.started"))
        with pytest.raises(TimeoutError, match=r"run\.started"):
            await client.wait_for(frame_of("complete"), within=0.01)


async def test_cut_is_seen_by_the_server() -> None:
    cut = asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        await connection.wait_closed()
        assert connection.close_code == 1006
        cut.set()

    async with connected(handler) as client:
        client.drop()
        async with time_limit("the cut"):
            await cut.wait()


async def test_asleep_reads_nothing_until_it_wakes() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.recv()
        await answer(connection, *WHOLE)
        await connection.recv()
        await connection.wait_closed()

    async with connected(handler) as client:
        client.fall_asleep()
        await client.send_text("begin")
        with pytest.raises(TimeoutError):
            await client.wait_end("run-1", within=0.05)
        client.wake_up()
        await client.wait_end("run-1")
