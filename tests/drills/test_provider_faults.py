"""What the model's side can do wrong: a typed error, the text kept, the next turn works."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from realtime.providers.call_items import NOT_ANSWERED
from tests.drills.conftest import drill_site
from tests.support.kept import converge
from tests.support.processes import free_port
from tests.support.provider import Gate, Provider, Reply, ToolCall, words
from tests.support.site import Site

SHOWN = 5


@dataclass(frozen=True)
class Fault:
    """How a reply goes wrong, and what people are told of it."""

    name: str
    code: str
    retryable: bool
    reply: dict[str, Any]
    shown: int = 0
    told: dict[str, Any] = field(default_factory=dict)


FAULTS = [
    Fault(
        "too many requests",
        "provider_rate_limited",
        True,
        {"error_status": 429, "retry_after": 7},
        told={"retry_after": 7.0},
    ),
    Fault("broken", "provider_unavailable", True, {"error_status": 500}),
    Fault("overloaded", "provider_unavailable", True, {"error_status": 503}),
    Fault("slow gateway", "provider_timeout", True, {"error_status": 504}),
    Fault("refused key", "provider_key", False, {"error_status": 401}),
    Fault("forbidden", "provider_key", False, {"error_status": 403}),
    Fault(
        "account used up",
        "provider_quota",
        False,
        {"error_status": 429, "error_code": "insufficient_quota"},
    ),
    Fault("unknown model", "provider_refused", False, {"error_status": 404}),
    Fault(
        "too long",
        "context_too_long",
        False,
        {"error_status": 400, "error_code": "context_length_exceeded"},
    ),
    Fault("cut before the text", "provider_unavailable", True, {"cut_after": 0}),
    Fault("cut", "provider_cut", True, {"cut_after": SHOWN}, SHOWN),
    Fault("ends too early", "provider_cut", True, {"end_after": SHOWN}, SHOWN),
    Fault("fails", "provider_cut", True, {"stream_error": "overheated"}, 12),
    Fault("filtered", "content_filtered", False, {"finish_reason": "content_filter"}, 12),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: re.sub(r"\s", "-", fault.name))
async def test_is_told_and_leaves_no_trace(
    either_site: Site, provider: Provider, fault: Fault
) -> None:
    await fails(either_site, provider, fault, Reply(words(12), **fault.reply))


@pytest.mark.parametrize("tokens", [0, 12])
async def test_longest_reply_is_cut_at_the_limit(
    either_site: Site, provider: Provider, tokens: int
) -> None:
    ann = either_site.users["ann"]
    reply = Reply(words(tokens), finish_reason="length")
    provider.queue(reply)
    async with either_site.chat(ann) as client:
        accepted = await client.chat("Hello")
        await client.resume(accepted["session_id"])
        end = await client.wait_end(accepted["run_id"])
        again = await client.chat("Go on", accepted["session_id"])
        await client.wait_end(again["run_id"])
        await converge(either_site, ann, accepted["session_id"], client)
    assert end["metadata"]["code"] == "limit_length"
    assert end["metadata"]["retryable"] is True
    if tokens:
        assert end["metadata"]["usage_source"] == "measured"
        assert end["metadata"]["usage"]["output_tokens"] == tokens
    assert client.transcript.text(accepted["run_id"]) == reply.text
    said = [item["content"] for item in provider.calls[-1].input if item["role"] == "assistant"]
    assert said == [reply.text if tokens else NOT_ANSWERED]


async def fails(site: Site, provider: Provider, fault: Fault, reply: Reply) -> None:
    """Chat, be told of the fault, and chat again."""
    ann = site.users["ann"]
    provider.queue(reply)
    async with site.chat(ann) as client:
        accepted = await client.chat("Hello")
        run_id, session_id = accepted["run_id"], accepted["session_id"]
        await client.resume(session_id)
        end = await client.wait_end(run_id)
        told = {"code": fault.code, "retryable": fault.retryable, "terminal": True} | fault.told
        assert end["type"] == "error"
        assert {name: end["metadata"].get(name) for name in told} == told
        assert client.transcript.text(run_id) == reply.start(fault.shown)
        again = await client.chat("Again", session_id)
        answer = await client.wait_end(again["run_id"])
        kept = await converge(site, ann, session_id, client)
    # What was too long once is sent shortened, and the model is told so.
    assert re.fullmatch(r"You said: (\[.*\]\n\n)?Again", answer["content"])
    failed = kept.reply(run_id)
    assert (failed["run_status"], failed["error_code"]) == ("failed", fault.code)
    assert [call.refusal for call in provider.calls if call.refusal] == []


@pytest.fixture(scope="module", params=["chat", "responses"])
def hasty_site(request: pytest.FixtureRequest, shared_provider: Provider) -> Iterator[Site]:
    changes = {"AGENT_API": request.param, "PROVIDER_TIMEOUT_S": "1"}
    with drill_site(shared_provider, **changes) as site:
        yield site


@pytest.mark.parametrize("shown", [0, SHOWN])
async def test_silence(hasty_site: Site, provider: Provider, shown: int) -> None:
    """The model says nothing more, before its first word or in the middle of its reply."""
    silence: dict[str, Any] = {"hang_after": SHOWN} if shown else {"hold": Gate()}
    code = "provider_cut" if shown else "provider_timeout"
    fault = Fault("silent", code, True, silence, shown)
    await fails(hasty_site, provider, fault, Reply(words(12), **silence))
    await (await provider.next_call()).until(lambda call: call.disconnected_at)


async def test_nobody_listens(provider: Provider) -> None:
    with drill_site(provider, OPENAI_BASE_URL=f"http://127.0.0.1:{free_port()}/v1") as site:
        ann = site.users["ann"]
        async with site.chat(ann) as client:
            accepted = await client.chat("Hello")
            end = await client.wait_end(accepted["run_id"])
    assert end["metadata"]["code"] == "provider_unavailable"
    assert end["metadata"]["retryable"] is True


@pytest.mark.parametrize("arguments", ["{", '{"word": 1, "x": []}', '""'])
async def test_tool_arguments_that_are_none(
    either_site: Site, provider: Provider, arguments: str
) -> None:
    """The model is told of its mistake, and goes on."""
    ann = either_site.users["ann"]
    provider.queue(Reply(tool_calls=[ToolCall("look_up", arguments)]), Reply(["Well ", "then."]))
    async with either_site.chat(ann) as client:
        accepted = await client.chat("Hello")
        await client.resume(accepted["session_id"])
        end = await client.wait_end(accepted["run_id"])
        again = await client.chat("Again", accepted["session_id"])
        await client.wait_end(again["run_id"])
        await converge(either_site, ann, accepted["session_id"], client)
    assert end["type"] == "complete"
    assert end["content"] == "Well then."
    assert [call.refusal for call in provider.calls if call.refusal] == []


@pytest.mark.parametrize("tool", ["no_such_tool", "look_up"])
async def test_useless_tool_calls_end(either_site: Site, provider: Provider, tool: str) -> None:
    """One that does not exist, and one that is called again and again."""
    provider.script = lambda call: Reply(tool_calls=[ToolCall(tool, '{"word": "mill"}')])
    async with either_site.chat(either_site.users["ann"]) as client:
        accepted = await client.chat("Hello")
        end = await client.wait_end(accepted["run_id"])
    assert (end["type"], end["metadata"]["code"]) == ("error", "limit_turns")
