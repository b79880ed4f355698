"""The HTTP server of the stand-in."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future

from aiohttp import web

from tests.support.machine import scaled
from tests.support.provider.chat_wire import ChatWire
from tests.support.provider.checks import refusal
from tests.support.provider.responses_wire import ResponsesWire
from tests.support.provider.script import Api, Call, Reply, Script, echo
from tests.support.waiting import TIMEOUT_S, Noticeboard

MODEL = "stand-in"
WIRES: dict[Api, type[ChatWire] | type[ResponsesWire]] = {
    "chat": ChatWire,
    "responses": ResponsesWire,
}


class Provider:
    """Answers by `script`, or with queued replies, and records every call."""

    def __init__(self, script: Script = echo) -> None:
        self.script = script
        self.needs_reasoning = False
        self.port = 0
        self.calls: list[Call] = []
        self._queued: list[Reply] = []
        self._taken = 0
        self._is_stopping = False
        self._board = Noticeboard()

    @property
    def base_url(self) -> str:
        """The value of `OPENAI_BASE_URL` for it."""
        return f"http://127.0.0.1:{self.port}/v1"

    def forget(self) -> None:
        """Delete all recorded calls and queued replies."""
        self.calls, self._queued, self._taken = [], [], 0
        self.needs_reasoning = False

    def queue(self, *replies: Reply) -> None:
        """Answer the next requests with these replies, in order."""
        self._queued.extend(replies)

    def wait(self, met: "Callable[[Provider], object]", *, within: float = TIMEOUT_S) -> None:
        """Block until `met(self)`, as in `provider.wait(lambda p: len(p.calls) == 2)`."""
        self._board.wait(lambda: met(self), within=within)

    async def until(
        self, met: "Callable[[Provider], object]", *, within: float = TIMEOUT_S
    ) -> None:
        """The same for a task."""
        await self._board.until(lambda: met(self), within=within)

    def wait_call(self, *, within: float = TIMEOUT_S) -> Call:
        """Return the next call that this method has not returned yet; blocks until it arrives."""
        self.wait(lambda p: len(p.calls) > p._taken, within=within)
        return self._take()

    async def next_call(self, *, within: float = TIMEOUT_S) -> Call:
        """The same for a task."""
        await self.until(lambda p: len(p.calls) > p._taken, within=within)
        return self._take()

    def _take(self) -> Call:
        self._taken += 1
        return self.calls[self._taken - 1]

    @contextlib.asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[None]:
        """Listen on `port` of the loopback interface; sets `port` and `base_url`."""
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_post("/v1/chat/completions", self._answer_chat)
        app.router.add_post("/v1/responses", self._answer_responses)
        runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.05
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
            self.port = runner.addresses[0][1]
            yield
        finally:
            self._is_stopping = True
            await runner.cleanup()

    async def _list_models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    async def _answer_chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer("chat", request)

    async def _answer_responses(self, request: web.Request) -> web.StreamResponse:
        return await self._answer("responses", request)

    async def _answer(self, api: Api, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        call = Call(len(self.calls) + 1, api, body, dict(request.headers))
        call.refusal = refusal(api, body, needs_reasoning=self.needs_reasoning)
        if not call.refusal:
            call.reply = self._queued.pop(0) if self._queued else self.script(call)
        self.calls.append(call)
        self._board.post()
        try:
            return await self._respond(request, call)
        except (asyncio.CancelledError, ConnectionError):
            if not self._is_stopping and call.finished_at is None:
                call.disconnected_at = time.monotonic()
                call.board.post()
            raise

    async def _respond(self, request: web.Request, call: Call) -> web.StreamResponse:
        if call.refusal:
            return _error(400, call.refusal)
        if call.reply.hold:
            await call.reply.hold.passed(0)
        if call.reply.error_status:
            return _scripted_error(call.reply)
        return await _stream(request, call)


async def _stream(request: web.Request, call: Call) -> web.StreamResponse:
    reply, wire = call.reply, WIRES[call.api](call)
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache",
            "x-request-id": f"req_{call.number}",
        }
    )
    await response.prepare(request)
    await _write(response, call, wire.opening())
    for delta in reply.reasoning:
        await _write(response, call, wire.reasoning(delta))
    await _send_tokens(response, wire, call)
    if reply.cut_after is not None:
        assert request.transport
        request.transport.abort()
    elif reply.end_after is None:
        if reply.gate:
            await reply.gate.passed(len(reply.tokens))
        final = wire.error(reply.stream_error) if reply.stream_error else wire.closing()
        await _write(response, call, final)
    call.finished_at = time.monotonic()
    call.board.post()
    return response


async def _write(response: web.StreamResponse, call: Call, data: bytes) -> None:
    size = call.reply.piece_bytes or len(data)
    for start in range(0, len(data), size):
        await response.write(data[start : start + size])


async def _send_tokens(
    response: web.StreamResponse, wire: ChatWire | ResponsesWire, call: Call
) -> None:
    """Send tokens at fixed times, so that delays do not add up."""
    reply, loop = call.reply, asyncio.get_running_loop()
    due = loop.time() + reply.first_delay_s
    ends = [n for n in (reply.cut_after, reply.end_after) if n is not None]
    stop = min([len(reply.tokens), *ends])
    for position, token in enumerate(reply.tokens[:stop]):
        if reply.gate:
            await reply.gate.passed(position)
        if (pause := due - loop.time()) > 0:
            await asyncio.sleep(pause)
        due += reply.delay_s
        # Before the write: a client that has read a token must find it counted.
        call.sent += 1
        await _write(response, call, wire.text(token))
        call.board.post()


def _scripted_error(reply: Reply) -> web.Response:
    headers = {} if reply.retry_after is None else {"Retry-After": str(reply.retry_after)}
    message = reply.error_message
    return _error(reply.error_status, message, code=reply.error_code, headers=headers)


def _error(
    status: int, message: str, *, code: str | None = None, headers: dict[str, str] | None = None
) -> web.Response:
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    return web.json_response({"error": error}, status=status, headers=headers)


@contextlib.contextmanager
def run_provider(script: Script = echo) -> Iterator[Provider]:
    """Serve in a thread of this process, so that tests can control it while it streams."""
    provider = Provider(script)
    started: Future[Callable[[], object]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(provider, started)), daemon=True)
    thread.start()
    stop = started.result(scaled(TIMEOUT_S))
    try:
        yield provider
    finally:
        stop()
        thread.join(scaled(TIMEOUT_S))


async def _serve(provider: Provider, started: "Future[Callable[[], object]]") -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        async with provider.serving():
            started.set_result(lambda: loop.call_soon_threadsafe(stopped.set))
            await stopped.wait()
    except BaseException as exc:
        if not started.done():
            started.set_exception(exc)
        raise
