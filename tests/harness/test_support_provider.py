"""The stand-in provider, asked by the real SDK over real sockets."""

import asyncio
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from agents import (
    Agent,
    Model,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    RunResultStreaming,
    function_tool,
)
from openai import APIConnectionError, APIError, AsyncOpenAI, BadRequestError, RateLimitError

from tests.support.provider import Gate, Provider, Reply, ToolCall, run_provider, words

MODELS: dict[str, Callable[[str, AsyncOpenAI], Model]] = {
    "chat": OpenAIChatCompletionsModel,
    "responses": OpenAIResponsesModel,
}


@pytest.fixture
def provider() -> Iterator[Provider]:
    with run_provider() as running:
        yield running


@pytest.fixture
async def client(provider: Provider) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=provider.base_url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(params=["chat", "responses"])
def model(request: pytest.FixtureRequest, client: AsyncOpenAI) -> Model:
    return MODELS[request.param]("stand-in", client)


@function_tool
def add(first: int, second: int) -> int:
    """Add two numbers."""
    return first + second


def start(model: Model, prompt: Any = "hello there") -> RunResultStreaming:
    agent = Agent(
        "tester", model=model, tools=[add], model_settings=ModelSettings(include_usage=True)
    )
    return Runner.run_streamed(agent, prompt, run_config=RunConfig(tracing_disabled=True))


async def read(result: RunResultStreaming) -> dict[str, list[str]]:
    """All deltas of a run by their kind."""
    deltas: dict[str, list[str]] = {}
    async for event in result.stream_events():
        if event.type == "raw_response_event" and (delta := getattr(event.data, "delta", None)):
            deltas.setdefault(event.data.type, []).append(delta)
    return deltas


async def test_echo_arrives_token_by_token(provider: Provider, model: Model) -> None:
    result = start(model)
    deltas = await read(result)
    assert deltas["response.output_text.delta"] == ["You ", "said: ", "hello ", "there"]
    assert result.final_output == "You said: hello there"
    assert provider.calls[0].prompt == "hello there"
    assert provider.calls[0].disconnected_at is None


async def test_reasoning_and_usage(provider: Provider, model: Model) -> None:
    provider.queue(Reply(["answer"], reasoning=["let me ", "see"], input_tokens=7, cached_tokens=3))
    result = start(model)
    deltas = await read(result)
    usage = result.context_wrapper.usage
    assert deltas["response.reasoning_summary_text.delta"] == ["let me ", "see"]
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (7, 3, 10)
    assert usage.input_tokens_details.cached_tokens == 3
    assert usage.output_tokens_details.reasoning_tokens == 2


async def test_tool_round(provider: Provider, model: Model) -> None:
    call = ToolCall("add", '{"first": 2, "second": 3}')
    provider.queue(
        Reply(["One ", "moment."], reasoning=["hm"], tool_calls=[call, call]), Reply(["It is 5."])
    )
    result = start(model)
    await read(result)
    assert result.final_output == "It is 5."
    again = start(model, [*result.to_input_list(), {"role": "user", "content": "thanks"}])
    await read(again)
    assert [call.refusal for call in provider.calls] == ["", "", ""]


@pytest.mark.parametrize(
    "broken",
    [
        [{"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"}],
        [{"type": "function_call_output", "call_id": "c1", "output": "5"}],
    ],
)
async def test_call_and_output_come_in_pairs(model: Model, broken: list[dict[str, Any]]) -> None:
    with pytest.raises(BadRequestError, match="tool"):
        await read(start(model, [*broken, {"role": "user", "content": "go on"}]))


async def test_error_status(provider: Provider, model: Model) -> None:
    provider.queue(Reply(error_status=429, retry_after=7))
    with pytest.raises(RateLimitError) as caught:
        await read(start(model))
    assert caught.value.response.headers["Retry-After"] == "7"


async def test_error_in_the_stream(provider: Provider, client: AsyncOpenAI) -> None:
    provider.queue(Reply(["half"], stream_error="overloaded"))
    with pytest.raises(APIError, match="overloaded"):
        await read(start(OpenAIChatCompletionsModel("stand-in", client)))


async def test_dropped_connection(provider: Provider, model: Model) -> None:
    provider.queue(Reply(words(10), cut_after=4))
    with pytest.raises(APIConnectionError):
        await read(start(model))
    assert provider.calls[0].sent == 4
    assert provider.calls[0].disconnected_at is None


async def test_gate_lets_single_tokens_out(provider: Provider, model: Model) -> None:
    reply = Reply(["a", "b", "c"], gate=Gate())
    provider.queue(reply)
    result = start(model)
    async with aclosing(_texts(result)) as texts:
        call = await provider.next_call()
        for count, expected in enumerate(["a", "b", "c"]):
            assert call.sent == count
            reply.release()
            assert await anext(texts) == expected
        assert call.finished_at is None
        reply.release()
        await call.until(lambda c: c.finished_at)
        with pytest.raises(StopAsyncIteration):
            await anext(texts)


async def test_cancel_is_seen_as_disconnect(provider: Provider, model: Model) -> None:
    reply = Reply(words(9), hang_after=2)
    provider.queue(reply)
    result = start(model)
    reading = asyncio.create_task(read(result))
    call = await provider.next_call()
    await call.until(lambda c: c.sent == 2)
    result.cancel()
    await reading
    await call.until(lambda c: c.disconnected_at)
    assert call.sent == 2


async def test_disconnect_before_the_headers(provider: Provider, model: Model) -> None:
    provider.queue(Reply(["never"], hold=Gate()))
    result = start(model)
    reading = asyncio.create_task(read(result))
    call = await provider.next_call()
    result.cancel()
    await reading
    await call.until(lambda c: c.disconnected_at)
    assert call.sent == 0


async def test_unfinished_body(provider: Provider, client: AsyncOpenAI) -> None:
    provider.queue(Reply(words(5), end_after=3))
    stream = await client.chat.completions.create(
        model="stand-in", messages=[{"role": "user", "content": "go"}], stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert len(chunks) == 4
    assert not any(chunk.choices[0].finish_reason for chunk in chunks)


async def test_truncated_reply(provider: Provider, client: AsyncOpenAI) -> None:
    provider.queue(Reply(["cut"], finish_reason="length"))
    stream = await client.responses.create(model="stand-in", input="go", stream=True)
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.incomplete_details
    assert events[-1].response.incomplete_details.reason == "max_output_tokens"


def test_models_are_listed(provider: Provider) -> None:
    with urllib.request.urlopen(f"{provider.base_url}/models") as response:
        assert b"stand-in" in response.read()


async def _texts(result: RunResultStreaming) -> AsyncGenerator[str, None]:
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            yield event.data.delta
