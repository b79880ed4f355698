"""What a run adds to its tools' hooks: no tool may hang, and model calls are counted."""

from collections.abc import Iterable
from typing import Any

from agents import Agent, FunctionTool, ModelResponse, RunContextWrapper, Tool, TResponseInputItem
from agents.tool import default_tool_timeout_error_message
from agents.tool_context import ToolContext

from conversations.text import clean_id
from realtime.conf import get_conf
from realtime.journal import Journal
from realtime.limits import Budget
from realtime.registry import name_model
from realtime.run_context import RunContext
from realtime.tool_hooks import ToolHooks
from realtime.tool_servers import ToolServers, handoff_target
from realtime.usage import UsageMeter


class WorkHooks(ToolHooks):
    """The hooks of a run at work."""

    def __init__(
        self, journal: Journal, servers: ToolServers, meter: UsageMeter, budget: Budget
    ) -> None:
        super().__init__(journal, servers)
        self._meter = meter
        self._budget = budget

    async def on_llm_start(
        self,
        context: RunContextWrapper[RunContext],
        agent: Any,
        system_prompt: str | None,
        input_items: list[TResponseInputItem],
    ) -> None:
        # Before the meter opens the call: one that is not made takes nothing.
        await self._budget.check(self._meter.spent(context.usage))
        self._meter.begin_call(context.usage, name_model(agent), system_prompt, input_items)

    async def on_llm_end(
        self, context: RunContextWrapper[RunContext], agent: Any, response: ModelResponse
    ) -> None:
        self._meter.end_call(context.usage)

    async def on_tool_start(
        self, context: RunContextWrapper[RunContext], agent: Any, tool: Tool
    ) -> None:
        if isinstance(tool, FunctionTool) and tool.timeout_seconds is None:
            # The SDK reads it after this hook, also for a sync tool, for which it would refuse it
            # at the making: the thread is then left to itself. The tool is the run's own copy.
            tool.timeout_seconds = get_conf().tool_timeout_s
        if models := _nested_models(tool):
            await self._budget.check(self._meter.spent(context.usage))
            self._meter.begin_nested(context.usage, _call_id(context), models)
        await super().on_tool_start(context, agent, tool)

    async def on_tool_end(
        self, context: RunContextWrapper[RunContext], agent: Any, tool: Tool, result: object
    ) -> None:
        if isinstance(context, ToolContext) and _has_timed_out(tool, result):
            context.context.reports.fail(clean_id(context.tool_call_id))
        self._meter.end_nested(context.usage, _call_id(context))
        await super().on_tool_end(context, agent, tool, result)


def _call_id(context: RunContextWrapper[RunContext]) -> str:
    return context.tool_call_id if isinstance(context, ToolContext) else ""


def _has_timed_out(tool: Tool, result: object) -> bool:
    """The SDK tells nobody but the model, by this sentence."""
    if not isinstance(tool, FunctionTool) or tool.timeout_seconds is None:
        return False
    told = default_tool_timeout_error_message(
        tool_name=tool.name, timeout_seconds=tool.timeout_seconds
    )
    return result == told


def _nested_models(tool: Any) -> frozenset[str]:
    """The models that a tool may ask: those of the agent that it is, and of all behind that one.

    "" for an agent that the SDK does not show.
    """
    found: dict[int, str] = {}
    agents = _agents_in([tool])
    while agents:
        agent = agents.pop()
        if id(agent) in found:
            continue
        found[id(agent)] = name_model(agent) if agent else ""
        if agent is not None:
            agents += [*map(handoff_target, agent.handoffs), *_agents_in(agent.tools)]
    return frozenset(found.values())


def _agents_in(tools: Iterable[Any]) -> list[Agent[Any] | None]:
    """Those of the tools that are agents; the SDK keeps a private reference."""
    return [tool._agent_instance for tool in tools if getattr(tool, "_is_agent_tool", False)]
