"""What a run sets on its agents stays with the run."""

from typing import Any

import pytest
from agents import Agent, GuardrailFunctionOutput, InputGuardrail, function_tool, handoff
from agents.testing import ScriptedModel, assistant_message, function_call
from django.contrib.auth.models import User

from conversations.models import Message, RunEvent
from realtime.process import Process
from realtime.work.tools import copy_agent, find_agent
from tests.support.agent_site import Serve
from tests.support.inprocess import open_chat_here


def make_guardrail() -> InputGuardrail[Any]:
    passes = GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)
    return InputGuardrail(lambda context, agent, said: passes)


def make_tool() -> Any:
    @function_tool
    async def count() -> str:
        return "42"

    return count


def test_agents_that_hand_over_in_a_circle_are_copied_once() -> None:
    first, second = Agent[Any](name="first"), Agent[Any](name="second")
    first.handoffs, second.handoffs = [handoff(second)], [first]
    made = copy_agent(first)
    other = find_agent(made, "second")
    assert other is not None
    assert other is not second
    assert other.handoffs == [made]
    assert made is not first


def test_guardrails_go_before_the_model() -> None:
    guardrail = make_guardrail()
    agent = Agent[Any](name="one", input_guardrails=[guardrail])
    assert not copy_agent(agent).input_guardrails[0].run_in_parallel
    assert guardrail.run_in_parallel


@pytest.mark.parametrize("by_handoff", [False, True])
async def test_tools_and_guardrails_of_the_site_are_not_changed(
    process: Process, serve_agents: Serve, ada: User, by_handoff: bool
) -> None:
    tool, guardrail = make_tool(), make_guardrail()
    calls = [[function_call("count", {}, call_id="call_2")], [assistant_message("42")]]
    expert = Agent[Any](
        name="expert", model=ScriptedModel(calls), tools=[tool], input_guardrails=[guardrail]
    )
    hand_over = [function_call("transfer_to_expert", {}, call_id="call_1")]
    serve_agents(
        Agent(
            name="desk",
            model=ScriptedModel([hand_over]),
            handoffs=[handoff(expert) if by_handoff else expert],
            input_guardrails=[guardrail],
        )
    )
    async with open_chat_here(ada) as client:
        accepted = await client.chat("How many?")
        await client.wait_end(accepted["run_id"])
    assert (await Message.objects.aget(role="assistant")).text == "42"
    assert await RunEvent.objects.filter(kind="tool.finished").aexists()
    assert (tool.timeout_seconds, guardrail.run_in_parallel) == (None, True)
