"""Agents as teams write them: handing over, guarded, with output of a shape."""

from typing import Any

from agents import Agent, GuardrailFunctionOutput, RunContextWrapper, input_guardrail
from django.contrib.auth.models import User
from pydantic import BaseModel

from agentsite import agents as site_agents
from conversations.models import ChatSession, Run
from conversations.sessions.history import get_history
from conversations.sessions.rendering import render_markdown
from realtime.process import Process
from tests.support.agent_site import AgentSite
from tests.support.client import event
from tests.support.inprocess import open_chat_here
from tests.support.provider import Reply, ToolCall
from tests.support.threads import in_thread


async def test_a_session_keeps_the_agent_it_began_with(
    process: Process, agent_site: AgentSite, ada: User
) -> None:
    agent_site.serve(site_agents.assistant, site_agents.site)
    async with open_chat_here(ada) as client:
        first = await client.chat("hello", agent="site")
        await client.wait_end(first["run_id"])
        second = await client.chat("again", first["session_id"])
        await client.wait_end(second["run_id"])
        other = await client.chat("for once", first["session_id"], agent="assistant")
        await client.wait_end(other["run_id"])
    assert (await ChatSession.objects.aget()).agent == "site"
    names = [run.agent async for run in Run.objects.order_by("number")]
    assert names == ["site", "site", "assistant"]
    offered = [bool(call.body.get("tools")) for call in agent_site.provider.calls]
    assert offered == [True, True, False]


async def test_a_handover_is_told_kept_and_understood_later(
    process: Process, agent_site: AgentSite, ada: User
) -> None:
    agent_site.serve(site_agents.team)
    agent_site.provider.queue(
        Reply(["One moment. "], tool_calls=[ToolCall("transfer_to_writer")]), Reply(["Dear all,"])
    )
    async with open_chat_here(ada) as client:
        accepted = await client.chat("Write a letter")
        changed = await client.wait_for(event("agent.changed"))
        assert changed["metadata"]["name"] == "writer"
        end = await client.wait_end(accepted["run_id"])
        assert end["content"] == "One moment. \n\nDear all,"
        # The next turn is taken with the handover in its history.
        again = await client.chat("Thank you", accepted["session_id"])
        await client.wait_end(again["run_id"])
    session = await ChatSession.objects.aget()
    history = await in_thread(get_history, session)
    speakers = [message.agent for message in history.messages if message.role == "assistant"]
    assert speakers == ["writer", "team"]
    kinds = [part["type"] for part in history.messages[1].parts or []]
    assert kinds == ["text", "agent", "text"]


@input_guardrail
async def about_water(
    context: RunContextWrapper[Any], agent: Agent[Any], said: Any
) -> GuardrailFunctionOutput:
    """Lets only questions about water through."""
    text = said if isinstance(said, str) else str(said[-1]["content"])
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered="water" not in text)


async def test_a_guardrail_trips_before_the_model_is_asked(
    process: Process, agent_site: AgentSite, ada: User
) -> None:
    agent_site.serve(Agent(name="diver", input_guardrails=[about_water]))
    async with open_chat_here(ada) as client:
        refused = await client.chat("About fire")
        end = await client.wait_end(refused["run_id"])
        assert (end["type"], end["metadata"]["code"]) == ("error", "guardrail")
        assert agent_site.provider.calls == []
        assert not [frame for frame in client.frames if frame["type"] == "token"]
        taken = await client.chat("About water", refused["session_id"])
        assert (await client.wait_end(taken["run_id"]))["type"] == "complete"


class Depth(BaseModel):
    water: str
    metres: int


async def test_output_of_a_shape_can_be_read(
    process: Process, agent_site: AgentSite, ada: User
) -> None:
    agent_site.serve(Agent(name="diver", output_type=Depth))
    told = '{"water": "lake", "metres": 4}'
    agent_site.provider.queue(Reply([told[:9], told[9:]]))
    async with open_chat_here(ada) as client:
        accepted = await client.chat("How deep?")
        end = await client.wait_end(accepted["run_id"])
        tokens = [frame["content"] for frame in client.frames if frame["type"] == "token"]
        assert "".join(tokens) == end["content"] == f"```json\n{told}\n```"
        again = await client.chat("Again", accepted["session_id"])
        await client.wait_end(again["run_id"])
    assert "<code>" in render_markdown(end["content"])
    # The model is told what it has said, without what was put around it for people.
    said = [item for item in agent_site.provider.calls[-1].input if item["role"] == "assistant"]
    assert told in str(said)
    assert "```" not in str(said)
