"""Whatever has become of a conversation's turns, its next message is taken and answered.

The stand-in has the rules of the strictest known servers together. `PYTEST_HISTORIES=500` tries as
many histories.
"""

import asyncio
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from agents import Agent, function_tool
from django.contrib.auth.models import User
from hypothesis import HealthCheck, example, given
from hypothesis import settings as tries
from hypothesis import strategies as st

from realtime.process import Process
from tests.support.agent_site import AgentSite
from tests.support.client import ChatClient
from tests.support.inprocess import open_chat_here
from tests.support.provider import Call, Gate, Reply, ToolCall
from tests.support.transcript import event_of

HISTORIES = int(os.environ.get("PYTEST_HISTORIES", "6"))
WINDOW_CHARS = 6_000
"""Of the stand-in: more is too long for it, in words that nobody knows."""


@function_tool
def quiet() -> str:
    """Says nothing."""
    return ""


@function_tool
def chatty() -> str:
    """Says a lot."""
    return "word " * 300


@function_tool
async def endless() -> str:
    """Goes on until it is stopped."""
    await asyncio.Event().wait()
    return ""


ASK_QUIET, ASK_CHATTY = ToolCall("quiet"), ToolCall("chatty")
FINE = [Reply(["Fine."])]

ENDS: dict[str, list[Reply]] = {
    "answered": FINE,
    "called": [Reply(tool_calls=[ASK_QUIET, ASK_CHATTY]), *FINE],
    "said_and_called": [Reply(["I look. "], tool_calls=[ASK_CHATTY]), *FINE],
    "called_twice": [Reply(tool_calls=[ASK_CHATTY]), Reply(tool_calls=[ASK_QUIET]), *FINE],
    "called_with_nonsense": [Reply(tool_calls=[ToolCall("quiet", "[1, 2")]), *FINE],
    "blank": [Reply([" \n"])],
    "cut_at_once": [Reply(["a ", "b "], cut_after=0)],
    "cut": [Reply(["a ", "b "], cut_after=1)],
    "ended_early": [Reply(["a ", "b "], end_after=1)],
    "failed_in_the_stream": [Reply(["a "], stream_error="no")],
    "failed": [Reply(error_status=500)],
    "refused": [Reply(error_status=400, error_message="No."), Reply(error_status=400)],
    "filtered": [Reply(["a "], finish_reason="content_filter")],
    "too_many_tokens": [Reply(["a "], finish_reason="length")],
    "called_and_failed": [Reply(tool_calls=[ASK_QUIET]), Reply(error_status=500)],
    "called_and_cut": [Reply(tool_calls=[ASK_QUIET]), Reply(["a ", "b "], cut_after=1)],
    "too_long_a_prompt": FINE,
    "stopped_before_a_word": [Reply(["a "], hold=Gate())],
    "stopped_after_a_word": [Reply(["a ", "b "], hang_after=1)],
    "stopped_in_a_tool": [Reply(tool_calls=[ASK_QUIET, ToolCall("endless")])],
    "stopped_after_a_tool": [Reply(tool_calls=[ASK_QUIET]), Reply(["a "], hold=Gate())],
}


@pytest.fixture
def site(agent_site: AgentSite, settings: Any) -> Iterator[AgentSite]:
    settings.REALTIME = {
        **settings.REALTIME,
        "provider_retries": 0,
        "frames_per_minute": 100_000,
        "flush_interval_ms": 1,
    }
    agent_site.serve(Agent(name="assistant", tools=[quiet, chatty, endless]))
    yield agent_site
    # They are part of what is tried.
    agent_site.provider.forget()


def play(call: Call) -> Reply:
    """The end that the prompt names, round after round; too much is refused."""
    size = sum(len(str(item)) for item in call.input)
    if size > WINDOW_CHARS:
        return Reply(error_status=400, error_message="Zu viel auf einmal.")
    name = re.findall(r"end=(\w+)", call.prompt)[-1]
    rounds = 0
    for item in reversed(call.input):
        if item.get("role") == "user":
            break
        rounds += item.get("role") == "tool" or item.get("type") == "function_call_output"
    made = ENDS[name]
    position = 0
    while rounds > 0 and position + 1 < len(made):
        rounds -= max(1, len(made[position].tool_calls))
        position += 1
    reply = made[position]
    reply.reasoning = ["I think. "] if reply.tokens or reply.tool_calls else []
    return reply


async def have_turn(client: ChatClient, site: AgentSite, name: str, session_id: str) -> str:
    """One message and what becomes of it; the session."""
    calls = len(site.provider.calls)
    filler = "x" * (2 * WINDOW_CHARS) if name == "too_long_a_prompt" else ""
    accepted = await client.chat(f"{filler} end={name}", session_id)
    run_id, session_id = accepted["run_id"], accepted["session_id"]
    if name.startswith("stopped"):
        if name == "stopped_in_a_tool":
            await client.wait_for(
                lambda frame: (
                    event_of(frame) == "tool.started"
                    and frame["metadata"]["run_id"] == run_id
                    and frame["metadata"]["name"] == "endless"
                )
            )
        elif name == "stopped_after_a_word":
            await client.wait_text(run_id, "a ")
        else:
            wanted = 2 if name == "stopped_after_a_tool" else 1
            answered = lambda p: sum(not c.reply.error_status for c in p.calls[calls:]) >= wanted  # noqa: E731
            await site.provider.until(answered)
        await client.cancel(session_id, run_id=run_id)
    await client.wait_end(run_id)
    return session_id


@pytest.mark.parametrize("needs_reasoning", [False, True])
@tries(
    max_examples=HISTORIES,
    suppress_health_check=list(HealthCheck),
    derandomize=HISTORIES < 20,
    database=None,
)
@given(names=st.lists(st.sampled_from(sorted(ENDS)), max_size=6))
@example(names=sorted(ENDS))
@example(names=["failed", "failed"])
@example(names=["too_long_a_prompt", "too_long_a_prompt"])
async def test_the_next_message_is_always_answered(
    needs_reasoning: bool, process: Process, site: AgentSite, ada: User, names: list[str]
) -> None:
    site.provider.forget()
    site.provider.script, site.provider.needs_reasoning = play, needs_reasoning
    async with open_chat_here(ada) as client:
        session_id = ""
        for name in names:
            session_id = await have_turn(client, site, name, session_id)
        accepted = await client.chat("end=called", session_id)
        end = await client.wait_end(accepted["run_id"])
    refused = [call.refusal for call in site.provider.calls if call.refusal]
    assert (end["type"], end["content"]) == ("complete", "Fine."), refused
    assert refused == []
