"""Gathers a model's event stream where it comes in, before anything parses it token by token.

The SDK spends a third of a millisecond on every event, whatever is in it. After the first text
the stream is read once a window, and neighbouring deltas of the same text become one event, which
changes neither items, usage nor finish reason. It also notices a stream that breaks off, which
over Chat Completions would pass for a finished reply.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2

from realtime.conf import get_conf

Event = dict[str, Any]

FULL_CHUNK = 16_384
"""Bytes that the HTTP client hands over at most: after so many, more is waiting already."""

FINAL_TYPES = ("response.completed", "response.incomplete", "response.failed", "error")


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
        self._merger = Merger()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        merger = self._merger
        async for chunk in self._stream:
            merged = merger.feed(chunk)
            if merged:
                yield merged
            if merger.has_text and not merger.is_final:
                await asyncio.sleep(0 if len(chunk) >= FULL_CHUNK else self._window_s)
        yield merger.rest()
        if not merger.is_final:
            raise httpx2.RemoteProtocolError("the event stream broke off")

    async def aclose(self) -> None:
        await self._stream.aclose()


class Merger:
    """Takes bytes of an event stream and gives whole events, neighbouring deltas merged."""

    def __init__(self) -> None:
        self._buffer = b""
        self.has_text = False
        self.is_final = False

    def feed(self, chunk: bytes) -> bytes:
        """The whole events in what has come so far."""
        buffer = (self._buffer + chunk).replace(b"\r\n", b"\n")
        whole, boundary, self._buffer = buffer.rpartition(b"\n\n")
        if not boundary:
            return b""
        return b"".join(self._merge(whole.split(b"\n\n")))

    def rest(self) -> bytes:
        """What is left at the end of the stream, as it is."""
        rest, self._buffer = self._buffer, b""
        return b"".join(self._merge([rest])) if rest else b""

    def _merge(self, blocks: list[bytes]) -> Iterator[bytes]:
        held: Event | None = None
        raw = b""
        for block in blocks:
            event = self._read(block)
            if held is not None and event is not None and _join(held, event):
                raw = b""
                continue
            if held is not None:
                yield raw or _encode(held)
            if event is None:
                yield block + b"\n\n"
            held, raw = event, block + b"\n\n"
        if held is not None:
            yield raw or _encode(held)

    def _read(self, block: bytes) -> Event | None:
        """The event if it is a delta that others can be merged with."""
        data = b"\n".join(
            line[5:].strip() for line in block.split(b"\n") if line.startswith(b"data:")
        )
        if data.startswith(b"[DONE]"):
            self.is_final = True
        if not data.startswith(b"{"):
            return None
        try:
            event = json.loads(data)
        except ValueError:
            return None
        self._note(event)
        return event if _delta_key(event) else None

    def _note(self, event: Event) -> None:
        if event.get("type") in FINAL_TYPES or "error" in event:
            self.is_final = True
        choices = event.get("choices") or []
        if any(choice.get("finish_reason") for choice in choices):
            self.is_final = True
        if event.get("type") == "response.output_text.delta" or any(
            (choice.get("delta") or {}).get("content") for choice in choices
        ):
            self.has_text = True


def _delta_key(event: Event) -> tuple[Any, ...] | None:
    """What two deltas must have in common to be merged; None for what is not such a delta."""
    kind = event.get("type")
    if kind in ("response.output_text.delta", "response.function_call_arguments.delta"):
        if event.get("logprobs"):
            return None
        return kind, event.get("item_id"), event.get("output_index"), event.get("content_index")
    if kind is not None or set(event) - _CHAT_KEYS or event.get("usage"):
        return None
    return _chat_key(event)


_CHAT_KEYS = {"id", "object", "created", "model", "choices", "system_fingerprint", "usage",
              "service_tier", "obfuscation"}  # fmt: skip
_CHOICE_KEYS = {"index", "delta", "finish_reason", "logprobs"}


def _chat_key(event: Event) -> tuple[Any, ...] | None:
    choices = event.get("choices") or []
    if len(choices) != 1 or set(choices[0]) - _CHOICE_KEYS:
        return None
    choice = choices[0]
    delta = choice.get("delta") or {}
    plain = set(delta) <= {"content", "role"} and isinstance(delta.get("content"), str)
    if not plain or choice.get("finish_reason") or choice.get("logprobs"):
        return None
    return "chat", event.get("id"), choice.get("index"), delta.get("role")


def _join(held: Event, event: Event) -> bool:
    """Add `event` to `held` if they are deltas of the same text."""
    if _delta_key(held) != _delta_key(event):
        return False
    if "choices" in held:
        held["choices"][0]["delta"]["content"] += event["choices"][0]["delta"]["content"]
    else:
        held["delta"] += event["delta"]
        held["sequence_number"] = event.get("sequence_number")
    return True


def _encode(event: Event) -> bytes:
    name = f"event: {event['type']}\n" if "type" in event else ""
    return f"{name}data: {json.dumps(event)}\n\n".encode()
