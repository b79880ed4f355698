"""Agents for race tests: one that answers, one that never ends, one that needs approval."""

from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, function_tool
from agents.items import TResponseStreamEvent
from openai.types.responses import ResponseFunctionToolCall

from agentsite.tour import end_events, text_event
from realtime.registry import AgentEntry
from tests.support.site_agents import AGENTS as SITE_AGENTS
from tests.support.site_agents import EchoModel, message


@function_tool(needs_approval=True)
async def erase() -> str:
    """Erase something."""
    return "erased"


class AskingModel(EchoModel):
    """Calls a tool that needs approval, and says "done" once it has its output."""

    async def stream_response(
        self,
        system_instructions: str | None,
        input: Any,  # noqa: A002  (the SDK's name)
        *args: Any,
        **kwargs: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        if input[-1].get("role") == "user":
            item: Any = ResponseFunctionToolCall(
                call_id="call_erase", name="erase", arguments="{}", type="function_call"
            )
        else:
            yield text_event("msg_done", "done")
            item = message("done")
        for event in end_events(item):
            yield event


AGENTS = [
    *SITE_AGENTS,
    AgentEntry(Agent(name="asking", instructions="Ask.", model=AskingModel(), tools=[erase])),
]
