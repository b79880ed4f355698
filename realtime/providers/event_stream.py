"""Gathers a model's event stream into fewer, larger events before the SDK parses it.

The SDK spends a third of a millisecond on every event, whatever its size. After the first text the
stream is read once per window, and neighbouring deltas of the same text become one event; this
changes neither items, usage nor finish reason. It also detects a stream that breaks off, which over
Chat Completions would pass for a finished reply.
"""

import asyncio
import codecs
import json
import logging
import re
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from typing import Any, Literal

import httpx2

from realtime.conf import get_conf
from realtime.providers.chat_chunks import ChatChunks
from realtime.providers.endings import (
    Event,
    Meaning,
    StreamEnding,
    as_error,
    error_code,
    response_meaning,
    stream_ending,
    told_in,
)
from realtime.providers.mending import Mending, is_deep
from realtime.providers.response_events import TEXT_DELTAS, THOUGHT_DELTAS, ResponseEvents
from realtime.telemetry import metrics

logger = logging.getLogger(__name__)

Key = tuple[Any, ...]
Source = tuple[str, str]
Api = Literal["chat", "responses"]

FULL_CHUNK = 16_384
"""Bytes that the HTTP client returns at most: after a chunk of this size, more is waiting."""

GRACE_S = 1.5
"""Seconds that a complete stream may stay open, for its usage and its end mark."""

MERGED_TYPES = ("response.output_text.delta", "response.function_call_arguments.delta")
FINAL_TYPES = ("response.completed", "response.incomplete", "response.failed", "error")
BODY_STARTS = (b"{", b"[")
"""The first byte of a body that is JSON and no event stream."""

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""The largest size of one event, or of a body that is no event stream."""

REPEATED_CHARS = 20
"""The shortest last delta that may be a repetition of the whole text."""

GZIP_START = b"\x1f\x8b\x08"

FIELDS = (b"event:", b"id:", b"retry:", b":")
"""Starts of lines of an event that are not data."""

PLAIN_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":", b"{", b"[", b"<")
"""Starts of a body that is not compressed; bodies packed by gzip, deflate or zstd differ."""

DATA_TWICE = (b"data: data:", b"data:data:")
MARGIN = codecs.BOM_UTF8 + b" \t"
"""Bytes that some servers send before the fields of an event."""

_DATA = re.compile(rb"^(?:data:\s*)+")
_NAME = re.compile(rb"^event: *(response\.[a-z_.]+)\s*$", re.MULTILINE)
_PUNCTUATION = re.compile(rb"[{}\[\]\"]")
_mended: set[str] = set()
_thinking_first: set[Source] = set()
"""Servers and models whose replies begin with reasoning without an opening tag, as seen by this
process.
"""


class Turns:
    """Lets one stream at a time read on of those that have more than they may read at once.

    Between two of them the event loop makes a whole turn. So streams that come as fast as they are
    read share what time other work leaves, however many they are.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()

    async def take(self) -> None:
        """Wait for a turn: after those that wait already, and one turn of the loop later."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._lock = loop, asyncio.Lock()
        async with self._lock:
            await asyncio.sleep(0)


_turns = Turns()


async def gather(response: httpx2.Response) -> None:
    """Put a `GatheredStream` around a successful response, if it answers a request for a stream.

    A response hook of the HTTP client. The content type is not checked. From any response, a
    `content-encoding` that its body does not have is removed; `br`, which cannot be told, stays.
    """
    stream = response.stream
    assert isinstance(stream, httpx2.AsyncByteStream)
    if is_packed := response.headers.get("content-encoding", "identity") != "identity":
        await _unmark_plain(response)
    if not response.is_success or (asked := _asked_for_stream(response.request)) is None:
        return
    body = _decoded(response) if is_packed else None
    window_s = get_conf().source_window_ms / 1000
    source = (str(response.request.url), str(asked.get("model")))
    api: Api = "responses" if "input" in asked else "chat"
    response.stream = GatheredStream(stream, window_s, body, source=source, api=api)


def _asked_for_stream(request: httpx2.Request) -> dict[str, Any] | None:
    """Return the body of a request for a stream; None for others, as of agents that are tools."""
    content = request.content
    asked: dict[str, Any] = json.loads(content) if b'"stream"' in content else {}
    return asked if asked.get("stream") is True else None


async def _unmark_plain(response: httpx2.Response) -> None:
    """Remove the `content-encoding` of a body that is not compressed."""
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    peeked = response.stream = PeekedStream(response.stream)
    start = (await peeked.peek(max(map(len, PLAIN_STARTS)))).lstrip()
    # A body packed by brotli may begin with any byte.
    if "br" not in response.headers["content-encoding"] and start.startswith(PLAIN_STARTS):
        del response.headers["content-encoding"]
        _report("compressed by its headers alone")


def _decoded(response: httpx2.Response) -> AsyncIterator[bytes]:
    """Return the decompressed body of a response, and remove its `content-encoding`."""
    packed = httpx2.Response(
        response.status_code,
        headers=response.headers,
        stream=response.stream,
        request=response.request,
    )
    response.headers.pop("content-encoding", None)
    return packed.aiter_bytes()


async def _unpacked(stream: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield a stream's bytes; decompressed if it is gzip although no header says so."""
    unpack: Callable[[bytes], bytes] | None = None
    async for chunk in stream:
        if unpack is None:
            is_packed = chunk.startswith(GZIP_START)
            unpack = zlib.decompressobj(wbits=31).decompress if is_packed else bytes
            if is_packed:
                _report("compressed without a header")
        try:
            yield unpack(chunk)
        except zlib.error as exc:
            raise httpx2.RemoteProtocolError("the stream cannot be decompressed") from exc


class PeekedStream(httpx2.AsyncByteStream):
    """A stream whose first bytes can be read in advance; reading it then yields them again."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream
        self._chunks = aiter(stream)
        self._start = b""

    async def peek(self, size: int) -> bytes:
        """Return the first bytes of the stream: at least `size`, or all if there are fewer.

        Call it before the stream is read.
        """
        while len(self._start) < size and (chunk := await anext(self._chunks, b"")):
            self._start += chunk
        return self._start

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._start
        async for chunk in self._chunks:
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


class GatheredStream(httpx2.AsyncByteStream):
    """An event stream with fewer and larger events; `window_s` in seconds.

    `body` is the decompressed content if `stream` is compressed; `source` is the server and its
    model. How the stream ends is written to the current `stream_ending`. A complete stream ends
    `GRACE_S` after its last content, even if its connection stays open. A body of JSON is read as
    one whole answer. Raises `RemoteProtocolError` for a stream that breaks off or cannot be
    decompressed, for an HTML page, and for an event that is too large.
    """

    def __init__(
        self,
        stream: httpx2.AsyncByteStream,
        window_s: float,
        body: AsyncIterator[bytes] | None = None,
        *,
        source: Source = ("", ""),
        api: Api | None = None,
    ) -> None:
        self._stream = stream
        self._body = body
        self._window_s = window_s
        self._verdict = stream_ending.get() or StreamEnding()
        self._verdict.answers += 1
        self._verdict.cut = None
        self._source = source
        self._merger = Merger(
            has_said=self._verdict.has_said,
            thinks_first=source in _thinking_first,
            call_ids=self._verdict.call_ids,
            asked_again=self._verdict.only_hosted,
            api=api,
        )
        self._verdict.cut = self._merger.cut
        self._deadline: float | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        merger = self._merger
        async for chunk in self._chunks():
            merged = merger.feed(chunk)
            # Note before the yield: a caller that has seen the end does not ask for more.
            self._note()
            if merged:
                yield merged
            if len(chunk) >= FULL_CHUNK and not merger.is_final:
                await _turns.take()
            elif merger.has_text and not merger.is_final:
                await self._gather()
        rest = merger.rest()
        self._note()
        yield rest
        if not merger.is_final:
            raise httpx2.RemoteProtocolError("the event stream ended early")

    async def _chunks(self) -> AsyncIterator[bytes]:
        """Yield the body's bytes for as long as relevant content may come."""
        chunks = aiter(_unpacked(self._body or self._stream))
        while True:
            try:
                async with asyncio.timeout_at(self._deadline):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except (TimeoutError, httpx2.TransportError):
                if self._merger.is_final:
                    return
                raise
            yield chunk

    def _note(self) -> None:
        merger = self._merger
        self._verdict.finish_reason = merger.finish_reason
        self._verdict.error_code = merger.error_code
        self._verdict.has_said = merger.has_said
        self._verdict.only_hosted = merger.only_hosted
        if merger.is_whole:
            self._verdict.cut = None
        if merger.is_final and (self._deadline is None or merger.has_grown):
            self._deadline = asyncio.get_running_loop().time() + GRACE_S
        merger.has_grown = False
        if merger.thinks_first:
            _thinking_first.add(self._source)
        else:
            _thinking_first.discard(self._source)
        for kind in merger.take_mended():
            _report(kind)

    async def _gather(self) -> None:
        """Stop reading for a window: the kernel buffers, and one read replaces one per token."""
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


def _report(kind: str) -> None:
    """Count a correction of a stream; log each kind once per process, without the stream's text."""
    metrics.MENDED.labels(kind).inc()
    if kind not in _mended:
        _mended.add(kind)
        logger.warning("the model server deviates from its API: %s", kind)


def _transport(stream: Any) -> asyncio.ReadTransport | None:
    """Return the connection below the SDK's aiohttp client; None once the whole response is there.

    It is reached through private fields of httpx2 and openai, which requirements.txt pins. Without
    them the stream is gathered too, but with a read for each token.
    """
    answer = getattr(getattr(stream, "_stream", stream), "_aiohttp_response", None)
    connection = getattr(answer, "connection", None)
    return None if connection is None else connection.transport


class Merger:
    """Makes whole, normalised events of a stream's bytes, with neighbouring deltas merged.

    With `has_said` an earlier call of the run has brought content; with `asked_again` the call
    before brought only calls of the provider's own tools. If this call fails, its last event is an
    error that the SDK raises, or `response.failed`. It is an error too if neither this nor an
    earlier call has brought content, or if this one, after `asked_again`, brings only such calls,
    unless its finish reason says why. Events behind the last one are dropped.

    `api` is the API that was asked; None if either may answer. `cut` returns nothing once an event
    of the other one has come: the SDK reads no such event, so that nobody is shown its text.
    """

    def __init__(
        self,
        *,
        has_said: bool = False,
        thinks_first: bool = False,
        call_ids: set[str] | None = None,
        asked_again: bool = False,
        api: Api | None = None,
    ) -> None:
        self._asked_again = asked_again
        self._api = api
        self._buffer = b""
        self._is_started = False
        self._is_body = False
        self._is_lines = False
        self._is_response = False
        self._is_other_api = False
        self._is_ended = False
        self._is_completed = False
        self._mending = Mending(thinks_first=thinks_first, call_ids=call_ids)
        self._chunks = ChatChunks(self._mending)
        self._responses = ResponseEvents(self._mending)
        self._told: set[str] = set()
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self.has_said = has_said
        self.has_text = False
        self.has_grown = False
        """Whether content has come since a caller last set this to False."""
        self.is_final = False
        self.finish_reason: Meaning | Literal[""] = ""
        self.error_code = ""

    def feed(self, chunk: bytes) -> bytes:
        """Return the events that `chunk` completes, encoded; the rest of it is kept.

        b"" if it completes none; a body of JSON is kept for `rest`. Raises `RemoteProtocolError`
        for an HTML page, and for an event or body of more than `MAX_EVENT_BYTES`.
        """
        buffer = self._buffer + chunk
        if len(buffer) > MAX_EVENT_BYTES:
            raise httpx2.RemoteProtocolError(f"an event is larger than {MAX_EVENT_BYTES} bytes")
        if self._is_started and b"\n" not in chunk and b"\r" not in chunk:
            self._buffer = buffer
            return b""
        if not self._is_started:
            buffer = buffer.removeprefix(codecs.BOM_UTF8).lstrip()
            self._is_started = bool(buffer)
            self._is_body = buffer.startswith(BODY_STARTS)
            if buffer.startswith(b"<"):
                raise httpx2.RemoteProtocolError("received an HTML page instead of an event stream")
        if self._is_body and _is_event_line(buffer):
            self._is_body, self._is_lines = False, True
        if self._is_body:
            self._buffer = buffer
            return b""
        if self._is_lines:
            whole, _, self._buffer = buffer.rpartition(b"\n")
            return b"".join(self._merge(_as_blocks(whole)))
        whole, boundary, self._buffer = _split_lines(buffer).rpartition(b"\n\n")
        return b"".join(self._merge(whole.split(b"\n\n"))) if boundary else b""

    def rest(self) -> bytes:
        """Return the events in what is left at the end of the stream, encoded; b"" if none is."""
        rest, self._buffer = self._buffer.replace(b"\r", b"\n").strip(), b""
        if self._is_body:
            return b"".join(self._pass(*self._read_body(rest)))
        if self._is_lines:
            return b"".join(self._merge(_as_blocks(rest)))
        return b"".join(self._merge(rest.split(b"\n\n"))) if rest else b""

    @property
    def is_whole(self) -> bool:
        """Whether the stream has ended so that the SDK makes items of all its text."""
        if self._is_response:
            return self._is_completed
        return self.is_final and self.finish_reason != "failed"

    def cut(self) -> tuple[str, str]:
        """End a stream that is not complete; return all of its reasoning, and all of its text.

        What was held back is included as far as it can be decided; half a character is not. Text
        that no delta has brought is included too.
        """
        self.rest()
        for event in [*self._chunks.rest(is_cut=True), *self._responses.rest(is_cut=True)]:
            self._note(event)
        if self._is_other_api:
            return "", ""
        text, whole = "".join(self._texts), self._responses.text
        return "".join(self._thoughts), whole if whole.startswith(text) else text

    @property
    def thinks_first(self) -> bool:
        """Whether the model's next reply should begin with reasoning without an opening tag.

        As its earlier ones did, by `thinks_first` at the start and by this stream.
        """
        return self._mending.thinks_first

    def take_mended(self) -> set[str]:
        """Return the kinds of corrections of this stream that were not returned before."""
        new = self._mending.mended - self._told
        self._told |= new
        return new

    def _merge(self, blocks: list[bytes]) -> Iterator[bytes]:
        """Yield encoded events; a delta is merged into the one before if both have the same key."""
        held: Event | None = None
        held_key: Key | None = None
        held_raw = b""
        for event, raw, key in self._read_all(blocks):
            if held is not None and key == held_key:
                _add(held, event)
                held_raw = b""
                continue
            if held is not None:
                yield held_raw or _encode(held)
            held, held_key, held_raw = (event, key, raw) if key is not None else (None, None, b"")
            if held is None:
                yield raw or _encode(event or {})
        if held is not None:
            yield held_raw or _encode(held)

    def _read_all(self, blocks: list[bytes]) -> Iterator[tuple[Event | None, bytes, Key | None]]:
        """Yield events with their bytes and keys; no key for what is no delta.

        The bytes are empty if the event differs from them. Text of a chat, which most events are,
        is recognized first.
        """
        for block in blocks:
            if self._is_ended:
                return
            data = _data(block)
            if not data:
                # A comment, an event without data, or an error in a field of its own.
                if (told := _error_line(block)) is not None:
                    self._mending.mended.add("error in place of data")
                    yield from ((event, raw, None) for event, raw in self._feed(told, b""))
                continue
            if self._chunks.is_settled and (text := self._read_text(data)) is not None:
                yield text[0], block + b"\n\n" if _is_readable(block) else b"", text[1]
                continue
            is_end = data.strip(b'"')[:6].upper() == b"[DONE]"
            for event, raw in self._end() if is_end else self._read(block, data):
                yield event, raw, _delta_key(event) if event is not None else None

    def _read_text(self, data: bytes) -> tuple[Event, Key] | None:
        """Return the event and its key if it is text that needs no change."""
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            return None
        key = _chat_key(event) if isinstance(event, dict) else None
        if key is None or not self._chunks.passes(event):
            return None
        if text := event["choices"][0]["delta"]["content"]:
            self._texts.append(text)
            self.has_text = self.has_said = self.has_grown = True
        return event, key

    def _end(self) -> Iterator[tuple[Event | None, bytes]]:
        yield from self._take([*self._chunks.rest(), *self._responses.rest()], b"")
        if self._is_response:
            # A response's own last event counts.
            return
        self.is_final = True
        if not self.has_said and not self._is_failure:
            yield self._fail(EMPTY), b""
        else:
            yield None, b"data: [DONE]\n\n"

    def _read(self, block: bytes, data: bytes) -> Iterator[tuple[Event | None, bytes]]:
        try:
            events = [_load(data.decode(), strict=True)]
        except ValueError:
            events = _read_each(data)
            block = b""
            self._mending.mended.add("event that is not JSON")
        if not events and not self.is_final and _PUNCTUATION.search(data):
            yield self._fail(UNREADABLE), b""
        if len(events) == 1 and isinstance(events[0], list):
            events, block = events[0], b""
            self._mending.mended.add("events in a list")
        for event in events:
            if isinstance(event, str):
                event, block = _read_inner(event), b""
                self._mending.mended.add("event encoded twice")
            if isinstance(event, dict):
                if event.keys().isdisjoint(("type", "choices")) and (name := _NAME.search(block)):
                    event["type"], block = name[1].decode(), b""
                    self._mending.mended.add("type in the name of an event alone")
                yield from self._feed(event, block)

    def _feed(self, event: Event, block: bytes) -> Iterator[tuple[Event, bytes]]:
        found = self._mend(event)
        is_fit = block and not self._mending.is_changed and _is_readable(block)
        raw = block + b"\n\n" if is_fit else b""
        yield from self._take(found, raw)

    def _mend(self, event: Event) -> list[Event]:
        """Return the events for the SDK in place of `event`, which may be changed in place."""
        self._mending.is_changed = self._chunks.is_settled = False
        if (error := self._mending.error_in(event)) is not None:
            return [error]
        kind = event.get("type")
        if kind == "response.error":
            self._mending.note("error without its name")
            return [as_error(told_in(event))]
        if isinstance(kind, str) and (kind == "error" or kind.startswith("response.")):
            return self._responses.feed(event, kind)
        return self._chunks.feed(event)

    def _take(self, events: list[Event], raw: bytes) -> Iterator[tuple[Event, bytes]]:
        for event in events:
            if self._is_ended:
                return
            if "choices" in event and self._repeats_all(event):
                event["choices"][0]["delta"]["content"], raw = "", b""
                self._mending.mended.add("last delta with the whole text")
            self._note(event)
            if self.finish_reason == "failed" and "choices" in event:
                yield {**event, "choices": [{**event["choices"][0], "finish_reason": None}]}, b""
                yield self._fail(FAILED), b""
            elif self.is_final and not self._is_answer and not self._is_failure:
                yield self._fail(EMPTY), b""
            else:
                # Some servers repeat the whole response, which would be a second reply.
                self._is_ended = event.get("type") in FINAL_TYPES
                yield event, raw

    def _repeats_all(self, event: Event) -> bool:
        """Return whether a last delta is a text that several deltas have brought before it."""
        for choice in event["choices"]:
            said = choice["delta"].get("content") or ""
            is_long = len(said) >= REPEATED_CHARS and len(self._texts) > 2
            if is_long and choice.get("finish_reason"):
                return bool(said == "".join(self._texts))
        return False

    @property
    def only_hosted(self) -> bool:
        """Whether a completed response has calls of the provider's own tools and no text.

        False until it is complete, and for Chat Completions.
        """
        return self._responses.only_hosted

    @property
    def _is_answer(self) -> bool:
        return self.has_said and not (self.only_hosted and self._asked_again)

    @property
    def _is_failure(self) -> bool:
        """Whether the end itself explains why there is no text."""
        return self.finish_reason in ("length", "content_filter", "failed")

    def _fail(self, error: Event) -> Event:
        """End the stream with an error event."""
        self._note(error)
        self._is_ended = True
        return error

    def _read_body(self, body: bytes) -> list[Event]:
        """Return the events of a server that answers without a stream, or with an error."""
        self._mending.mended.add("no stream")
        try:
            found = _load(body.decode(errors="replace"))
        except ValueError:
            return []
        events = found if isinstance(found, list) else [found]
        return [self._read_answer(each) for each in events if isinstance(each, dict)]

    def _read_answer(self, found: Event) -> Event:
        """Return the event for a whole answer, or for one event of a list."""
        if found.get("object") == "response" and not found.get("error"):
            return {"type": f"response.{found.get('status', 'completed')}", "response": found}
        if isinstance(found.get("choices"), list) and found["choices"]:
            choice = found["choices"][0]
            if isinstance(choice, dict) and "delta" not in choice:
                # A whole answer is complete even without a finish reason.
                choice["finish_reason"] = choice.get("finish_reason") or "stop"
            return found
        is_event = isinstance(found.get("type"), str) or found.get("usage")
        return found if is_event or found.get("error") else as_error(told_in(found))

    def _pass(self, *events: Event) -> Iterator[bytes]:
        for event in events:
            for read, _ in self._feed(event, b""):
                yield _encode(read)

    def _note(self, event: Event) -> None:
        kind = event.get("type")
        if kind in FINAL_TYPES or "error" in event:
            self._is_response |= "error" not in event
            self._is_completed |= kind == "response.completed"
            self.is_final = True
            self.finish_reason = response_meaning(event) if "error" not in event else "failed"
            self.error_code = error_code(event)
            self._say(any(map(_says, (event.get("response") or {}).get("output") or ())))
        elif isinstance(kind, str) and "choices" not in event:
            self._is_response = True
            self.has_text |= kind == "response.output_text.delta"
            self._is_other_api |= self._api == "chat"
            if kind in TEXT_DELTAS:
                self._texts.append(event["delta"])
            elif kind in THOUGHT_DELTAS:
                self._thoughts.append(event["delta"])
            self._say(kind.endswith(".delta") and bool(event.get("delta")))
            self._say(kind == "response.output_item.done" and _says(event["item"]))
        for choice in event.get("choices") or ():
            delta = choice["delta"]
            if choice.get("finish_reason"):
                self.is_final = True
                self.finish_reason = choice["finish_reason"]
            if delta.get("content"):
                self.has_text = True
            self._is_other_api |= self._api == "responses"
            self._texts += [delta[name] for name in TEXTS if delta.get(name)]
            self._thoughts += [delta[name] for name in THOUGHTS if delta.get(name)]
            self._say(any(delta.get(name) for name in SAYING))

    def _say(self, is_said: bool) -> None:
        if is_said:
            self.has_said = self.has_grown = True


TEXTS = ("content", "refusal")
THOUGHTS = ("reasoning_content", "reasoning")
"""Fields of a delta that the SDK passes on as text, and as reasoning."""

SAYING = (*TEXTS, *THOUGHTS, "tool_calls", "thinking_blocks")
"""Fields of a delta that count as content."""

EMPTY = as_error({"message": "the reply is empty", "code": "empty_reply"})
UNREADABLE = as_error({"message": "an event cannot be parsed", "code": "unreadable_event"})
FAILED = as_error({"message": "the server ended the reply as failed", "code": "failed_reply"})


def _says(item: Event) -> bool:
    """Return whether an item of a response has text for people, or is a tool call."""
    parts = [*(item.get("content") or ()), *(item.get("summary") or ())]
    is_call = item.get("type") not in ("message", "reasoning")
    return is_call or any(part.get("text") or part.get("refusal") for part in parts)


def _is_readable(block: bytes) -> bool:
    """Return whether the SDK would read the same data from the block as we do."""
    if b"\n" not in block:
        return block.startswith(b"data:") and not block.startswith(DATA_TWICE)
    lines = block.split(b"\n")
    if any(line.startswith(DATA_TWICE) for line in lines):
        return False
    others = [line for line in lines if not line.startswith(b"data:")]
    return all(line.startswith(FIELDS) and line.isascii() for line in others)


def _split_lines(buffer: bytes) -> bytes:
    """Return the buffer with LF line ends; a CR at its end may be half of a CRLF."""
    if b"\r" not in buffer:
        return buffer
    kept = buffer.removesuffix(b"\r")
    return kept.replace(b"\r\n", b"\n").replace(b"\r", b"\n") + buffer[len(kept) :]


def _load(text: str, *, strict: bool = False) -> Any:
    """Parse JSON, unless `strict` with control characters in its strings.

    Raises `ValueError`, also for JSON that is nested too deeply.
    """
    if is_deep(text):
        raise ValueError("nested too deeply")
    return json.loads(text, strict=strict)


def _read_each(data: bytes) -> list[Any]:
    """Return events that a server separates by single line ends; [] if one is invalid.

    An event may hold invalid UTF-8, or control characters that JSON does not allow.
    """
    text = data.decode(errors="replace")
    for parts in ([text], [line for line in text.split("\n") if not line.startswith("[DONE]")]):
        try:
            return [_load(part) for part in parts]
        except ValueError:
            continue
    return []


def _is_event_line(buffer: bytes) -> bool:
    """Return whether the first line is an event by itself, of a server that sends lines of JSON."""
    line, end, _ = buffer.partition(b"\n")
    if not end or not line.startswith(b"{"):
        return False
    try:
        found = _load(line.decode())
    except ValueError:
        return False
    choices = found.get("choices")
    has_delta = isinstance(choices, list) and any("delta" in each for each in choices if each)
    return has_delta or str(found.get("type")).startswith("response.")


def _as_blocks(lines: bytes) -> list[bytes]:
    """Turn lines of JSON into events."""
    return [b"data: " + line for line in lines.split(b"\n") if line.strip()]


def _data(block: bytes) -> bytes:
    if block.startswith(b"data: {") and b"\n" not in block:
        return block[6:].strip()
    lines = [line.lstrip(MARGIN) for line in block.split(b"\n")]
    # Some servers break JSON into lines and mark only the first one as data.
    start = next((n for n, line in enumerate(lines) if line.startswith(b"data:")), len(lines))
    kept = (line for line in lines[start:] if not line.startswith(FIELDS))
    return b"\n".join(_DATA.sub(b"", line).strip() for line in kept)


def _error_line(block: bytes) -> Event | None:
    """Return the error of a block that has the field `error` in place of data; None without it."""
    line = next((line for line in block.split(b"\n") if line.startswith(b"error:")), None)
    if line is None:
        return None
    said = line.removeprefix(b"error:").decode(errors="replace").strip()
    try:
        found = _load(said)
    except ValueError:
        found = said
    return found if isinstance(found, dict) and found.get("error") else as_error(found)


def _read_inner(text: str) -> Any:
    """Return the event of a server that encodes its events twice; None if it is none."""
    try:
        return _load(text)
    except ValueError:
        return None


def _delta_key(event: Event) -> Key | None:
    """Return what two deltas must share to be merged; None if the event is no such delta."""
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
    """Return the key of a chunk with one choice that has text and nothing else."""
    choices = event.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not event.keys() <= _CHAT_KEYS:
        return None
    choice = choices[0]
    if not isinstance(choice, dict) or not choice.keys() <= _CHOICE_KEYS or event.get("usage"):
        return None
    delta = choice.get("delta")
    if not isinstance(delta, dict) or not delta.keys() <= _DELTA_KEYS:
        return None
    is_text = isinstance(delta.get("content"), str)
    if not is_text or choice.get("finish_reason") or choice.get("logprobs"):
        return None
    return "chat", event.get("id"), choice.get("index"), delta.get("role")


def _add(held: Event, event: Event | None) -> None:
    """Add a delta to another one of the same text."""
    assert event is not None
    if "choices" in held:
        held["choices"][0]["delta"]["content"] += event["choices"][0]["delta"]["content"]
    else:
        held["delta"] += event["delta"]
        held["sequence_number"] = event.get("sequence_number")


def _encode(event: Event) -> bytes:
    name = f"event: {event['type']}\n" if "type" in event else ""
    return f"{name}data: {json.dumps(event)}\n\n".encode()
