"""An agent as a tool of another one: one step of the reply, whatever it does in it."""

import asyncio
from typing import Any

import pytest
from agents import Agent, Tool, Usage, function_tool
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from agents.tool_context import ToolContext
from django.contrib.auth.models import User

from conversations.models import Message, Run
from conversations.text import ID_CHARS
from realtime.process import Process
from realtime.work.run_context import RunContext
from tests.support.agent_site import Serve
from tests.support.client import ChatClient, event
from tests.support.inprocess import open_chat_here
from tests.support.waiting import time_limit


def step(*output: Any) -> ModelStep:
    """A model call of 10 tokens."""
    usage = Usage(requests=1, input_tokens=9, output_tokens=1, total_tokens=10)
    return ModelStep(output=output, usage=usage)


def desk(*expert_steps: ModelStep, tools: list[Tool] | None = None) -> Agent[RunContext]:
    """An agent that asks an expert once, and then answers."""
    expert = Agent[RunContext](name="expert", model=ScriptedModel(expert_steps), tools=tools or [])
    ask = step(function_call("expert", {"input": "How many?"}, call_id="call_1"))
    model = ScriptedModel([ask, step(assistant_message("42, they say."))])
    return Agent(name="desk", model=model, tools=[expert.as_tool("expert", "Knows.")])


def tool_events(client: ChatClient) -> list[tuple[str, str]]:
    told = [frame["metadata"] for frame in client.frames]
    return [
        (at["event"], at["name"]) for at in told if str(at.get("event", "")).startswith("tool.")
    ]


async def test_it_is_one_step_and_its_tokens_count(
    process: Process, serve_agents: Serve, ada: User
) -> None:
    serve_agents(desk(step(assistant_message("42"))))
    async with open_chat_here(ada) as client:
        accepted = await client.chat("How many?")
        end = await client.wait_end(accepted["run_id"])
        assert tool_events(client) == [("tool.started", "expert"), ("tool.finished", "expert")]
    assert end["content"] == "42, they say."
    run = await Run.objects.aget()
    assert (run.input_tokens, run.output_tokens, run.usage_source) == (27, 3, "measured")
    reply = await Message.objects.aget(role="assistant")
    assert reply.parts[0]["output"] == "42"


async def test_a_stop_reaches_its_tools(process: Process, serve_agents: Serve, ada: User) -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    @function_tool
    async def count() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return "never"

    counting = step(function_call("count", {}, call_id="call_2"))
    serve_agents(desk(counting, tools=[count]))
    async with open_chat_here(ada) as client:
        accepted = await client.chat("How many?")
        async with time_limit("the start of the tool"):
            await begun.wait()
        await client.cancel(accepted["session_id"], run_id=accepted["run_id"])
        end = await client.wait_end(accepted["run_id"])
        assert ("tool.failed", "expert") in tool_events(client)
    assert end["metadata"]["finish_reason"] == "cancelled"
    assert stopped.is_set()


@pytest.mark.parametrize("decision", ["approve", "reject"])
async def test_its_tools_ask_too(
    process: Process, serve_agents: Serve, ada: User, decision: str
) -> None:
    counted = []

    @function_tool(needs_approval=True)
    async def count(things: str) -> str:
        """Count the things."""
        counted.append(things)
        return "42"

    counting = step(function_call("count", {"things": "herons"}, call_id="call_2"))
    serve_agents(desk(counting, step(assistant_message("42")), tools=[count]))
    async with open_chat_here(ada) as client:
        accepted = await client.chat("How many?")
        asked = (await client.wait_for(event("input.requested")))["metadata"]
        assert (asked["tool"], asked["arguments"]) == ("count", '{"things":"herons"}')
        assert asked["description"] == "Count the things."
        assert counted == []
        answer = {"request_id": asked["request_id"], "decision": decision}
        await client.send(
            {"type": "respond", "session_id": accepted["session_id"], "metadata": answer}
        )
        end = await client.wait_end(accepted["run_id"])
    assert counted == (["herons"] if decision == "approve" else [])
    assert end["content"] == "42, they say."


@pytest.mark.parametrize("asks_first", [False, True])
async def test_an_id_of_the_models_server_is_stored_cleaned(
    process: Process, serve_agents: Serve, ada: User, asks_first: bool
) -> None:
    """Postgres takes no NUL, and would refuse all that the reply has to commit for ever."""

    @function_tool(needs_approval=asks_first)
    async def count(context: ToolContext[RunContext]) -> str:
        context.context.progress(context, "counting")
        context.context.summarise(context, "Counted")
        return "42"

    call_id = "call\x00\ud800" + "x" * 10_000
    steps = [step(function_call("count", {}, call_id=call_id)), step(assistant_message("42"))]
    serve_agents(Agent(name="desk", model=ScriptedModel(steps), tools=[count]))
    async with open_chat_here(ada) as client:
        accepted = await client.chat("How many?")
        if asks_first:
            asked = (await client.wait_for(event("input.requested")))["metadata"]
            answer = {"request_id": asked["request_id"], "decision": "approve"}
            await client.send(
                {"type": "respond", "session_id": accepted["session_id"], "metadata": answer}
            )
        end = await client.wait_end(accepted["run_id"])
        kinds = [event for event, _ in tool_events(client)]
    assert (end["type"], end["content"]) == ("complete", "42")
    assert kinds == ["tool.started", "tool.progress", "tool.finished"]
    reply = await Message.objects.aget(role="assistant")
    (part,) = [part for part in reply.parts if part["type"] == "tool"]
    assert part["summary"] == "Counted"
    assert len(part["tool_call_id"]) == ID_CHARS
    assert part["tool_call_id"].startswith("call\ufffd\ufffdxxx")
