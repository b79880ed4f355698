"""Fence, cancel check and write-ahead before every tool, in one place."""

import asyncio
from typing import Any

from agents import Agent, RunContextWrapper, RunHooks, Tool, ToolErrorFormatterArgs
from agents.tool_context import ToolContext

from conversations.text import clean_id, clean_text, shorten
from realtime.conf import get_conf
from realtime.journal import Journal
from realtime.run_context import RunContext
from realtime.tool_outputs import describe_output
from realtime.tool_servers import ToolServers, find_agent


class ToolHooks(RunHooks[RunContext]):
    """Tells the journal of every tool; no tool starts before that is committed."""

    def __init__(self, journal: Journal, servers: ToolServers) -> None:
        self._journal = journal
        self._servers = servers

    async def on_agent_start(self, context: Any, agent: Any) -> None:
        """Before the agent's tools are asked for, and again for each that takes over."""
        await self._servers.connect(agent.mcp_servers)

    async def reconnect(self, agent: Agent[Any], name: str) -> None:
        """For a run of `agent` that goes on: the one that has asked does not start again."""
        asked = find_agent(agent, name)
        if asked is not None:
            await self._servers.connect(asked.mcp_servers)

    async def on_tool_start(
        self, context: RunContextWrapper[RunContext], agent: Any, tool: Tool
    ) -> None:
        call = _call(context, tool)
        arguments = shorten(clean_text(_arguments(context)), get_conf().tool_arguments_chars)
        self._journal.append("tool.started", {**call, "arguments": arguments})
        await self._journal.commit()
        if self._journal.cancelled.is_set():
            raise asyncio.CancelledError
        context.context.reports.begin(call["tool_call_id"])

    async def on_tool_end(
        self, context: RunContextWrapper[RunContext], agent: Any, tool: Tool, result: object
    ) -> None:
        call = _call(context, tool)
        end = context.context.reports.end(call["tool_call_id"])
        payload = {
            **call,
            "output": shorten(clean_text(describe_output(result)), get_conf().tool_output_chars),
            "duration_ms": round(end.seconds * 1000),
        }
        if end.summary:
            payload["summary"] = end.summary
        self._journal.append("tool.failed" if end.failed else "tool.finished", payload)

    @staticmethod
    def note_error(args: ToolErrorFormatterArgs[RunContext]) -> None:
        """What the model is told of an error stays the SDK's; people are shown that it is one."""
        if args.kind == "tool_exception":
            args.run_context.context.reports.fail(clean_id(args.call_id))


def _call(context: RunContextWrapper[RunContext], tool: Tool) -> dict[str, Any]:
    call_id = context.tool_call_id if isinstance(context, ToolContext) else tool.name
    return {"tool_call_id": clean_id(call_id), "name": clean_id(tool.name)}


def _arguments(context: RunContextWrapper[RunContext]) -> str:
    return context.tool_arguments if isinstance(context, ToolContext) else ""
