"""What people are told of tools while they work, by both of the model's APIs."""

import asyncio
import json
import time
from typing import Any

from agents import Agent, function_tool
from agents.tool_context import ToolContext
from django.contrib.auth.models import User

from conversations.models import Message, RunEvent
from realtime.process import Process
from realtime.work.run_context import RunContext
from tests.support.agent_site import AgentSite
from tests.support.client import ChatClient, event
from tests.support.inprocess import open_chat_here
from tests.support.provider import Reply, ToolCall

Context = ToolContext[RunContext]


@function_tool
async def meet(context: Context, name: str) -> str:
    """Goes on when both have come."""
    context.context.progress(context, f"{name} waits")
    await meeting.wait()
    context.context.summarise(context, f"{name} has met")
    return f"hello {name}"


@function_tool
async def chatter(context: Context) -> str:
    """Tells of 2,000 steps."""
    for step in range(2_000):
        context.context.progress(context, f"step {step}", step / 2_000)
        if step % 100 == 0:
            await asyncio.sleep(0)
    return "done"


@function_tool
def from_a_thread(context: Context) -> str:
    """Tells of itself from another thread, and is late to do so."""
    context.context.progress(context, "in a thread", 2.0)
    context.context.summarise(context, "Came\nfrom a thread")
    return "x" * 10_000


@function_tool
async def fail(context: Context) -> str:
    """Raises."""
    raise RuntimeError("a secret of ours")


meeting: asyncio.Barrier


def agent() -> Agent[RunContext]:
    return Agent(name="worker", tools=[meet, chatter, from_a_thread, fail])


async def work(
    site: AgentSite, client: ChatClient, *calls: ToolCall
) -> list[tuple[str, dict[str, Any]]]:
    """The tool events of a reply with these calls: kind and metadata."""
    site.serve(agent())
    site.provider.queue(Reply(tool_calls=calls), Reply(["Done."]))
    accepted = await client.chat("Go")
    assert (await client.wait_end(accepted["run_id"]))["content"] == "Done."
    return [
        (frame["metadata"]["event"], frame["metadata"])
        for frame in client.frames
        if frame["metadata"].get("event", "").startswith("tool.")
    ]


async def test_parallel_tools_do_not_mix_up(
    process: Process, agent_site: AgentSite, ada: User
) -> None:
    global meeting
    meeting = asyncio.Barrier(2)
    calls = [ToolCall("meet", json.dumps({"name": name})) for name in ("ann", "ben")]
    async with open_chat_here(ada) as client:
        events = await work(agent_site, client, *calls)
    reply = await Message.objects.aget(role="assistant")
    for name in ("ann", "ben"):
        mine = [kind for kind, told in events if name in str(told)]
        assert mine == ["tool.started", "tool.progress", "tool.finished"]
        (part,) = [part for part in reply.parts if name in part.get("arguments", "")]
        assert part["status"] == "finished"
        assert (part["progress"], part["summary"]) == (f"{name} waits", f"{name} has met")
        assert part["output"] == f"hello {name}"
        assert part["duration_ms"] >= 0


async def test_a_chatty_tool_is_not_a_flood(
    process: Process, agent_site: AgentSite, ada: User
) -> None:
    async with open_chat_here(ada) as client:
        begun = time.monotonic()
        events = await work(agent_site, client, ToolCall("chatter"))
        took = time.monotonic() - begun
    progress = [told for kind, told in events if kind == "tool.progress"]
    assert progress[0]["progress"] == "step 0"
    assert len(progress) <= 1 + took / 0.25
    assert await RunEvent.objects.filter(kind="tool.progress").acount() == len(progress)


async def test_from_a_thread_and_within_bounds(
    process: Process, agent_site: AgentSite, ada: User, settings: Any
) -> None:
    settings.REALTIME = {**settings.REALTIME, "tool_output_chars": 100}
    async with open_chat_here(ada) as client:
        events = await work(agent_site, client, ToolCall("from_a_thread"))
    _, progress, finished = (told for _, told in events)
    assert (progress["progress"], progress["fraction"]) == ("in a thread", 1.0)
    assert finished["summary"] == "Came from a thread"
    assert finished["output"] == "x" * 99 + "…"
    # The model is given all of it.
    assert "x" * 10_000 in json.dumps(agent_site.provider.calls[-1].input)


async def test_a_failure_is_one_and_says_nothing_of_ours(
    process: Process, agent_site: AgentSite, ada: User
) -> None:
    async with open_chat_here(ada) as client:
        events = await work(agent_site, client, ToolCall("fail"))
        assert [kind for kind, _ in events] == ["tool.started", "tool.failed"]
        assert "secret" not in json.dumps(client.frames)
    assert "secret" not in json.dumps(agent_site.provider.calls[-1].input)
    reply = await Message.objects.aget(role="assistant")
    assert reply.parts[0]["status"] == "failed"


async def test_one_after_another_with_the_same_id(
    process: Process, agent_site: AgentSite, ada: User
) -> None:
    agent_site.serve(agent())
    call = ToolCall("from_a_thread")
    agent_site.provider.queue(
        Reply(tool_calls=[call]), Reply(["So. "], tool_calls=[call]), Reply(["Done."])
    )
    async with open_chat_here(ada) as client:
        accepted = await client.chat("Go")
        end = await client.wait_end(accepted["run_id"])
    assert end["content"] == "So. \n\nDone."
    reply = await Message.objects.aget(role="assistant")
    kinds = [part["type"] for part in reply.parts]
    assert kinds == ["tool", "text", "tool", "text"]


async def test_thoughts_come_by_both_apis(
    process: Process, agent_site: AgentSite, ada: User
) -> None:
    agent_site.serve(agent())
    agent_site.provider.queue(Reply(["It is 5."], reasoning=["two and three ", "make five"]))
    async with open_chat_here(ada) as client:
        accepted = await client.chat("2 + 3?")
        end = await client.wait_end(accepted["run_id"])
        deltas = [f["metadata"]["delta"] for f in client.frames if event("reasoning.delta")(f)]
    assert "".join(deltas) == "two and three make five"
    assert end["content"] == "It is 5."
    reply = await Message.objects.aget(role="assistant")
    assert [part["type"] for part in reply.parts] == ["reasoning", "text"]
