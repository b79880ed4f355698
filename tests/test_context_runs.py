"""Context across whole runs, against a model's server as strict as the real ones."""

from typing import Any

import pytest
from agents import Agent
from django.contrib.auth.base_user import AbstractBaseUser

from conversations.models import Run
from realtime.call_items import LEFT_OUT
from realtime.process import Process
from tests.support.agent_site import AgentSite
from tests.support.client import ChatClient
from tests.support.inprocess import make_user, open_chat_here
from tests.support.provider import Call, Provider, Reply


@pytest.fixture
def user(transactional_db: None) -> AbstractBaseUser:
    return make_user("ada")


@pytest.fixture(autouse=True)
def agent(agent_site: AgentSite) -> None:
    agent_site.serve(Agent(name="assistant", instructions="Be brief."))


async def say(client: ChatClient, content: str, session_id: str = "") -> tuple[str, dict[str, Any]]:
    """The session, and the last frame of the reply."""
    accepted = await client.chat(content, session_id)
    return accepted["session_id"], await client.wait_end(accepted["run_id"])


def size_of(call: Call) -> int:
    """Characters of all that the model was given."""
    return sum(len(str(item["content"])) for item in call.input)


def prompts(provider: Provider) -> list[str]:
    """What the user said, as the latest request had it."""
    return [item["content"] for item in provider.calls[-1].input if item["role"] == "user"]


async def test_the_first_input_is_measured(
    process: Process, user: AbstractBaseUser, provider: Provider
) -> None:
    provider.queue(Reply(["hello"], input_tokens=42))
    async with open_chat_here(user) as client:
        await say(client, "hi there")
    run = await Run.objects.aget()
    assert (run.context_measured, run.context_refused) == (42, None)
    assert 0 < (run.context_estimate or 0) < 42


async def test_after_a_refusal_the_next_turn_fits(
    process: Process, user: AbstractBaseUser, provider: Provider
) -> None:
    provider.queue(Reply(["one"]), Reply(["two"]))
    refusal = Reply(error_status=400, error_code="context_length_exceeded")
    async with open_chat_here(user) as client:
        session, _ = await say(client, "first " * 200)
        await say(client, "second " * 20, session)
        provider.script = lambda call: Reply(["fits"]) if size_of(call) < 1_000 else refusal
        _, refused = await say(client, "third", session)
        assert refused["metadata"]["code"] == "context_too_long"
        _, end = await say(client, "fourth", session)
    assert end["content"] == "fits"
    assert prompts(provider) == [LEFT_OUT + "second " * 20, "third", "fourth"]
    run = await Run.objects.aget(number=3)
    assert run.context_refused == run.context_estimate


async def test_a_long_conversation_is_cut_to_the_budget(
    process: Process, user: AbstractBaseUser, provider: Provider, settings: Any
) -> None:
    settings.REALTIME = {**settings.REALTIME, "context_tokens": "stand-in=400"}
    provider.script = lambda call: Reply(["yes"], input_tokens=size_of(call) // 4)
    async with open_chat_here(user) as client:
        session, _ = await say(client, "0 " + "word " * 100)
        for number in range(1, 5):
            await say(client, f"{number} " + "word " * 100, session)
    texts = prompts(provider)
    assert texts[-1].startswith("4")
    assert texts[0].startswith(LEFT_OUT)
    assert len(texts) in (2, 3), "the APIs' own words weigh differently"
    assert all(size_of(call) // 4 <= 400 for call in provider.calls)
    assert [call.refusal for call in provider.calls if call.refusal] == []
