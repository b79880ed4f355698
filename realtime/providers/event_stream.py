"""Gathers a model's event stream where it comes in, before anything parses it token by token.

The SDK spends a third of a millisecond on every event, whatever is in it. After the first text
the stream is read once a window, and neighbouring deltas of the same text become one event, which
changes neither items, usage nor finish reason. It also notices a stream that breaks off, which
over Chat Completions would pass for a finished reply.
"""

import asyncio
import codecs
import json
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
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
from realtime.providers.response_events import ResponseEvents

logger = logging.getLogger(__name__)

Key = tuple[Any, ...]
Source = tuple[str, str]

FULL_CHUNK = 16_384
"""Bytes that the HTTP client hands over at most: after so many, more is waiting already."""

GRACE_S = 1.5
"""How long a stream that is whole may stay open, for its usage and its end mark."""

MERGED_TYPES = ("response.output_text.delta", "response.function_call_arguments.delta")
FINAL_TYPES = ("response.completed", "response.incomplete", "response.failed", "error")
BODY_STARTS = (b"{", b"[")
"""With which a body begins that is JSON instead of events."""

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""Of one event, or of a body that is none: more is not waited for."""

FIELDS = (b"event:", b"id:", b"retry:", b":")
"""With which lines of an event begin that hold none of its data."""

PLAIN_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":", b"{", b"[", b"<")
"""With which a body begins that is not compressed, as gzip, deflate and zstd do not."""

_PUNCTUATION = re.compile(rb"[{}\[\]\"]")
_mended: Counter[str] = Counter()
_thinking_first: set[Source] = set()
"""Whose replies begin with thoughts that no tag opens, as far as this process has seen."""


async def gather(response: httpx2.Response) -> None:
    """Response hook for the HTTP client: wraps what is to be a stream, whatever it says it is."""
    stream = response.stream
    assert isinstance(stream, httpx2.AsyncByteStream)
    if is_packed := response.headers.get("content-encoding", "identity") != "identity":
        await _unmark_plain(response)
    if not response.is_success or (asked := _asked_for_stream(response.request)) is None:
        return
    body = _decoded(response) if is_packed else None
    window_s = get_conf().source_window_ms / 1000
    source = (str(response.request.url), str(asked.get("model")))
    response.stream = GatheredStream(stream, window_s, body, source=source)


def _asked_for_stream(request: httpx2.Request) -> dict[str, Any] | None:
    """The body of a request for a stream; an agent that is a tool is asked without one."""
    content = request.content
    asked: dict[str, Any] = json.loads(content) if b'"stream"' in content else {}
    return asked if asked.get("stream") is True else None


async def _unmark_plain(response: httpx2.Response) -> None:
    """Have a body that only says that it is compressed read as it is."""
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    peeked = response.stream = PeekedStream(response.stream)
    start = (await peeked.peek(max(map(len, PLAIN_STARTS)))).lstrip()
    # What brotli packs may begin in any way.
    if "br" not in response.headers["content-encoding"] and start.startswith(PLAIN_STARTS):
        del response.headers["content-encoding"]
        _report("compressed by its headers alone")


def _decoded(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The body of a response that may be compressed, which then says so no more."""
    packed = httpx2.Response(
        response.status_code,
        headers=response.headers,
        stream=response.stream,
        request=response.request,
    )
    response.headers.pop("content-encoding", None)
    return packed.aiter_bytes()


class PeekedStream(httpx2.AsyncByteStream):
    """A stream whose beginning can be seen before it is read."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream
        self._chunks = aiter(stream)
        self._start = b""

    async def peek(self, size: int) -> bytes:
        """At least `size` bytes of the beginning, where there are so many."""
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

    `body` is what is in `stream`, where that is compressed; `source` is the server and its model. A
    stream that is whole ends `GRACE_S` after its last content, whatever its connection does. Raises
    `RemoteProtocolError` for one that breaks off, and for what is no event stream.
    """

    def __init__(
        self,
        stream: httpx2.AsyncByteStream,
        window_s: float,
        body: AsyncIterator[bytes] | None = None,
        *,
        source: Source = ("", ""),
    ) -> None:
        self._stream = stream
        self._body = body
        self._window_s = window_s
        self._verdict = stream_ending.get() or StreamEnding()
        self._verdict.answers += 1
        self._source = source
        self._merger = Merger(
            has_said=self._verdict.has_said,
            thinks_first=source in _thinking_first,
            call_ids=self._verdict.call_ids,
            asked_again=self._verdict.only_hosted,
        )
        self._deadline: float | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        merger = self._merger
        async for chunk in self._chunks():
            merged = merger.feed(chunk)
            # Before the yield: who has seen the end does not come back for more.
            self._note()
            if merged:
                yield merged
            if merger.has_text and not merger.is_final:
                await (asyncio.sleep(0) if len(chunk) >= FULL_CHUNK else self._gather())
        rest = merger.rest()
        self._note()
        yield rest
        if not merger.is_final:
            raise httpx2.RemoteProtocolError("the event stream broke off")

    async def _chunks(self) -> AsyncIterator[bytes]:
        """The bytes of the body, for as long as something may come that counts."""
        chunks = aiter(self._body or self._stream)
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


def _report(kind: str) -> None:
    """Count what had to be mended in a stream; told once a process and kind, without its text."""
    _mended[kind] += 1
    if _mended[kind] == 1:
        logger.warning("the model's server leaves the letter of its API: %s", kind)


def _transport(stream: Any) -> asyncio.ReadTransport | None:
    """The connection below the SDK's aiohttp client; None once the whole response is there.

    The way down is private to httpx2 and openai, which requirements.txt pins; without it the
    stream is gathered all the same, at the cost of a read for each token.
    """
    answer = getattr(getattr(stream, "_stream", stream), "_aiohttp_response", None)
    connection = getattr(answer, "connection", None)
    return None if connection is None else connection.transport


class Merger:
    """Takes bytes of an event stream and gives whole events, mended, neighbouring deltas merged.

    A call that fails, or says nothing at all where nothing was said before (`has_said`), ends in
    an event that the SDK raises; so does one with nothing but calls of the provider's own tools
    where the one before was like that (`asked_again`). What comes after such an end is left out.
    """

    def __init__(
        self,
        *,
        has_said: bool = False,
        thinks_first: bool = False,
        call_ids: set[str] | None = None,
        asked_again: bool = False,
    ) -> None:
        self._asked_again = asked_again
        self._buffer = b""
        self._is_started = False
        self._is_body = False
        self._is_lines = False
        self._is_response = False
        self._is_ended = False
        self._mending = Mending(thinks_first=thinks_first, call_ids=call_ids)
        self._chunks = ChatChunks(self._mending)
        self._responses = ResponseEvents(self._mending)
        self._told: set[str] = set()
        self.has_said = has_said
        self.has_text = False
        self.has_grown = False
        """Whether content has come since somebody has set this to False."""
        self.is_final = False
        self.finish_reason: Meaning | Literal[""] = ""
        self.error_code = ""

    def feed(self, chunk: bytes) -> bytes:
        """The whole events in what has come so far.

        Raises `RemoteProtocolError` for a page, and for an event that does not end.
        """
        buffer = self._buffer + chunk
        if len(buffer) > MAX_EVENT_BYTES:
            raise httpx2.RemoteProtocolError("an event that is too long")
        if self._is_started and b"\n" not in chunk and b"\r" not in chunk:
            self._buffer = buffer
            return b""
        if not self._is_started:
            buffer = buffer.removeprefix(codecs.BOM_UTF8).lstrip()
            self._is_started = bool(buffer)
            self._is_body = buffer.startswith(BODY_STARTS)
            if buffer.startswith(b"<"):
                raise httpx2.RemoteProtocolError("a page in place of an event stream")
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
        """What is left at the end of the stream."""
        rest, self._buffer = self._buffer.replace(b"\r", b"\n").strip(), b""
        if self._is_body:
            return b"".join(self._pass(*self._read_body(rest)))
        if self._is_lines:
            return b"".join(self._merge(_as_blocks(rest)))
        return b"".join(self._merge(rest.split(b"\n\n"))) if rest else b""

    @property
    def thinks_first(self) -> bool:
        """Whether the model's next reply begins with thoughts that no tag opens."""
        return self._mending.thinks_first

    def take_mended(self) -> set[str]:
        """The kinds of what was mended, each once."""
        new = self._mending.mended - self._told
        self._told |= new
        return new

    def _merge(self, blocks: list[bytes]) -> Iterator[bytes]:
        """Deltas with the same key as the one before are added to it; all else stays as it is."""
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
        """Events and their keys, None for what is none; without bytes where these say it otherwise.

        Most events are the next piece of a chat's text, which is told by its key at once.
        """
        for block in blocks:
            if self._is_ended:
                return
            data = _data(block)
            if not data:
                # A comment, or what no reader of events has a use for.
                continue
            if self._chunks.is_settled and (text := self._read_text(data)) is not None:
                yield text[0], block + b"\n\n" if _is_readable(block) else b"", text[1]
                continue
            is_end = data[:6].upper() == b"[DONE]"
            for event, raw in self._end() if is_end else self._read(block, data):
                yield event, raw, _delta_key(event) if event is not None else None

    def _read_text(self, data: bytes) -> tuple[Event, Key] | None:
        """The event and its key, if it is text that needs no change."""
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            return None
        key = _chat_key(event) if isinstance(event, dict) else None
        if key is None or not self._chunks.passes(event):
            return None
        if event["choices"][0]["delta"]["content"]:
            self.has_text = self.has_said = self.has_grown = True
        return event, key

    def _end(self) -> Iterator[tuple[Event | None, bytes]]:
        yield from self._take([*self._chunks.rest(), *self._responses.rest()], b"")
        if self._is_response:
            # Its own last event is what counts.
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
            self._mending.mended.add("event that is no JSON")
        if not events and not self.is_final and _PUNCTUATION.search(data):
            yield self._fail(UNREADABLE), b""
        for event in events:
            if isinstance(event, dict):
                yield from self._feed(event, block)

    def _feed(self, event: Event, block: bytes) -> Iterator[tuple[Event, bytes]]:
        found = self._mend(event)
        is_fit = block and not self._mending.is_changed and _is_readable(block)
        raw = block + b"\n\n" if is_fit else b""
        yield from self._take(found, raw)

    def _mend(self, event: Event) -> list[Event]:
        """What the SDK is given in place of `event`, which is changed in place."""
        self._mending.is_changed = self._chunks.is_settled = False
        if (error := self._mending.error_in(event)) is not None:
            return [error]
        kind = event.get("type")
        if isinstance(kind, str) and (kind == "error" or kind.startswith("response.")):
            return self._responses.feed(event, kind)
        return self._chunks.feed(event)

    def _take(self, events: list[Event], raw: bytes) -> Iterator[tuple[Event, bytes]]:
        for event in events:
            if self._is_ended:
                return
            self._note(event)
            if self.finish_reason == "failed" and "choices" in event:
                yield {**event, "choices": [{**event["choices"][0], "finish_reason": None}]}, b""
                yield self._fail(FAILED), b""
            elif self.is_final and not self._is_answer and not self._is_failure:
                yield self._fail(EMPTY), b""
            else:
                # Some say the whole response again, which would be a second reply.
                self._is_ended = event.get("type") in FINAL_TYPES
                yield event, raw

    @property
    def only_hosted(self) -> bool:
        """Whether the response has calls of the provider's own tools, and no word about them."""
        return self._responses.only_hosted

    @property
    def _is_answer(self) -> bool:
        return self.has_said and not (self.only_hosted and self._asked_again)

    @property
    def _is_failure(self) -> bool:
        """Whether the reply's end says more than that there is nothing."""
        return self.finish_reason in ("length", "content_filter", "failed")

    def _fail(self, error: Event) -> Event:
        """End the stream with an error of its own."""
        self._note(error)
        self._is_ended = True
        return error

    def _read_body(self, body: bytes) -> list[Event]:
        """The events of a server that answers at once, or tells of an error."""
        self._mending.mended.add("no stream")
        try:
            found = _load(body.decode(errors="replace"))
        except ValueError:
            return []
        events = found if isinstance(found, list) else [found]
        return [self._read_answer(each) for each in events if isinstance(each, dict)]

    def _read_answer(self, found: Event) -> Event:
        """The event of a whole answer, or of one event of a list."""
        if found.get("object") == "response" and not found.get("error"):
            return {"type": f"response.{found.get('status', 'completed')}", "response": found}
        if isinstance(found.get("choices"), list) and found["choices"]:
            choice = found["choices"][0]
            if isinstance(choice, dict) and "delta" not in choice:
                # Nothing of it can be missing.
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
            self.is_final = True
            self.finish_reason = response_meaning(event) if "error" not in event else "failed"
            self.error_code = error_code(event)
            self._say(any(map(_says, (event.get("response") or {}).get("output") or ())))
        elif isinstance(kind, str) and "choices" not in event:
            self._is_response = True
            self.has_text |= kind == "response.output_text.delta"
            self._say(kind.endswith(".delta") and bool(event.get("delta")))
            self._say(kind == "response.output_item.done" and _says(event["item"]))
        for choice in event.get("choices") or ():
            delta = choice["delta"]
            if choice.get("finish_reason"):
                self.is_final = True
                self.finish_reason = choice["finish_reason"]
            if delta.get("content"):
                self.has_text = True
            self._say(any(delta.get(name) for name in SAYING))

    def _say(self, is_said: bool) -> None:
        if is_said:
            self.has_said = self.has_grown = True


SAYING = ("content", "reasoning_content", "reasoning", "refusal", "tool_calls", "thinking_blocks")
"""The fields of a delta in which something is said."""

EMPTY = as_error({"message": "the reply says nothing", "code": "empty_reply"})
UNREADABLE = as_error({"message": "an event cannot be read", "code": "unreadable_event"})
FAILED = as_error({"message": "the reply has failed", "code": "failed_reply"})


def _says(item: Event) -> bool:
    """Whether an item of a response has something for people, or is a tool call."""
    parts = [*(item.get("content") or ()), *(item.get("summary") or ())]
    is_call = item.get("type") not in ("message", "reasoning")
    return is_call or any(part.get("text") or part.get("refusal") for part in parts)


def _is_readable(block: bytes) -> bool:
    """Whether the SDK reads the data from it that has been read here."""
    if b"\n" not in block:
        return block.startswith(b"data:")
    lines = block.split(b"\n")
    others = [line for line in lines if not line.startswith(b"data:")]
    return all(line.startswith(FIELDS) and line.isascii() for line in others)


def _split_lines(buffer: bytes) -> bytes:
    """With one kind of line end; a CR at the end may be half of one."""
    if b"\r" not in buffer:
        return buffer
    kept = buffer.removesuffix(b"\r")
    return kept.replace(b"\r\n", b"\n").replace(b"\r", b"\n") + buffer[len(kept) :]


def _load(text: str, *, strict: bool = False) -> Any:
    """What JSON holds, unless `strict` also with signs in its strings that it has no place for.

    Raises `ValueError`, for what is too deep as well.
    """
    if is_deep(text):
        raise ValueError("too deep")
    return json.loads(text, strict=strict)


def _read_each(data: bytes) -> list[Any]:
    """The events of a server that sets them apart by one line end alone; none if one is broken.

    One alone may hold bytes that are no text, or signs that JSON has no place for.
    """
    text = data.decode(errors="replace")
    for parts in ([text], [line for line in text.split("\n") if not line.startswith("[DONE]")]):
        try:
            return [_load(part) for part in parts]
        except ValueError:
            continue
    return []


def _is_event_line(buffer: bytes) -> bool:
    """Whether the first line is an event by itself, of a server that sends lines of JSON."""
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
    """Lines of JSON as events."""
    return [b"data: " + line for line in lines.split(b"\n") if line.strip()]


def _data(block: bytes) -> bytes:
    if block.startswith(b"data: ") and b"\n" not in block:
        return block[6:].strip()
    lines = block.split(b"\n")
    # Some break their JSON into lines, of which the first alone is called data.
    start = next((n for n, line in enumerate(lines) if line.startswith(b"data:")), len(lines))
    kept = (line for line in lines[start:] if not line.startswith(FIELDS))
    return b"\n".join(line.removeprefix(b"data:").strip() for line in kept)


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
    """That of a chunk whose one choice holds text and nothing else."""
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
