"""A stop at every event of a reply that does all there is to do leaves a history that works."""

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conversations.models import Item, Run, RunEvent, RunStatus
from realtime.process import Process
from tests.support.approvals import erase, requests, respond, times_run
from tests.support.client import ChatClient
from tests.support.inprocess import make_user, open_chat_here
from tests.support.provider import Call, Provider, Reply, ToolCall, echo
from tests.support.provider.checks import refusal
from tests.support.threads import in_thread
from tests.support.transcript import event_of

LOOK_UP = ToolCall("look_up", '{"word": "mill"}')
OUTPUTS = ("function_call_output", "tool")
TOOLS_THAT_RETURN = 7
LEAST_EVENTS = 20
STOPS_A_SESSION = 5


@pytest.fixture(params=["chat", "responses"])
def provider(request: pytest.FixtureRequest, settings: Any, provider: Provider) -> Provider:
    settings.AGENT_API = request.param
    settings.AGENTS = "tests.support.drill_agents"
    settings.OPENAI_BASE_URL = provider.base_url
    settings.REALTIME = {
        **settings.REALTIME,
        "flush_interval_ms": 1,
        "frames_per_minute": 100_000,
        "sweep_s": 600,
    }
    return provider


def turns(path: Path) -> dict[int, Reply]:
    """What the model says, by how many outputs of tools it has been given since it was asked."""
    return {
        0: Reply(["Let me ", "look."], reasoning=["Hm."], tool_calls=[LOOK_UP]),
        1: Reply(tool_calls=[LOOK_UP, ToolCall("fail"), LOOK_UP]),
        4: Reply(["I hand over."], tool_calls=[ToolCall("transfer_to_specialist")]),
        5: Reply(["This needs you."], reasoning=["So."], tool_calls=[LOOK_UP, erase(path)]),
        7: Reply(["Almost."], tool_calls=[ToolCall("wait"), LOOK_UP]),
    }


def work(path: Path, call: Call) -> Reply:
    if call.prompt != "Work":
        return echo(call)
    asked = max(place for place, item in enumerate(call.input) if item.get("role") == "user")
    given = [i for i in call.input[asked:] if i.get("type", i.get("role")) in OUTPUTS]
    return turns(path)[len(given)]


class Working:
    """A reply on its way to the tool that hangs."""

    def __init__(self, client: ChatClient, accepted: dict[str, Any]) -> None:
        self.client = client
        self.accepted = accepted
        self.run_id: str = accepted["run_id"]

    @property
    def seq(self) -> int:
        """How far it is shown."""
        run = self.client.transcript.runs.get(self.run_id)
        return run.seq if run else 0

    @property
    def hangs(self) -> bool:
        """Whether nothing more will come."""
        run = self.client.transcript.runs.get(self.run_id)
        events = run.events if run else []
        returned = [
            frame for frame in events if event_of(frame) in ("tool.finished", "tool.failed")
        ]
        waits = any(frame["content"] == "Waiting" for frame in events)
        return waits and len(returned) == TOOLS_THAT_RETURN

    async def reach(self, seq: int) -> None:
        """Wait for its event `seq` or its last one, approving what it asks before that."""
        await self._wait(lambda: self.seq >= seq or requests(self.client, self.run_id))
        if self.seq < seq:
            [asked] = requests(self.client, self.run_id)
            await respond(self.client, self.accepted, asked["request_id"], "approve")
        await self._wait(lambda: self.seq >= seq or self.hangs)

    async def _wait(self, met: Callable[[], object]) -> None:
        await self.client.wait_until(met)


@pytest.mark.timeout(300)
async def test_a_stop_at_every_event_leaves_a_history_that_works(
    provider: Provider, process: Process, transactional_db: None, tmp_path: Path
) -> None:
    path, session_id = tmp_path / "file", ""
    provider.script = partial(work, path)
    user = await in_thread(make_user, "ada")
    async with open_chat_here(user) as client:
        for seq in itertools.count(1):
            run = Working(client, await client.chat("Work", session_id))
            if not session_id:
                session_id = run.accepted["session_id"]
                await client.resume(session_id)
            await run.reach(seq)
            is_last = run.hangs
            await client.cancel(session_id, run_id=run.run_id)
            end = await client.wait_end(run.run_id)
            assert end["metadata"]["finish_reason"] == "cancelled", seq
            await assert_whole(run.run_id, seq)
            again = await client.chat("Go on", session_id)
            said = (await client.wait_end(again["run_id"]))["content"]
            # What was not answered stands before it.
            assert said in ("You said: Go on", "You said: Work\n\nGo on"), seq
            if is_last:
                break
            if not seq % STOPS_A_SESSION:
                session_id = ""
    assert seq > LEAST_EVENTS
    assert [call.refusal for call in provider.calls if call.refusal] == []
    assert times_run(path) > 0


async def assert_whole(run_id: str, seq: int) -> None:
    """One end, and items that a model's server takes."""
    run = await Run.objects.aget(pk=run_id)
    assert run.status == RunStatus.CANCELLED, seq
    ends = RunEvent.objects.filter(run=run, kind__in=("complete", "error"))
    assert await ends.acount() == 1, seq
    items = [item.payload async for item in Item.objects.filter(run=run).order_by("position")]
    said = {"role": "user", "content": "Work"}
    assert refusal("responses", {"stream": True, "input": [said, *items]}) == "", (seq, items)
