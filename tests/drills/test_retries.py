"""The model's server is asked again while nothing has been shown, and never after that."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.drills.conftest import drill_site
from tests.support.client import ChatClient, event
from tests.support.kept import converge
from tests.support.provider import Provider, Reply, ToolCall, words
from tests.support.site import Site
from tests.support.transcript import Frame

BUSY: dict[str, Any] = {"error_status": 429, "retry_after": 0.2}
TRANSIENT: list[dict[str, Any]] = [
    BUSY,
    {"error_status": 429},
    {"error_status": 503},
    {"error_status": 504},
    {"cut_after": 0},
    {"end_after": 0},
]
FINAL: list[dict[str, Any]] = [
    {"error_status": 401},
    {"error_status": 400},
    {"error_status": 429, "error_code": "insufficient_quota"},
    {"error_status": 429, "retry_after": 60},
    {"finish_reason": "content_filter"},
]


@pytest.fixture(scope="module", params=["chat", "responses"])
def patient_site(request: pytest.FixtureRequest, shared_provider: Provider) -> Iterator[Site]:
    changes = {"AGENT_API": request.param, "PROVIDER_RETRIES": "2"}
    with drill_site(shared_provider, **changes) as site:
        yield site


async def reply_to(site: Site, provider: Provider, *replies: Reply) -> tuple[Frame, ChatClient]:
    """Chat and read to the end."""
    ann = site.users["ann"]
    provider.queue(*replies)
    async with site.chat(ann) as client:
        accepted = await client.chat("Hello")
        await client.resume(accepted["session_id"])
        end = await client.wait_end(accepted["run_id"])
        await converge(site, ann, accepted["session_id"], client)
    return end, client


def pauses(client: ChatClient) -> list[dict[str, Any]]:
    return client.transcript.told("run.retrying")


@pytest.mark.parametrize("fault", TRANSIENT, ids=str)
async def test_second_try_answers(
    patient_site: Site, provider: Provider, fault: dict[str, Any]
) -> None:
    end, client = await reply_to(patient_site, provider, Reply(words(3), **fault))
    assert (end["type"], end["content"]) == ("complete", "You said: Hello")
    assert end["metadata"]["usage_source"] == "measured"
    [pause] = pauses(client)
    assert (pause["attempt"], pause["wait_s"]) == (1, 1)
    path = f"/api/sessions/{end['session_id']}/runs/{end['metadata']['run_id']}/"
    assert patient_site.get_json(path, patient_site.users["ann"])["retries"] == 1


async def test_third_refusal_is_the_last(patient_site: Site, provider: Provider) -> None:
    end, client = await reply_to(patient_site, provider, *(Reply(**BUSY) for _ in range(3)))
    assert end["metadata"]["code"] == "provider_rate_limited"
    assert end["metadata"]["retry_after"] == 0.2
    assert end["metadata"]["usage_source"] == "unknown"
    assert [pause["attempt"] for pause in pauses(client)] == [1, 2]
    assert len(provider.calls) == 3


@pytest.mark.parametrize("fault", FINAL, ids=str)
async def test_what_asking_again_cannot_help(
    patient_site: Site, provider: Provider, fault: dict[str, Any]
) -> None:
    end, client = await reply_to(patient_site, provider, Reply(**fault))
    assert end["type"] == "error"
    assert not pauses(client)
    assert len(provider.calls) == 1


async def test_not_after_the_first_text(patient_site: Site, provider: Provider) -> None:
    reply = Reply(words(12), cut_after=5)
    end, client = await reply_to(patient_site, provider, reply)
    assert end["metadata"]["code"] == "provider_cut"
    assert client.transcript.text(end["metadata"]["run_id"]) == reply.start(5)
    assert end["metadata"]["usage_source"] == "estimated"
    assert len(provider.calls) == 1


async def test_not_after_a_tool(patient_site: Site, provider: Provider) -> None:
    call = ToolCall("look_up", json.dumps({"word": "mill"}))
    end, _ = await reply_to(patient_site, provider, Reply(tool_calls=[call]), Reply(**BUSY))
    assert end["metadata"]["code"] == "provider_rate_limited"
    assert end["metadata"]["usage"]["input_tokens"] == 10
    assert len(provider.calls) == 2


async def test_a_stop_does_not_wait_for_the_pause(patient_site: Site, provider: Provider) -> None:
    ann = patient_site.users["ann"]
    provider.queue(Reply(error_status=429, retry_after=15))
    async with patient_site.chat(ann) as client:
        accepted = await client.chat("Hello")
        pause = await client.wait_for(event("run.retrying"))
        asked_at = time.monotonic()
        await client.cancel(accepted["session_id"], run_id=accepted["run_id"])
        end = await client.wait_end(accepted["run_id"])
        assert time.monotonic() - asked_at < pause["metadata"]["wait_s"]
    assert end["metadata"]["finish_reason"] == "cancelled"
    assert len(provider.calls) == 1
