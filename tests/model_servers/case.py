"""A case: the exact bytes of an odd model server, and what a reader is to see of its reply.

A case is a file in `cases/`, in JSON; `docs/models.md` says what is in it.
"""

import asyncio
import contextlib
import json
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.machine import scaled
from tests.support.provider.checks import refusal
from tests.support.waiting import TIMEOUT_S

FOLDER = Path(__file__).parent / "cases"


@dataclass(frozen=True)
class Case:
    """One file of `cases/`."""

    name: str
    api: str
    answers: list[dict[str, Any]]
    expect: dict[str, Any]
    about: str = ""
    agent: str = "desk"
    title: str = ""
    said: tuple[str, ...] = ("How many?",)
    """What a person says, one message after the other; the last reply is what is looked at."""
    strict: str = ""
    """`rules` for a server with the rules of all servers, `thoughts` where it demands those too."""

    def __str__(self) -> str:
        return self.name


def read_cases() -> list[Case]:
    """All cases, by name."""
    return [
        Case(name=path.stem, **json.loads(path.read_text())) for path in sorted(FOLDER.iterdir())
    ]


@dataclass
class RawServer:
    """Gives the answers one by one, the last of them again and again; keeps what it was asked.

    Where it is `strict`, it refuses what some server would, and keeps why.
    """

    answers: list[dict[str, Any]]
    title: str = ""
    api: str = "chat"
    strict: str = ""
    port: int = 0
    refusals: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, and its answer."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = head.partition("content-length:")[2].split("\r\n", 1)[0]
            body = json.loads(await reader.readexactly(int(length or 0)))
            await self._answer(self._pick(body), reader, writer)
        writer.close()

    def _pick(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.title and "Give the conversation below a title" in json.dumps(body):
            return {"body": [self.title]}
        needs_thoughts = self.strict == "thoughts"
        if self.strict and (why := refusal(self.api, body, needs_reasoning=needs_thoughts)):
            self.refusals.append(why)
            told = json.dumps({"error": {"message": why, "type": "invalid_request_error"}})
            return {"status": 400, "type": "application/json", "body": [told]}
        self.requests.append(body)
        return self.answers[min(len(self.requests), len(self.answers)) - 1]

    async def _answer(
        self, answer: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        packer = zlib.compressobj(wbits=31) if answer.get("gzip") else None
        writer.write(_head(answer))
        for piece in answer["body"]:
            if isinstance(piece, float):
                # So that what comes before is read for itself; nothing depends on how long it is.
                await writer.drain()
                await asyncio.sleep(piece)
                continue
            data = encode_piece(piece)
            writer.write(packer.compress(data) + packer.flush(2) if packer else data)
            await writer.drain()
        if answer.get("end") == "hang":
            while await reader.read(100):
                pass
        elif answer.get("end") == "abort":
            writer.transport.abort()
        elif packer:
            writer.write(packer.flush())
        await writer.drain()


def _head(answer: dict[str, Any]) -> bytes:
    status = answer.get("status", 200)
    headers = {"Content-Type": answer.get("type", "text/event-stream"), "Connection": "close"}
    headers |= answer.get("headers", {})
    if answer.get("gzip"):
        headers["Content-Encoding"] = "gzip"
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def encode_piece(piece: Any) -> bytes:
    """An event from an object, else the text itself; `hex:` for bytes that are no text."""
    if isinstance(piece, dict):
        name = f"event: {piece['type']}\n" if "type" in piece else ""
        return f"{name}data: {json.dumps(piece)}\n\n".encode(errors="replace")
    if piece.startswith("hex:"):
        return bytes.fromhex(piece[4:])
    return str(piece).encode()


@contextlib.contextmanager
def run_raw_server(case: Case) -> Iterator[RawServer]:
    """The server of a case, in a thread of this process."""
    server = RawServer(case.answers, case.title, case.api, case.strict)
    started: Future[Callable[[], object]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(server, started)), daemon=True)
    thread.start()
    stop = started.result(scaled(TIMEOUT_S))
    try:
        yield server
    finally:
        stop()
        thread.join(scaled(TIMEOUT_S))


async def _serve(server: RawServer, started: "Future[Callable[[], object]]") -> None:
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=2**26)
    server.port = listening.sockets[0].getsockname()[1]
    started.set_result(lambda: loop.call_soon_threadsafe(stopped.set))
    await stopped.wait()
    listening.close()
