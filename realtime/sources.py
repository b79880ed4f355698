"""Gathers a model's event stream where it comes in, before anything parses it token by token.

The SDK spends a third of a millisecond on every event, whatever is in it. After the first text
the stream is read once a window, and neighbouring deltas of the same text become one event, which
changes neither items, usage nor finish reason. It also notices a stream that breaks off, which
over Chat Completions would pass for a finished reply.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpx2

from realtime.conf import get_conf

Event = dict[str, Any]
Key = tuple[Any, ...]

FULL_CHUNK = 16_384
"""Bytes that the HTTP client hands over at most: after so many, more is waiting already."""

MERGED_TYPES = ("response.output_text.delta", "response.function_call_arguments.delta")
FINAL_TYPES = ("response.completed", "response.incomplete", "response.failed", "error")


@dataclass
class Verdict:
    """How the model's side says its latest reply has ended, in Chat Completions' words.

    `failed` besides, with the code of the error; empty while it streams. The SDK takes some of
    these for a finished reply.
    """

    finish_reason: str = ""
    error_code: str = ""


verdict: ContextVar[Verdict | None] = ContextVar("verdict", default=None)
"""A run's own, which the streams of its model calls write to."""


async def gather(response: httpx2.Response) -> None:
    """Response hook for the HTTP client: wraps an event stream that is not compressed."""
    kind = response.headers.get("content-type", "")
    if kind.startswith("text/event-stream") and "content-encoding" not in response.headers:
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = GatheredStream(response.stream, get_conf().source_window_ms / 1000)


class GatheredStream(httpx2.AsyncByteStream):
    """An event stream with fewer and larger events; `window_s` in seconds."""

    def __init__(self, stream: httpx2.AsyncByteStream, window_s: float) -> None:
        self._stream = stream
        self._window_s = window_s
        self._verdict = verdict.get() or Verdict()
        self._merger = Merger()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        merger = self._merger
        async for chunk in self._stream:
            merged = merger.feed(chunk)
            # Before the yield: who has seen the end does not come back for more.
            self._verdict.finish_reason = merger.finish_reason
            self._verdict.error_code = merger.error_code
            if merged:
                yield merged
            if merger.has_text and not merger.is_final:
                await (asyncio.sleep(0) if len(chunk) >= FULL_CHUNK else self._gather())
        yield merger.rest()
        if not merger.is_final:
            raise httpx2.RemoteProtocolError("the event stream broke off")

    async def _gather(self) -> None:
        """Leave what comes to the kernel for a window: one read instead of one a token."""
        transport = _transport(self._stream)
        if transport is not None:
            transport.pause_reading()
        try:
            await asyncio.sleep(self._window_s)
        finally:
            if transport is not None:
                transport.resume_reading()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _transport(stream: Any) -> asyncio.ReadTransport | None:
    """The connection below the SDK's aiohttp client; None once the whole response is there.

    The way down is private to httpx2 and openai, which requirements.txt pins; without it the
    stream is gathered all the same, at the cost of a read for each token.
    """
    answer = getattr(getattr(stream, "_stream", stream), "_aiohttp_response", None)
    connection = getattr(answer, "connection", None)
    return None if connection is None else connection.transport


class Merger:
    """Takes bytes of an event stream and gives whole events, neighbouring deltas merged."""

    def __init__(self) -> None:
        self._buffer = b""
        self.has_text = False
        self.is_final = False
        self.finish_reason = ""
        self.error_code = ""

    def feed(self, chunk: bytes) -> bytes:
        """The whole events in what has come so far."""
        buffer = (self._buffer + chunk).replace(b"\r\n", b"\n")
        whole, boundary, self._buffer = buffer.rpartition(b"\n\n")
        return b"".join(self._merge(whole.split(b"\n\n"))) if boundary else b""

    def rest(self) -> bytes:
        """What is left at the end of the stream, as it is."""
        rest, self._buffer = self._buffer, b""
        return b"".join(self._merge([rest])) if rest else b""

    def _merge(self, blocks: list[bytes]) -> Iterator[bytes]:
        """Deltas with the same key as the one before are added to it; all else stays as it is."""
        held: Event | None = None
        held_key: Key | None = None
        raw = b""
        for block in blocks:
            event = self._read(block)
            key = _delta_key(event) if event is not None else None
            if held is not None and key == held_key:
                _add(held, event)
                raw = b""
                continue
            if held is not None:
                yield raw or _encode(held)
            raw = block + b"\n\n"
            held, held_key = (event, key) if key is not None else (None, None)
            if held is None:
                yield raw
        if held is not None:
            yield raw or _encode(held)

    def _read(self, block: bytes) -> Event | None:
        """The event in a block; None for a comment, the end mark and what is not JSON."""
        data = _data(block)
        if data.startswith(b"[DONE]"):
            self.is_final = True
        if not data.startswith(b"{"):
            return None
        try:
            event: Event = json.loads(data)
        except ValueError:
            return None
        self._note(event)
        return event

    def _note(self, event: Event) -> None:
        kind = event.get("type")
        if kind in FINAL_TYPES or "error" in event:
            self.is_final = True
            self.finish_reason = _response_reason(event)
            self.error_code = _error_code(event)
        elif kind == "response.output_text.delta":
            self.has_text = True
        for choice in event.get("choices") or ():
            if choice.get("finish_reason"):
                self.is_final = True
                self.finish_reason = choice["finish_reason"]
            if (choice.get("delta") or {}).get("content"):
                self.has_text = True


def _response_reason(event: Event) -> str:
    """What the last event of a response says of its end."""
    if event.get("type") == "response.completed":
        return "stop"
    details = (event.get("response") or {}).get("incomplete_details") or {}
    reason = details.get("reason", "failed")
    return "length" if reason == "max_output_tokens" else str(reason)


def _error_code(event: Event) -> str:
    """Of a failure; the two APIs put it in different places."""
    error = event.get("error") or (event.get("response") or {}).get("error") or event
    return str(error.get("code") or "") if isinstance(error, dict) else ""


def _data(block: bytes) -> bytes:
    if block.startswith(b"data: ") and b"\n" not in block:
        return block[6:]
    lines = (line for line in block.split(b"\n") if line.startswith(b"data:"))
    return b"\n".join(line[5:].strip() for line in lines)


def _delta_key(event: Event) -> Key | None:
    """What two deltas must have in common to be merged; None for what is not such a delta."""
    kind = event.get("type")
    if kind is None:
        return _chat_key(event)
    if kind not in MERGED_TYPES or event.get("logprobs"):
        return None
    return kind, event.get("item_id"), event.get("output_index"), event.get("content_index")


_CHAT_KEYS = {"id", "object", "created", "model", "choices", "system_fingerprint", "usage",
              "service_tier", "obfuscation"}  # fmt: skip
_CHOICE_KEYS = {"index", "delta", "finish_reason", "logprobs"}
_DELTA_KEYS = {"content", "role"}


def _chat_key(event: Event) -> Key | None:
    choices = event.get("choices")
    if not choices or len(choices) != 1 or not event.keys() <= _CHAT_KEYS or event.get("usage"):
        return None
    choice = choices[0]
    delta = choice.get("delta") or {}
    if not choice.keys() <= _CHOICE_KEYS or not delta.keys() <= _DELTA_KEYS:
        return None
    is_text = isinstance(delta.get("content"), str)
    if not is_text or choice.get("finish_reason") or choice.get("logprobs"):
        return None
    return "chat", event.get("id"), choice.get("index"), delta.get("role")


def _add(held: Event, event: Event | None) -> None:
    """Add a delta to another of the same text."""
    assert event is not None
    if "choices" in held:
        held["choices"][0]["delta"]["content"] += event["choices"][0]["delta"]["content"]
    else:
        held["delta"] += event["delta"]
        held["sequence_number"] = event.get("sequence_number")


def _encode(event: Event) -> bytes:
    name = f"event: {event['type']}\n" if "type" in event else ""
    return f"{name}data: {json.dumps(event)}\n\n".encode()
