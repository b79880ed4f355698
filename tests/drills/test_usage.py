"""What a reply took is told on every way it can end, and never as a false zero."""

import json
import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from conversations.text import estimate_text
from tests.drills.conftest import drill_site
from tests.support.client import ChatClient, event
from tests.support.kept import converge
from tests.support.provider import Provider, Reply, ToolCall, words
from tests.support.site import Site
from tests.support.transcript import Frame

PRICES = {"stand-in": {"input": "1000", "cached_input": "100", "output": "5000"}}
LOOK_UP = ToolCall("look_up", json.dumps({"word": "mill"}))


@pytest.fixture(scope="module", params=["chat", "responses"])
def priced_site(request: pytest.FixtureRequest, shared_provider: Provider) -> Iterator[Site]:
    changes = {"AGENT_API": request.param, "MODEL_PRICES": json.dumps(PRICES)}
    with drill_site(shared_provider, **changes) as site:
        yield site


async def begin(client: ChatClient, provider: Provider, *replies: Reply) -> dict[str, Any]:
    provider.queue(*replies)
    accepted = await client.chat("Hello")
    await client.resume(accepted["session_id"])
    return accepted


def told(end: Frame) -> tuple[str, dict[str, Any]]:
    return end["metadata"]["usage_source"], end["metadata"]["usage"]


async def test_finished(priced_site: Site, provider: Provider) -> None:
    """Two calls, a part of the input from the server's cache; the same is kept."""
    ann = priced_site.users["ann"]
    second = Reply(words(4), input_tokens=30, cached_tokens=20)
    async with priced_site.chat(ann) as client:
        accepted = await begin(client, provider, Reply(tool_calls=[LOOK_UP]), second)
        source, usage = told(await client.wait_end(accepted["run_id"]))
        await converge(priced_site, ann, accepted["session_id"], client)
    assert source == "measured"
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (40, 5, 45)
    assert usage["cached_input_tokens"] == 20
    assert (Decimal(usage["cost"]), usage["currency"]) == (Decimal("0.047"), "USD")
    path = f"/api/sessions/{accepted['session_id']}/"
    run = priced_site.get_json(f"{path}runs/{accepted['run_id']}/", ann)
    assert (run["cost"], run["input_tokens"]) == (usage["cost"], 40)
    assert [(tool["name"], tool["status"]) for tool in run["tools"]] == [("look_up", "finished")]
    moments = ("created_at", "claimed_at", "first_token_at", "last_token_at", "ended_at")
    assert [run[name] for name in moments] == sorted(run[name] for name in moments)
    totals = priced_site.get_json(path, ann)["usage"]
    assert (totals["runs"], totals["input_tokens"], totals["cost"]) == (1, 40, usage["cost"])


async def test_stopped_in_mid_text(priced_site: Site, provider: Provider) -> None:
    """What the finished call said, and an estimate for the open one."""
    ann, second = priced_site.users["ann"], Reply(words(12), hang_after=5)
    async with priced_site.chat(ann) as client:
        accepted = await begin(client, provider, Reply(tool_calls=[LOOK_UP]), second)
        await client.wait_text(accepted["run_id"], second.start(5))
        await client.cancel(accepted["session_id"], run_id=accepted["run_id"])
        source, usage = told(await client.wait_end(accepted["run_id"]))
    assert source == "estimated"
    assert usage["input_tokens"] > 10 + 10
    assert usage["output_tokens"] == 1 + math.ceil(estimate_text(second.start(5)))
    assert Decimal(usage["cost"]) > 0
    run = priced_site.get_json(
        f"/api/sessions/{accepted['session_id']}/runs/{accepted['run_id']}/", ann
    )
    assert run["cancel_requested_at"] <= run["stopped_at"] <= run["ended_at"]


async def test_stopped_in_a_tool(priced_site: Site, provider: Provider) -> None:
    """No call is open: what is known is all there is."""
    ann = priced_site.users["ann"]
    async with priced_site.chat(ann) as client:
        accepted = await begin(client, provider, Reply(tool_calls=[ToolCall("wait")]))
        await client.wait_for(event("tool.progress"))
        await client.cancel(accepted["session_id"], run_id=accepted["run_id"])
        source, usage = told(await client.wait_end(accepted["run_id"]))
    assert source == "measured"
    assert (usage["input_tokens"], usage["output_tokens"]) == (10, 1)


@pytest.mark.parametrize(
    ("fault", "source", "output"),
    [
        ({"cut_after": 5}, "estimated", math.ceil(estimate_text("".join(words(5))))),
        ({"finish_reason": "length"}, "measured", 12),
        ({"finish_reason": "content_filter"}, "measured", 12),
        ({"error_status": 500}, "unknown", None),
        ({"error_status": 401}, "unknown", None),
    ],
    ids=str,
)
async def test_failed(
    priced_site: Site, provider: Provider, fault: dict[str, Any], source: str, output: int | None
) -> None:
    async with priced_site.chat(priced_site.users["ann"]) as client:
        accepted = await begin(client, provider, Reply(words(12), **fault))
        end = await client.wait_end(accepted["run_id"])
    assert end["type"] == "error"
    assert end["metadata"]["usage_source"] == source
    assert end["metadata"]["usage"].get("output_tokens") == output


async def test_killed(priced_site: Site, provider: Provider) -> None:
    """What was committed is estimated by whoever ends it."""
    ann, reply = priced_site.users["ann"], Reply(words(12), hang_after=5)
    async with priced_site.chat(ann) as client:
        accepted = await begin(client, provider, reply)
        await client.wait_text(accepted["run_id"], reply.start(5))
        priced_site.kill()
    priced_site.start()
    async with priced_site.chat(ann, client.transcript) as client:
        await client.resume(accepted["session_id"])
        source, usage = told(await client.wait_end(accepted["run_id"]))
    assert source == "estimated"
    assert usage["output_tokens"] == math.ceil(estimate_text(reply.start(5)))
    assert usage["input_tokens"] > 0
