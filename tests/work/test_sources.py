"""Gathering changes how often one is told, never what: items, usage and finish reason stay."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import httpx2
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI
from openai._utils import _transform

from realtime.providers.event_stream import Api, GatheredStream, Merger
from realtime.providers.mending import Mending
from realtime.providers.provider import send_unchanged
from realtime.providers.response_events import ResponseEvents

texts = st.lists(st.text(max_size=8), max_size=12)


def chat_events(deltas: list[str], finish: str) -> list[dict[str, Any]]:
    """A chat completion: role, text, a tool call in pieces, the end, usage."""
    base = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}

    def choice(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    call = {"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": "{}"}}
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    return [
        choice({"role": "assistant", "content": ""}),
        *(choice({"content": delta}) for delta in deltas),
        choice({"tool_calls": [call]}),
        choice({"tool_calls": [more]}),
        *(choice({"content": delta}) for delta in reversed(deltas)),
        choice({}, finish),
        {**base, "choices": [], "usage": usage},
    ]


def responses_events(deltas: list[str]) -> list[dict[str, Any]]:
    """Text of two messages of a response, and the end."""
    return [
        *(
            {
                "type": "response.output_text.delta",
                "item_id": f"msg{place}",
                "output_index": place,
                "content_index": 0,
                "delta": delta,
                "logprobs": [],
                "sequence_number": number,
            }
            for place in (0, 1)
            for number, delta in enumerate(deltas)
        ),
        {"type": "response.completed", "sequence_number": 99, "response": {"id": "r"}},
    ]


def encode(events: list[dict[str, Any]], newline: str = "\n") -> bytes:
    blocks = [f"data: {json.dumps(event)}" for event in events]
    return "".join(block + newline * 2 for block in [*blocks, ": ping", "data: [DONE]"]).encode()


def decode(stream: bytes) -> list[dict[str, Any]]:
    lines = stream.decode().splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in pairwise(bounds)]


def merge(chunks: list[bytes]) -> tuple[bytes, Merger]:
    merger = Merger(has_said=True)
    merged = b"".join([merger.feed(chunk) for chunk in chunks])
    return merged + merger.rest(), merger


def chat_result(events: list[dict[str, Any]]) -> dict[str, Any]:
    """What a reader of chat completions ends with."""
    result: dict[str, Any] = {"text": "", "arguments": "", "order": [], "finish": None}
    for event in events:
        for choice in event["choices"]:
            delta = choice["delta"]
            result["text"] += delta.get("content") or ""
            for call in delta.get("tool_calls") or []:
                result["arguments"] += call["function"]["arguments"]
                result["order"].append(len(result["text"]))
            result["finish"] = choice["finish_reason"] or result["finish"]
        result["usage"] = event.get("usage")
    return result


@given(texts, st.lists(st.integers(0, 10_000), max_size=6), st.sampled_from(["\n", "\r\n"]))
def test_chat_completions_end_the_same(deltas: list[str], places: list[int], newline: str) -> None:
    events = chat_events(deltas, "tool_calls")
    merged, merger = merge(cut(encode(events, newline), places))
    assert chat_result(decode(merged)) == chat_result(events)
    assert merger.is_final


@given(texts, st.lists(st.integers(0, 10_000), max_size=6))
def test_responses_end_the_same(deltas: list[str], places: list[int]) -> None:
    """But for messages of white space alone, in which nothing is said."""
    assume(any(delta.strip() for delta in deltas))
    events = responses_events(deltas)
    merged, merger = merge(cut(encode(events), places))

    def by_item(found: list[dict[str, Any]]) -> dict[str, str]:
        text: dict[str, str] = {}
        for event in found:
            if "delta" in event:
                text[event["item_id"]] = text.get(event["item_id"], "") + event["delta"]
        return {item: said for item, said in text.items() if said.strip()}

    assert by_item(decode(merged)) == by_item(events)
    last = decode(merged)[-1]
    assert (last["type"], last["response"]["id"]) == ("response.completed", "r")
    assert merger.is_final


@pytest.mark.parametrize("last", ["response.completed", "response.incomplete", None])
def test_a_text_that_begins_like_a_tag_is_whole_without_an_event_that_ends_it(
    last: str | None,
) -> None:
    events = responses_events(["<", "think"])[:-1]
    if last:
        events.append({"type": last, "sequence_number": 99, "response": {"id": "r"}})
    merged, _ = merge([encode(events)])
    found = decode(merged)
    texts = {event["item_id"]: event["delta"] for event in found if "delta" in event}
    assert texts == {"msg0": "<think", "msg1": "<think"}
    if last == "response.completed":
        parts = found[-1]["response"]["output"][0]["content"]
        assert "".join(part["text"] for part in parts) == "<think<think"


def test_neighbouring_deltas_become_one() -> None:
    events = chat_events(["a", "b", "c"], "stop")
    merged, _ = merge([encode(events)])
    found = [choice["delta"].get("content") for e in decode(merged) for choice in e["choices"]]
    assert found == ["", "abc", None, None, "cba", None]


def test_comments_and_strange_events_are_left_out() -> None:
    stream = b': hello\xff\n\ndata: not json\n\nevent: x\ndata: {"a": 1}\n\n'
    assert merge([stream])[0] == b""


def test_what_is_in_order_is_passed_on_as_it_is() -> None:
    """Nothing is encoded again for a server that keeps to the letter."""
    stream = encode(chat_events(["a"], "stop"))
    merged, merger = merge([stream])
    assert merged == stream.replace(b": ping\n\n", b"")
    assert merger.take_mended() == set()


@pytest.mark.parametrize(
    "events", [chat_events(["a"], "stop")[:2], responses_events(["a"])[:-1], []]
)
async def test_a_stream_that_breaks_off_is_an_error(events: list[dict[str, Any]]) -> None:
    chunks = [encode(events).removesuffix(b"data: [DONE]\n\n")]
    with pytest.raises(httpx2.RemoteProtocolError):
        async for _ in GatheredStream(Chunks(chunks), 0):
            pass


class Chunks(httpx2.AsyncByteStream):
    """A body in the pieces given."""

    def __init__(self, chunks: list[bytes]) -> None:
        self.chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            await asyncio.sleep(0)
            yield chunk


@settings(max_examples=25)
@given(texts, st.lists(st.integers(0, 10_000), max_size=4))
def test_the_client_reads_the_same(deltas: list[str], places: list[int]) -> None:
    """Through the real SDK client: a gathered stream against the plain one."""
    body = encode(chat_events(deltas, "length"))

    def read(gathered: bool) -> dict[str, Any]:
        return asyncio.run(_read(cut(body, places), gathered))

    assert read(gathered=True) == read(gathered=False)


async def _read(chunks: list[bytes], gathered: bool) -> dict[str, Any]:
    def answer(request: httpx2.Request) -> httpx2.Response:
        stream: httpx2.AsyncByteStream = Chunks(chunks)
        headers = {"content-type": "text/event-stream"}
        body = GatheredStream(stream, 0) if gathered else stream
        return httpx2.Response(200, headers=headers, stream=body)

    http_client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    async with AsyncOpenAI(api_key="x", base_url="http://x", http_client=http_client) as client:
        stream = await client.chat.completions.create(model="m", messages=[], stream=True)
        return chat_result([chunk.model_dump() async for chunk in stream])


ODD_CHOICES: list[dict[str, Any]] = [
    {"index": 1},
    {"finish_reason": ""},
    {"finish_reason": "stop"},
    {"logprobs": {"content": []}},
    {"delta": None},
    {"delta": {"content": None}},
    {"delta": {"content": "\ud83d"}},
    {"delta": {"content": "\ude00"}},
    {"delta": {"content": "<think>no</think>"}},
    {"delta": {"content": "b", "role": "tool"}},
    {"delta": {"reasoning_content": "hm"}},
    {"delta": {"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f"}}]}},
]
ODD_CHUNKS: list[dict[str, Any]] = [
    {"usage": {}},
    {"error": None},
    {"choices": []},
    {"choices": {"0": "a"}},
    {"choices": ["a"]},
    {"type": "ping"},
    {"more": 1},
]


@st.composite
def odd_chunks(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Pieces of a text, and among them what servers make of such pieces."""
    chunks = []
    for text in draw(st.lists(st.sampled_from(["a", "", "é", "<"]), max_size=10)):
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        choice |= draw(st.one_of(st.just({}), st.sampled_from(ODD_CHOICES)))
        chunk: dict[str, Any] = {"id": "c1", "choices": [choice]}
        chunks.append(chunk | draw(st.one_of(st.just({}), st.sampled_from(ODD_CHUNKS))))
    return chunks


@given(odd_chunks())
def test_text_that_is_told_at_once_is_read_like_all_else(chunks: list[dict[str, Any]]) -> None:
    def read(*, slowly: bool) -> tuple[bytes, dict[str, Any]]:
        merger = Merger()
        if slowly:
            merger._chunks.passes = lambda event: False  # type: ignore[method-assign]
        pieces = [merger.feed(f"data: {json.dumps(chunk)}\n\n".encode()) for chunk in chunks]
        pieces += [merger.feed(b"data: [DONE]\n\n"), merger.rest()]
        told = ("has_text", "has_said", "has_grown", "is_final", "finish_reason", "error_code")
        state = {name: getattr(merger, name) for name in told}
        return b"".join(pieces), {**state, "mended": merger.take_mended()}

    assert read(slowly=False) == read(slowly=True)


CHUNK = {"id": "c1", "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}
DELTA = {
    "type": "response.output_text.delta",
    "item_id": "m",
    "sequence_number": 1,
    "output_index": 0,
    "content_index": 0,
    "delta": "b",
}


@pytest.mark.parametrize(
    ("api", "event", "text"),
    [
        *(("chat", CHUNK, "a"), ("responses", CHUNK, ""), (None, CHUNK, "a")),
        *(("responses", DELTA, "b"), ("chat", DELTA, ""), (None, DELTA, "b")),
    ],
)
def test_a_cut_has_no_text_of_an_api_that_was_not_asked(
    api: Api | None, event: dict[str, Any], text: str
) -> None:
    merger = Merger(api=api)
    merger.feed(f"data: {json.dumps(event)}\n\n".encode())
    assert merger.cut() == ("", text)


class CountedText(str):
    """Counts the characters that are copied to put it behind others."""

    copied = 0

    def __radd__(self, before: str) -> str:
        CountedText.copied += len(before)
        return f"{before}{self}"


def test_what_a_response_has_said_is_copied_once() -> None:
    """Not with each delta: the work would grow with the square of the text."""
    events, count = ResponseEvents(Mending()), 500

    def feed(event: dict[str, Any]) -> list[dict[str, Any]]:
        return events.feed(event, event["type"])

    call = {"type": "function_call", "id": "f", "call_id": "c", "name": "look", "arguments": ""}
    feed({"type": "response.output_item.added", "output_index": 1, "item": call})
    for number in range(count):
        delta = CountedText(f"{number} ")
        feed({"type": "response.output_text.delta", "output_index": 0, "delta": delta})
        named = {"type": "response.function_call_arguments.delta", "output_index": 1}
        feed(named | {"delta": delta})
    [end] = feed({"type": "response.completed", "response": {"id": "r"}})
    said = "".join(f"{number} " for number in range(count))
    message, called = end["response"]["output"]
    assert (message["content"][0]["text"], called["arguments"]) == (said, said)
    assert CountedText.copied <= 2 * len(said)


def test_whole_arguments_replace_those_that_the_call_began_with() -> None:
    whole = '{"at": 1}'
    call = {"type": "function_call", "id": "f", "call_id": "c", "name": "look", "arguments": whole}
    events = ResponseEvents(Mending())
    kind = "response.output_item.added"
    events.feed({"type": kind, "output_index": 0, "item": call}, kind)
    kind = "response.function_call_arguments.done"
    events.feed({"type": kind, "output_index": 0, "arguments": whole}, kind)
    kind = "response.completed"
    [end] = events.feed({"type": kind, "response": {"id": "r"}}, kind)
    assert [called["arguments"] for called in end["response"]["output"]] == [whole]


MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "input_text", "text": "so"}], "more": None},
    {"role": "assistant", "content": "Ünd?"},
]


@pytest.mark.parametrize(
    ("path", "name"), [("chat/completions", "messages"), ("responses", "input")]
)
async def test_messages_are_sent_as_the_library_would_convert_them(
    path: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(json.loads(request.content))
        assert request.url.path == f"/v1/{path}"
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, content=b"data: [DONE]\n\n")

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    async with AsyncOpenAI(api_key="x", base_url="http://x/v1", http_client=http) as client:
        resource: Any = client.chat.completions if name == "messages" else client.responses
        asked = {"model": "m", "stream": True, "temperature": 0.5, name: MESSAGES}

        async def ask() -> None:
            await resource.create(**asked, extra_body={"own": 1})
            async with resource.with_streaming_response.create(**asked) as response:
                await response.parse()

        await ask()
        client.chat.completions.__dict__.pop("with_streaming_response", None)
        client.responses.__dict__.pop("with_streaming_response", None)
        converted = count_conversions(monkeypatch, MESSAGES[0])
        send_unchanged(resource, name)
        await ask()
    assert sent[2:] == sent[:2]
    assert sent[0]["own"] == 1
    assert converted == []


def count_conversions(monkeypatch: pytest.MonkeyPatch, message: dict[str, Any]) -> list[object]:
    """Return a list that gets each conversion of `message` from now on."""
    found: list[object] = []
    convert = _transform._async_transform_recursive

    async def watched(data: object, **options: Any) -> object:
        if data == message:
            found.append(data)
        return await convert(data, **options)

    monkeypatch.setattr(_transform, "_async_transform_recursive", watched)
    return found


class FastSource(httpx2.AsyncByteStream):
    """A model that always has a full chunk ready; it notes each that is taken."""

    def __init__(self, name: str, taken: list[str], count: int) -> None:
        self._name = name
        self._taken = taken
        self._count = count

    async def __aiter__(self) -> AsyncIterator[bytes]:
        (delta,) = chat_events(["x" * 20_000], "stop")[1:2]
        event = f"data: {json.dumps(delta)}\n\n".encode()
        for _ in range(self._count):
            self._taken.append(self._name)
            yield event
        yield encode(chat_events([], "stop"))


async def test_fast_streams_take_turns_between_which_others_go_on() -> None:
    taken: list[str] = []

    async def read(name: str) -> None:
        async for _ in GatheredStream(FastSource(name, taken, 4), window_s=0):
            pass

    async def tick() -> None:
        while True:
            taken.append("tick")
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    await asyncio.gather(*map(read, "abcd"))
    ticking.cancel()
    # Each waits for its turn behind its first chunk, of which nobody knew how large it would be.
    later = taken[taken.index("d") + 1 :]
    between = ["".join(group.split()) for group in " ".join(later).split("tick")]
    assert max(map(len, between)) == 1
    assert "".join(between) == "abcd" * 3
