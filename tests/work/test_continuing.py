"""A reply whose worker is lost goes on behind the tools that had finished, by another worker."""

import asyncio
import copy
import json
import sys
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from agents import Agent, Tool, function_tool, handoff
from agents.testing import ScriptedModel, assistant_message, function_call
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.functions import Now
from mcp.types import ToolAnnotations

from conversations.models import Item, Run, RunEvent, RunState, RunStatus
from conversations.runs import lifecycle
from conversations.runs.events import fold_events
from conversations.runs.inputs import LOST_OUTPUT
from realtime.process import Process, get_process
from realtime.registry import AgentEntry
from realtime.work.tools import is_repeatable
from tests.support.agent_site import AgentSite
from tests.support.approvals import outputs, requests, respond
from tests.support.client import ChatClient, event
from tests.support.inprocess import open_chat_here
from tests.support.pauses import Pauses
from tests.support.provider import Gate, Reply, ToolCall
from tests.support.threads import in_thread
from tests.support.transcript import Transcript
from tests.support.waiting import poll

MAX_ATTEMPTS = 2

ran: list[str] = []
"""The calls of tools, in order, each as often as it was made."""


@function_tool
async def note(word: str) -> str:
    """Note a word."""
    ran.append(word)
    return f"noted {word}"


@function_tool
async def hang(word: str) -> str:
    """Note a word, and end at the second call only."""
    ran.append(word)
    if ran.count(word) == 1:
        await asyncio.Event().wait()
    return f"held {word}"


@function_tool
async def wait(word: str) -> str:
    """Note a word, and end when the test says so."""
    ran.append(word)
    await may_end.wait()
    return f"waited {word}"


may_end: asyncio.Event


@function_tool(needs_approval=True)
async def erase(word: str) -> str:
    """Erase a word; hangs at the word "long"."""
    ran.append(word)
    if word == "long":
        await asyncio.Event().wait()
    return f"erased {word}"


def call(name: str, word: str) -> ToolCall:
    return ToolCall(name, json.dumps({"word": word}))


def saying(*tokens: str, shown: int) -> Reply:
    """A reply that stands still when it has shown some tokens."""
    return Reply(tokens, gate=Gate(shown))


@pytest.fixture(autouse=True)
def quick(settings: Any) -> None:
    settings.REALTIME = {
        **settings.REALTIME,
        "beat_s": 0.05,
        "cancel_poll_s": 0.05,
        "head_interval_s": 0.3,
        "max_attempts": MAX_ATTEMPTS,
        "sweep_s": 600,
    }
    ran.clear()


@pytest.fixture
def site(agent_site: AgentSite) -> AgentSite:
    specialist = Agent[Any](name="specialist", tools=[note, hang])
    helper = Agent[Any](name="helper", model=ScriptedModel([[assistant_message("helped")]] * 9))
    calls = ("note", "a"), ("hang", "b")
    steps = [[function_call(name, {"word": word}, call_id=word)] for name, word in calls]
    busy = Agent[Any](name="busy", model=ScriptedModel(steps), tools=[note, hang])
    tools: list[Tool] = [
        *(note, hang, wait, erase),
        helper.as_tool("ask_helper", "Helps."),
        busy.as_tool("ask_busy", "Helps."),
    ]
    agent_site.serve(Agent(name="desk", tools=tools, handoffs=[specialist]))
    return agent_site


async def begin(client: ChatClient, site: AgentSite, *replies: Reply) -> str:
    """Ask for a reply of these model calls; the run's id."""
    site.provider.queue(*replies)
    accepted = await client.chat("Go")
    await client.resume(accepted["session_id"])
    return str(accepted["run_id"])


async def lose(run_id: str, *, max_attempts: int = MAX_ATTEMPTS) -> None:
    """Let the run's lease expire, and a sweeper find that."""

    def expire() -> None:
        # In one transaction: its worker, which is well, would renew the lease meanwhile.
        with transaction.atomic():
            Run.objects.filter(pk=run_id).update(lease_until=Now() - timedelta(seconds=1))
            lifecycle.recover_run(UUID(run_id), max_attempts=max_attempts)

    await in_thread(expire)


async def shown_text(client: ChatClient, run_id: str, text: str) -> None:
    await client.wait_until(lambda: client.transcript.runs[run_id].text == text)


async def status_of(client: ChatClient, run_id: str, kind: str, count: int = 1) -> None:
    """Wait for so many events of a kind."""

    def told() -> int:
        return sum(f["metadata"].get("event") == kind for f in client.frames)

    await client.wait_until(lambda: told() >= count)


async def parts_of(run_id: str) -> list[Any]:
    run = await Run.objects.select_related("reply").aget(pk=run_id)
    return [
        part["text"] if part["type"] == "text" else (part["type"], part.get("status"))
        for part in run.reply.parts
    ]


async def assert_whole(client: ChatClient, run_id: str, site: AgentSite) -> Run:
    """One end, shown as it is kept, and every call of the model was well-formed."""
    run = await Run.objects.select_related("reply").aget(pk=run_id)
    assert await RunEvent.objects.filter(run=run, kind__in=("complete", "error")).acount() == 1
    assert client.transcript.text(run_id) == run.reply.text
    assert [call.refusal for call in site.provider.calls if call.refusal] == []
    return run


async def test_in_the_text_behind_a_tool(process: Process, site: AgentSite, ada: User) -> None:
    """What the first step said stays, what was being written is written anew."""
    step = Reply(["I ", "look."], tool_calls=[call("note", "a")])
    cut = saying("It ", "was ", "so", shown=2)
    late = Transcript()
    async with open_chat_here(ada) as client, open_chat_here(ada, transcript=late) as other:
        run_id = await begin(client, site, step, cut, Reply(["All ", "is well."]))
        await shown_text(client, run_id, "I look.\n\nIt was ")
        await lose(run_id)
        end = await client.wait_end(run_id)
        await other.resume(end["session_id"], rev=0)
        run = await assert_whole(client, run_id, site)
        await other.wait_until(lambda: str(run.reply_id) in late.messages)
        assert late.shown(end["session_id"])[str(run.reply_id)] == run.reply.text
    assert end["content"] == "I look.\n\nAll is well."
    assert ran == ["a"]
    assert outputs(site.provider) == ["noted a"]
    assert (run.status, run.epoch, run.claim) == (RunStatus.COMPLETED, 2, 3)
    assert await parts_of(run_id) == ["I look.", ("tool", "finished"), "All is well."]
    assert not client.transcript.told("run.reset"), "nothing that stays is taken away"


async def test_later_turns_are_given_the_whole_reply(
    process: Process, site: AgentSite, ada: User
) -> None:
    step = Reply(["I look."], tool_calls=[call("note", "a")])
    async with open_chat_here(ada) as client:
        run_id = await begin(client, site, step, saying("x", "y", shown=1), Reply(["Well."]))
        await shown_text(client, run_id, "I look.\n\nx")
        await lose(run_id)
        end = await client.wait_end(run_id)
        again = await client.chat("And?", end["session_id"])
        await client.wait_end(again["run_id"])
    items = [i.payload async for i in Item.objects.filter(run_id=run_id).order_by("position")]
    assert [item.get("type", item.get("content")) for item in items] == [
        *("I look.", "function_call", "function_call_output", "Well."),
    ]
    assert outputs(site.provider) == ["noted a"]
    assert [call.refusal for call in site.provider.calls if call.refusal] == []


async def test_when_the_output_is_committed(process: Process, site: AgentSite, ada: User) -> None:
    """The model has not begun to answer."""
    step = Reply(tool_calls=[call("note", "a")])
    async with open_chat_here(ada) as client:
        run_id = await begin(client, site, step, Reply(["x"], hold=Gate()), Reply(["Well."]))
        await status_of(client, run_id, "tool.finished")
        await lose(run_id)
        end = await client.wait_end(run_id)
        await assert_whole(client, run_id, site)
    assert (end["content"], ran) == ("Well.", ["a"])
    assert outputs(site.provider) == ["noted a"]


async def test_in_a_tool(process: Process, site: AgentSite, ada: User) -> None:
    """It is not called again by itself: the model is told, and decides."""
    step, again = Reply(["Hm."], tool_calls=[call("hang", "a")]), [call("hang", "a")]
    async with open_chat_here(ada) as client:
        run_id = await begin(client, site, step, Reply(tool_calls=again), Reply(["Well."]))
        await status_of(client, run_id, "tool.started")
        await lose(run_id)
        await client.wait_end(run_id)
        await assert_whole(client, run_id, site)
    assert await parts_of(run_id) == ["Hm.", ("tool", "failed"), ("tool", "finished"), "Well."]
    assert ran == ["a", "a"]
    assert outputs(site.provider) == [LOST_OUTPUT, "held a"]


async def test_an_output_that_was_not_committed_in_time_counts_for_nothing(
    process: Process, site: AgentSite, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is paused when its tool has ended, and wakes when another one has gone on."""
    global may_end
    may_end, pauses = asyncio.Event(), Pauses(monkeypatch)
    step = Reply(["Hm."], tool_calls=[call("wait", "a")])
    async with open_chat_here(ada) as client:
        run_id = await begin(client, site, step, Reply(["x"], hold=Gate()), Reply(["Well."]))
        await status_of(client, run_id, "tool.started")
        with pauses.armed("before commit_batches"):
            may_end.set()
            await pauses.reached.wait()
            await site.provider.until(lambda provider: len(provider.calls) == 2)
            await lose(run_id)
        end = await client.wait_end(run_id)
        await assert_whole(client, run_id, site)
    assert (end["content"], ran) == ("Hm.\n\nWell.", ["a"])
    assert await parts_of(run_id) == ["Hm.", ("tool", "failed"), "Well."]
    assert outputs(site.provider) == [LOST_OUTPUT]


async def test_one_of_two_parallel_tools_has_finished(
    process: Process, site: AgentSite, ada: User
) -> None:
    step = Reply(["Both."], tool_calls=[call("hang", "b"), call("note", "a")])
    async with open_chat_here(ada) as client:
        run_id = await begin(client, site, step, Reply(["Well."]))
        await status_of(client, run_id, "tool.finished")
        await lose(run_id)
        end = await client.wait_end(run_id)
        await assert_whole(client, run_id, site)
    assert end["content"] == "Both.\n\nWell."
    assert sorted(ran) == ["a", "b"]
    assert sorted(outputs(site.provider)) == [LOST_OUTPUT, "noted a"]


async def test_behind_a_handoff(process: Process, site: AgentSite, ada: User) -> None:
    """The agent that has taken over goes on."""
    step = Reply(["I pass on."], tool_calls=[ToolCall("transfer_to_specialist")])
    replies = [saying("x", "y", shown=1), Reply(tool_calls=[call("note", "a")]), Reply(["Well."])]
    async with open_chat_here(ada) as client:
        run_id = await begin(client, site, step, *replies)
        await shown_text(client, run_id, "I pass on.\n\nx")
        await lose(run_id)
        end = await client.wait_end(run_id)
        await assert_whole(client, run_id, site)
    assert end["content"] == "I pass on.\n\nWell."
    assert ran == ["a"]
    assert await parts_of(run_id) == [
        *("I pass on.", ("agent", None), ("tool", "finished"), "Well."),
    ]
    assert outputs(site.provider) == ['{"assistant": "specialist"}', "noted a"]


async def test_behind_a_handoff_that_filters(
    process: Process, agent_site: AgentSite, ada: User
) -> None:
    """What the other agent was given is not kept: the reply ends, for its user to continue."""
    specialist = Agent[Any](name="specialist")
    filtered = handoff(specialist, input_filter=lambda data: data)
    agent_site.serve(Agent(name="desk", handoffs=[filtered]))
    step = Reply(["I pass on."], tool_calls=[ToolCall("transfer_to_specialist")])
    async with open_chat_here(ada) as client:
        run_id = await begin(client, agent_site, step, saying("x", "y", shown=1))
        await shown_text(client, run_id, "I pass on.\n\nx")
        await lose(run_id)
        end = await client.wait_end(run_id)
    assert (end["content"], end["metadata"]["reason"]) == ("I pass on.\n\nx", "worker_lost")


async def test_behind_an_agent_that_is_a_tool(process: Process, site: AgentSite, ada: User) -> None:
    step = Reply(tool_calls=[ToolCall("ask_helper", '{"input": "?"}')])
    async with open_chat_here(ada) as client:
        run_id = await begin(client, site, step, saying("x", "y", shown=1), Reply(["Well."]))
        await shown_text(client, run_id, "x")
        await lose(run_id)
        end = await client.wait_end(run_id)
        await assert_whole(client, run_id, site)
    assert end["content"] == "Well."
    assert outputs(site.provider) == ["helped"]


async def test_in_an_agent_whose_tool_has_finished(
    process: Process, site: AgentSite, ada: User
) -> None:
    """That agent would call it again: the reply ends, for its user to continue."""
    step = Reply(["Hm."], tool_calls=[ToolCall("ask_busy", '{"input": "?"}')])
    async with open_chat_here(ada) as client:
        run_id = await begin(client, site, step)
        await in_thread(poll, lambda: ran == ["a", "b"], "its second tool")
        await lose(run_id)
        end = await client.wait_end(run_id)
        await assert_whole(client, run_id, site)
    assert (end["content"], end["metadata"]["reason"]) == ("Hm.", "worker_lost")
    assert ran == ["a", "b"]


async def test_behind_an_approved_tool(process: Process, site: AgentSite, ada: User) -> None:
    """The request and its answer stay; the state from which the run was resumed does not."""
    step = Reply(["May I?"], tool_calls=[call("note", "a"), call("erase", "b"), call("erase", "c")])
    async with open_chat_here(ada) as client:
        run_id = await begin(client, site, step)
        await client.wait_until(lambda: len(requests(client, run_id)) == 2)
        asked = {json.loads(r["arguments"])["word"]: r for r in requests(client, run_id)}
        site.provider.queue(saying("x", "y", shown=1), Reply(["Well."]))
        session = {"session_id": client.frames[-1]["session_id"]}
        await respond(client, session, asked["c"]["request_id"], "reject")
        await respond(client, session, asked["b"]["request_id"], "approve")
        await shown_text(client, run_id, "May I?\n\nx")
        await lose(run_id)
        await client.wait_end(run_id)
        run = await assert_whole(client, run_id, site)
    assert ran == ["a", "b"]
    assert run.reply.text == "May I?\n\nWell."
    assert [part["type"] for part in run.reply.parts] == [
        *("text", "tool", "approval", "approval", "tool", "text"),
    ]
    said = [i["content"] for i in site.provider.calls[-1].input if i.get("role") == "assistant"]
    assert [text for text in said if text] == ["May I?"]
    assert sorted(outputs(site.provider)) == [
        *("The user did not allow this call.", "erased b", "noted a"),
    ]
    assert not await RunState.objects.aexists()


async def test_in_a_tool_that_needs_approval(process: Process, site: AgentSite, ada: User) -> None:
    """It may have done its work, and what it does matters."""
    step = Reply(["May I?"], tool_calls=[call("note", "a"), call("erase", "long")])
    async with open_chat_here(ada) as client:
        run_id = await begin(client, site, step)
        await client.wait_until(lambda: requests(client, run_id))
        [asked] = requests(client, run_id)
        session = {"session_id": client.frames[-1]["session_id"]}
        await respond(client, session, asked["request_id"], "approve")
        await status_of(client, run_id, "tool.started", 2)
        await lose(run_id)
        end = await client.wait_end(run_id)
        await assert_whole(client, run_id, site)
    assert (end["content"], end["metadata"]["finish_reason"]) == ("May I?", "interrupted")
    assert ran == ["a", "long"]


async def test_a_run_that_loses_each_worker_ends(
    process: Process, site: AgentSite, ada: User
) -> None:
    step = Reply(["I look."], tool_calls=[call("note", "a")])
    cuts = [saying(word, "y", shown=1) for word in ("one", "two")]
    async with open_chat_here(ada) as client:
        run_id = await begin(client, site, step, *cuts)
        for word in ("one", "two"):
            await shown_text(client, run_id, f"I look.\n\n{word}")
            await lose(run_id)
        end = await client.wait_end(run_id)
        run = await assert_whole(client, run_id, site)
    assert (run.status, run.epoch) == (RunStatus.INTERRUPTED, MAX_ATTEMPTS)
    assert end["content"] == "I look.\n\ntwo"
    assert ran == ["a"]


async def test_steps_of_both_workers_count(
    process: Process, site: AgentSite, ada: User, settings: Any
) -> None:
    """A third one goes on behind what the first and the second have done; all usage is kept."""
    settings.MODEL_PRICES = {"stand-in": {"input": "1", "output": "1"}}
    first = [Reply(["One."], tool_calls=[call("note", "a")]), saying("x", "y", shown=1)]
    second = [Reply(["Two."], tool_calls=[call("note", "b")]), saying("x", "y", shown=1)]
    async with open_chat_here(ada) as client:
        run_id = await begin(client, site, *first, *second, Reply(["Three."]))
        for text in ("One.\n\nx", "One.\n\nTwo.\n\nx"):
            await shown_text(client, run_id, text)
            await lose(run_id, max_attempts=9)
        end = await client.wait_end(run_id)
        run = await assert_whole(client, run_id, site)
    assert end["content"] == "One.\n\nTwo.\n\nThree."
    assert (ran, run.epoch) == (["a", "b"], 3)
    # Three calls have reported 10 each; those of the lost workers are estimated.
    assert run.input_tokens is not None
    assert run.input_tokens > 30
    assert run.usage_source == "estimated"
    assert run.cost is not None
    assert run.counted_tokens == run.input_tokens + (run.output_tokens or 0)
    assert await RunEvent.objects.filter(run=run, step__isnull=False).aexists()
    await in_thread(fold_events, timedelta(0))
    assert not await RunEvent.objects.filter(step__isnull=False).aexists()


async def test_an_agent_may_not_want_it(
    process: Process, site: AgentSite, ada: User, settings: Any
) -> None:
    module: Any = sys.modules[settings.AGENTS]
    module.AGENTS = [AgentEntry(module.AGENTS[0].agent, continues=False)]
    step = Reply(["I look."], tool_calls=[call("note", "a")])
    async with open_chat_here(ada) as client:
        run_id = await begin(client, site, step, saying("x", "y", shown=1))
        await shown_text(client, run_id, "I look.\n\nx")
        await lose(run_id)
        end = await client.wait_end(run_id)
    assert (end["content"], end["metadata"]["reason"]) == ("I look.\n\nx", "worker_lost")


async def test_a_process_that_is_stopped_hands_it_over(site: AgentSite, ada: User) -> None:
    """However often: a deploy of many processes is not the run's fault."""
    step = Reply(["I look."], tool_calls=[call("note", "a")])
    transcript, session_id = Transcript(), ""
    cuts = [saying(word, "y", shown=1) for word in ("one", "two", "three")]
    site.provider.queue(step, *cuts, Reply(["Well."]))
    for word in ("one", "two", "three"):
        process = get_process()
        async with open_chat_here(ada, transcript=transcript) as client:
            if not session_id:
                accepted = await client.chat("Go")
                session_id, run_id = accepted["session_id"], accepted["run_id"]
            await client.resume(session_id)
            await process.executor.pick_up(timedelta(0))  # type: ignore[attr-defined]
            await shown_text(client, run_id, f"I look.\n\n{word}")
        await process.drain(0)
        await process.stop()
        assert (await Run.objects.aget()).status == RunStatus.QUEUED
    process = get_process()
    async with open_chat_here(ada, transcript=transcript) as client:
        await client.resume(session_id)
        await process.executor.pick_up(timedelta(0))  # type: ignore[attr-defined]
        end = await client.wait_end(run_id)
    await process.drain(0)
    await process.stop()
    assert (end["content"], end["metadata"]["epoch"]) == ("I look.\n\nWell.", 4)
    assert ran == ["a"]


async def test_a_client_that_has_not_resumed_is_told_to_start_over(
    process: Process, site: AgentSite, ada: User
) -> None:
    step = Reply(["I look."], tool_calls=[call("note", "a")])
    site.provider.queue(step, saying("x", "y", shown=1), Reply(["Well."]))
    async with open_chat_here(ada) as client:
        accepted = await client.chat("Go")
        await shown_text(client, accepted["run_id"], "I look.\n\nx")
        await lose(accepted["run_id"])
        await client.wait_for(event("run.reset", run_id=accepted["run_id"]))
        end = await client.wait_end(accepted["run_id"])
    assert end["content"] == "I look.\n\nWell."


def test_which_tools_may_be_called_again() -> None:
    plain = Agent[Any](name="plain")
    equipped = Agent[Any](name="equipped", tools=[note])
    leading = Agent[Any](name="leading", handoffs=[equipped])
    assert is_repeatable(note)
    assert is_repeatable(plain.as_tool("plain", ""))
    assert not is_repeatable(erase)
    assert not is_repeatable(equipped.as_tool("equipped", ""))
    assert not is_repeatable(leading.as_tool("leading", ""))
    assert not is_repeatable(object())


@pytest.mark.parametrize(
    ("hints", "expected"),
    [
        (None, False),
        (ToolAnnotations(destructive_hint=True), False),
        (ToolAnnotations(read_only_hint=True), True),
        (ToolAnnotations(idempotent_hint=True), True),
    ],
)
def test_a_tool_of_a_server_may_be_called_again_if_that_says_so(hints: Any, expected: bool) -> None:
    tool = copy.copy(note)
    tool._mcp_tool_binding, tool._mcp_annotations = ("server", "note", None), hints
    assert is_repeatable(tool) == expected
