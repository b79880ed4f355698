"""Context across whole runs, against a model's server as strict as the real ones."""

from typing import Any

import pytest
from agents import Agent, function_tool
from django.contrib.auth.base_user import AbstractBaseUser

from conversations.models import Run
from realtime.process import Process
from realtime.providers.call_items import LEFT_OUT
from tests.support.agent_site import AgentSite
from tests.support.client import ChatClient
from tests.support.inprocess import make_user, open_chat_here
from tests.support.provider import Call, Provider, Reply, ToolCall


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


TOO_LONG = Reply(error_status=400, error_code="context_length_exceeded")


async def test_what_is_too_long_is_tried_with_half(
    process: Process, user: AbstractBaseUser, provider: Provider
) -> None:
    provider.queue(Reply(["one"]), Reply(["two"]))
    async with open_chat_here(user) as client:
        session, _ = await say(client, "first " * 200)
        await say(client, "second " * 20, session)
        provider.script = lambda call: Reply(["fits"]) if size_of(call) < 1_000 else TOO_LONG
        _, end = await say(client, "third", session)
        assert (end["content"], len(provider.calls)) == ("fits", 4)
        assert prompts(provider) == [LEFT_OUT + "second " * 20, "third"]
        _, end = await say(client, "fourth", session)
    assert (end["content"], len(provider.calls)) == ("fits", 5), "refused again"
    assert prompts(provider) == [LEFT_OUT + "second " * 20, "third", "fourth"]
    run = await Run.objects.aget(number=3)
    assert (run.context_estimate, run.context_measured) == (None, None)
    assert (run.context_refused or 0) > 300


async def test_a_prompt_that_is_too_long_alone_is_told(
    process: Process, user: AbstractBaseUser, provider: Provider
) -> None:
    provider.script = lambda call: Reply(["fits"]) if size_of(call) < 1_000 else TOO_LONG
    async with open_chat_here(user) as client:
        session, end = await say(client, "first " * 200)
        assert end["metadata"]["code"] == "context_too_long"
        _, end = await say(client, "second", session)
    assert (end["content"], len(provider.calls)) == ("fits", 2)


async def test_another_refusal_makes_nobody_forget(
    process: Process, user: AbstractBaseUser, provider: Provider
) -> None:
    provider.queue(Reply(["one"]), *[Reply(error_status=400)] * 2)
    async with open_chat_here(user) as client:
        session, _ = await say(client, "first " * 200)
        _, end = await say(client, "second", session)
        assert end["metadata"]["code"] == "provider_refused"
        await say(client, "third", session)
    assert prompts(provider)[0] == "first " * 200


async def test_a_tool_that_says_too_much_is_cut(
    process: Process, user: AbstractBaseUser, agent_site: AgentSite
) -> None:
    @function_tool
    def read() -> str:
        """Read."""
        return "word " * 1_000

    provider = agent_site.provider
    agent_site.serve(Agent(name="assistant", tools=[read]))
    answer = Reply(tool_calls=[ToolCall("read")])
    provider.script = lambda call: (
        TOO_LONG if len(str(call.input)) > 3_000 else Reply(["fits"]) if call.number > 1 else answer
    )
    async with open_chat_here(user) as client:
        session, end = await say(client, "Read it.")
        assert end["content"] == "fits"
        _, end = await say(client, "And?", session)
    assert end["content"] == "fits"


async def test_an_agent_without_tools_is_told_of_calls_in_words(
    process: Process, user: AbstractBaseUser, agent_site: AgentSite
) -> None:
    """Some servers refuse calls where no tools are declared, as after a handover."""
    provider = agent_site.provider
    writer = Agent[Any](name="writer")
    agent_site.serve(Agent(name="assistant", handoffs=[writer]))
    provider.queue(Reply(["I ask. "], tool_calls=[ToolCall("transfer_to_writer")]), Reply(["Hi."]))
    async with open_chat_here(user) as client:
        _, end = await say(client, "Write.")
    assert end["content"] == "I ask. \n\nHi."
    given = provider.calls[-1].input
    assert [item["role"] for item in given if item["role"] != "system"] == [
        *("user", "assistant", "user")
    ]


async def test_what_was_thought_before_a_call_comes_back(
    process: Process, user: AbstractBaseUser, provider: Provider, agent_site: AgentSite
) -> None:
    @function_tool
    def clock() -> str:
        """The time."""
        return "noon"

    agent_site.serve(Agent(name="assistant", tools=[clock]))
    provider.needs_reasoning = True
    ask = Reply(tool_calls=[ToolCall("clock")], reasoning=["I ", "need it."])
    provider.queue(ask, Reply(["Noon."], reasoning=["So."]), Reply(["Bye."]))
    async with open_chat_here(user) as client:
        session, _ = await say(client, "What time is it?")
        _, end = await say(client, "Thanks", session)
    assert end["content"] == "Bye."
    if provider.calls[-1].api == "chat":
        thought = [item.get("reasoning_content") for item in provider.calls[-1].input]
        assert [text for text in thought if text] == ["I need it.", "So."]


@pytest.mark.parametrize("agent_site", ["chat"], indirect=True)
@pytest.mark.parametrize("demands", [True, False])
async def test_what_was_thought_is_sent_or_left_out_as_the_server_says(
    process: Process, user: AbstractBaseUser, agent_site: AgentSite, demands: bool
) -> None:
    @function_tool
    def clock() -> str:
        """The time."""
        return "noon"

    provider = agent_site.provider
    agent_site.serve(Agent(name="assistant", tools=[clock]))
    thoughts = [] if demands else ["Hm."]
    ask = Reply(tool_calls=[ToolCall("clock")], reasoning=thoughts)
    words = "reasoning_content is missing" if demands else "reasoning_content is unknown"
    refused = Reply(error_status=400, error_message=words)

    def answer(call: Call) -> Reply:
        has = any(item.get("reasoning_content") for item in call.input)
        if call.number == 1:
            return ask
        return Reply(["Noon."]) if has is demands else refused

    provider.script = answer
    async with open_chat_here(user) as client:
        session, end = await say(client, "What time is it?")
        assert end["content"] == "Noon."
        _, end = await say(client, "Thanks", session)
    assert end["content"] == "Noon."


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
