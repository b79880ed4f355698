"""What a run adds to its tools' hooks: no tool may hang, and model calls are counted."""

from typing import Any

from agents import FunctionTool, RunContextWrapper, Tool, TResponseInputItem
from agents.tool import default_tool_timeout_error_message
from agents.tool_context import ToolContext

from realtime.conf import get_conf
from realtime.journal import Journal
from realtime.run_context import RunContext
from realtime.tool_hooks import ToolHooks
from realtime.tool_servers import ToolServers
from realtime.usage import UsageMeter


class WorkHooks(ToolHooks):
    """The hooks of a run at work."""

    def __init__(self, journal: Journal, servers: ToolServers, meter: UsageMeter) -> None:
        super().__init__(journal, servers)
        self._meter = meter

    async def on_llm_start(
        self,
        context: RunContextWrapper[RunContext],
        agent: Any,
        system_prompt: str | None,
        input_items: list[TResponseInputItem],
    ) -> None:
        self._meter.begin_call(context.usage, system_prompt, input_items)

    async def on_tool_start(
        self, context: RunContextWrapper[RunContext], agent: Any, tool: Tool
    ) -> None:
        if isinstance(tool, FunctionTool) and tool.timeout_seconds is None:
            # The SDK reads it after this hook, also for a sync tool, for which it would refuse it
            # at the making: the thread is then left to itself.
            tool.timeout_seconds = get_conf().tool_timeout_s
        await super().on_tool_start(context, agent, tool)

    async def on_tool_end(
        self, context: RunContextWrapper[RunContext], agent: Any, tool: Tool, result: object
    ) -> None:
        if isinstance(context, ToolContext) and _has_timed_out(tool, result):
            context.context.reports.fail(context.tool_call_id)
        await super().on_tool_end(context, agent, tool, result)


def _has_timed_out(tool: Tool, result: object) -> bool:
    """The SDK tells nobody but the model, by this sentence."""
    if not isinstance(tool, FunctionTool) or tool.timeout_seconds is None:
        return False
    told = default_tool_timeout_error_message(
        tool_name=tool.name, timeout_seconds=tool.timeout_seconds
    )
    return result == told
