"""Tools of a run: tool servers, hooks around each call, and outputs as text."""

import asyncio
import copy
import dataclasses
import json
import logging
import math
import re
import time
import weakref
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from agents import (
    Agent,
    AgentHooks,
    FunctionTool,
    Handoff,
    ModelResponse,
    RunContextWrapper,
    RunHooks,
    Tool,
    ToolErrorFormatterArgs,
    TResponseInputItem,
)
from agents.lifecycle import AgentHooksBase
from agents.mcp import MCPServer, MCPServerManager, MCPToolCustomDataContext
from agents.tool import default_tool_timeout_error_message
from agents.tool_context import ToolContext
from openai.types.responses import ResponseFunctionToolCall
from pydantic import BaseModel

from conversations.errors import AgentSiteError, ErrorCode
from conversations.runs.inputs import Item, Spent, Step
from conversations.runs.usage import TOKEN_COLUMNS, count_tokens
from conversations.text import clean_id, clean_text, shorten
from realtime.conf import get_conf
from realtime.providers.provider import Budget
from realtime.registry import name_model
from realtime.tasks import describe
from realtime.telemetry.tracing import NO_TRACE, NoTrace
from realtime.work.journal import Journal
from realtime.work.metering import UsageMeter
from realtime.work.run_context import RunContext

if TYPE_CHECKING:
    from realtime.work.sdk import StepItems

NAMES = {"image": "picture", "audio": "audio", "video": "video", "file": "file"}
RESOURCES = ("audio", "image", "resource", "resource_link")
"""Types that MCP servers return beside text; the SDK gives some as JSON within a text."""

_DATA_URL = re.compile(r"data:(\w*)[\w/.+;=-]*;base64,[A-Za-z0-9+/=_-]*")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{256,}={0,2}")


def describe_output(result: object) -> str:
    """Return a tool's output as text, without an object's `repr` and without encoded data.

    "" for None. A string and text parts stay text, in which encoded data becomes `[data]` or its
    kind; pictures, files and links are named in brackets. Any other value is JSON, in which an
    object is its fields (a pydantic model or dataclass), else its own `__str__`, else the name of
    its type in brackets.
    """
    if isinstance(result, str):
        return _without_data(result)
    if isinstance(result, list | tuple) and result and all(map(_is_part, result)):
        return "\n".join(map(describe_output, result))
    if _is_part(result):
        return _describe_part(_fields(result))
    if result is None:
        return ""
    try:
        text = json.dumps(result, ensure_ascii=False, default=_plain, skipkeys=True)
    except ValueError:
        # A circular reference.
        return f"[{type(result).__name__}]"
    return _without_data(text)


def _fields(value: object) -> Mapping[str, Any]:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return value if isinstance(value, Mapping) else {}


def _is_part(value: object) -> bool:
    kind = _fields(value).get("type")
    return isinstance(kind, str) and _kind_of(kind) in ("text", *NAMES, *RESOURCES)


def _kind_of(kind: str) -> str:
    return kind.removeprefix("input_").removeprefix("output_")


def _describe_part(part: Mapping[str, Any]) -> str:
    kind = _kind_of(part["type"])
    if kind == "text":
        return _describe_text(str(part.get("text") or ""))
    if kind == "resource":
        held = part.get("resource")
        held = held if isinstance(held, Mapping) else {}
        return _without_data(str(held.get("text") or "")) or _named("file", held.get("uri"))
    if kind == "resource_link":
        return _named("link", part.get("title") or part.get("name") or part.get("uri"))
    return _named(NAMES[kind], part.get("filename"))


def _describe_text(text: str) -> str:
    """Describe a text that is the SDK's JSON of a resource; return any other without its data."""
    if text.startswith("{"):
        try:
            held = json.loads(text)
        except ValueError:
            held = None
        if isinstance(held, dict) and held.get("type") in RESOURCES:
            return _describe_part(held)
    return _without_data(text)


def _named(kind: str, name: object) -> str:
    return f"[{kind}: {name}]" if isinstance(name, str) and name else f"[{kind}]"


def _without_data(text: str) -> str:
    text = _DATA_URL.sub(lambda found: f"[{NAMES.get(found[1], 'data')}]", text)
    return _BASE64.sub(lambda found: "[data]" if _is_data(found[0]) else found[0], text)


def _is_data(text: str) -> bool:
    """Return whether a long word is encoded data: it has lower and upper case and digits."""
    return all(re.search(kind, text) for kind in ("[a-z]", "[A-Z]", "[0-9]"))


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return "[data]"
    # A class without a `__str__` of its own would show its `repr`.
    return f"[{type(value).__name__}]" if type(value).__str__ is object.__str__ else str(value)


logger = logging.getLogger(__name__)


def find_agent(agent: Agent[Any], name: str) -> Agent[Any] | None:
    """Return the agent called `name`: `agent` or one that it may hand over to; else None.

    Handoffs of handoffs are included, but none whose agent `handoff_target` cannot tell.
    """
    seen, found = set(), [agent]
    while found:
        at = found.pop()
        if at.name == name:
            return at
        seen.add(at.name)
        found += [
            other for other in map(handoff_target, at.handoffs) if other and other.name not in seen
        ]
    return None


def handoff_target(handoff: Agent[Any] | Handoff[Any, Any]) -> Agent[Any] | None:
    """Return the agent that a handoff leads to; None if the handoff does not say, or it is gone.

    The SDK keeps a weak reference to it in a private field of the handoffs that it makes.
    """
    if isinstance(handoff, Agent):
        return handoff
    reference = handoff._agent_ref
    return reference() if reference else None  # type: ignore[return-value]


class ToolServers:
    """Connections to tool servers (MCP), shared by all runs of one event loop."""

    def __init__(self) -> None:
        self._managers: dict[MCPServer, MCPServerManager] = {}
        self._locks: dict[MCPServer, asyncio.Lock] = {}
        self._failed_at: dict[MCPServer, float] = {}

    async def connect(self, servers: Iterable[MCPServer]) -> None:
        """Connect to each of `servers` in turn that has no working connection.

        A connection works if the server lists its tools within `tool_server_timeout_s`; one that
        caches them is not asked. Raises `AgentSiteError(tools_unavailable)` at the first server to
        which connecting fails. If an attempt of another caller has failed since this call began,
        that counts, and no own attempt is made.
        """
        asked_at = time.monotonic()
        for server in servers:
            async with self._locks.setdefault(server, asyncio.Lock()):
                if self._failed_at.get(server, -math.inf) >= asked_at:
                    raise AgentSiteError(ErrorCode.TOOLS_UNAVAILABLE)
                if not await self._answers(server):
                    await self._connect(server)

    async def _answers(self, server: MCPServer) -> bool:
        """Return whether a connection works; the SDK answers for a server that caches its tools."""
        if server not in self._managers:
            return False
        try:
            async with asyncio.timeout(get_conf().tool_server_timeout_s):
                await server.list_tools()
        except Exception as exc:
            logger.warning("tool server %s does not answer: %s", server.name, type(exc).__name__)
            return False
        return True

    async def _connect(self, server: MCPServer) -> None:
        await self._disconnect(server)
        _watch_errors(server)
        timeout = get_conf().tool_server_timeout_s
        # With `connect_in_parallel` the SDK gives the connection a task of its own; only this task
        # may close it.
        manager = self._managers[server] = MCPServerManager(
            [server],
            strict=True,
            connect_in_parallel=True,
            connect_timeout_seconds=timeout,
            cleanup_timeout_seconds=timeout,
            suppress_cancelled_error=False,
        )
        try:
            await manager.connect_all()
        except asyncio.CancelledError:
            await self._disconnect(server)
            raise
        except Exception as exc:
            await self._disconnect(server)
            self._failed_at[server] = time.monotonic()
            logger.error("tool server %s: connecting failed: %s", server.name, describe(exc))
            raise AgentSiteError(ErrorCode.TOOLS_UNAVAILABLE) from exc

    async def _disconnect(self, server: MCPServer) -> None:
        if (manager := self._managers.pop(server, None)) is not None:
            await manager.cleanup_all()

    async def close(self) -> None:
        """Close every connection; a later `connect` makes new ones."""
        for server in list(self._managers):
            await self._disconnect(server)


def _watch_errors(server: Any) -> None:
    """Show a result as failed if the server marks it as an error.

    The SDK passes this mark only to the server's extractor, which is wrapped here.
    """
    extract = getattr(server, "custom_data_extractor", None)
    if isinstance(extract, _ErrorWatch):
        return
    server.custom_data_extractor = _ErrorWatch(extract)


class _ErrorWatch:
    """Wraps the extractor that the site may have given the server."""

    def __init__(self, extract: Any) -> None:
        self._extract = extract

    def __call__(self, call: MCPToolCustomDataContext) -> Any:
        context = call.run_context
        if call.is_error and isinstance(context, ToolContext):
            context.context.reports.fail(clean_id(context.tool_call_id))
        return self._extract(call) if self._extract else None


def copy_agent(agent: Agent[Any]) -> Agent[Any]:
    """Copy an agent and all agents that it can hand over to, with their tools and input guardrails.

    All else is shared, such as models, tool servers, output guardrails and agents that are tools.
    Input guardrails of the copies run before the model: in parallel with it, text would be shown
    before they have decided.
    """
    return _Copies().agent(agent)


class _Copies:
    """Makes one copy of each agent, by the identity of the original: handoffs may be circular."""

    def __init__(self) -> None:
        self._made: dict[int, Agent[Any]] = {}

    def agent(self, original: Agent[Any]) -> Agent[Any]:
        if (known := self._made.get(id(original))) is not None:
            return known
        made = self._made[id(original)] = copy.copy(original)
        # A handoff may return an agent that is a copy already.
        self._made[id(made)] = made
        made.tools = [copy.copy(tool) for tool in original.tools]
        made.input_guardrails = [copy.copy(guardrail) for guardrail in original.input_guardrails]
        for guardrail in made.input_guardrails:
            guardrail.run_in_parallel = False
        made.handoffs = [self._handoff(handoff) for handoff in original.handoffs]
        return made

    def _handoff(self, original: Any) -> Any:
        if isinstance(original, Agent):
            return self.agent(original)
        made: Handoff[Any, Any] = copy.copy(original)

        async def invoke(context: Any, arguments: str) -> Agent[Any]:
            return self.agent(await original.on_invoke_handoff(context, arguments))

        made.on_invoke_handoff = invoke
        if (target := handoff_target(original)) is not None:
            # The SDK's reference is weak; `invoke` keeps all copies alive.
            made._agent_ref = weakref.ref(self.agent(target))
        return made


class ToolHooks(RunHooks[RunContext]):
    """Writes each tool call to the journal; no tool starts before its start is committed."""

    def __init__(
        self,
        journal: Journal,
        servers: ToolServers,
        steps: "StepItems",
        trace: NoTrace = NO_TRACE,
    ) -> None:
        self._trace = trace
        self._journal = journal
        self._servers = servers
        self._steps = steps

    async def on_agent_start(self, context: Any, agent: Any) -> None:
        """Connect the agent's tool servers; the SDK calls this before it lists their tools.

        Raises `AgentSiteError(tools_unavailable)`, as `ToolServers.connect` does.
        """
        await self._servers.connect(agent.mcp_servers)

    async def reconnect(self, agent: Agent[Any], name: str) -> None:
        """Connect the tool servers of the agent that `find_agent` finds; without one, do nothing.

        Call it before a run is resumed: the SDK does not call `on_agent_start` for that agent.
        Raises `AgentSiteError(tools_unavailable)`.
        """
        asked = find_agent(agent, name)
        if asked is not None:
            await self._servers.connect(asked.mcp_servers)

    async def on_tool_start(
        self, context: RunContextWrapper[RunContext], agent: Any, tool: Tool
    ) -> None:
        call = _call(context, tool)
        arguments = shorten(clean_text(_arguments(context)), get_conf().tool_arguments_chars)
        items = self._steps.start_tool(_raw_call(context), is_repeatable=is_repeatable(tool))
        step = self.keep(items, context)
        self._journal.append("tool.started", {**call, "arguments": arguments}, step)
        self._trace.begin_tool(call["tool_call_id"], call["name"], _arguments(context))
        with self._trace.commit():
            await self._journal.commit()
        # The commit itself may have found a request to cancel.
        if self._journal.cancelled.is_set():
            raise asyncio.CancelledError
        context.context.reports.begin(call["tool_call_id"])

    async def on_tool_end(
        self, context: RunContextWrapper[RunContext], agent: Any, tool: Tool, result: object
    ) -> None:
        call = _call(context, tool)
        end = context.context.reports.end(call["tool_call_id"])
        self._trace.end_tool(call["tool_call_id"], result, failed=end.failed)
        payload = {
            **call,
            "output": shorten(clean_text(describe_output(result)), get_conf().tool_output_chars),
            "duration_ms": round(end.seconds * 1000),
        }
        if end.summary:
            payload["summary"] = end.summary
        step = self.keep(self._steps.end_tool(_raw_call(context), result), context)
        self._journal.append("tool.failed" if end.failed else "tool.finished", payload, step)

    def keep(self, items: list[Item] | None, context: RunContextWrapper[RunContext]) -> Step | None:
        """Return the step to commit with an event, None if `items` is None.

        `WorkHooks` adds what the run has spent, which it reads from `context`; this one does not.
        """
        return None if items is None else Step(items=items)

    @staticmethod
    def note_error(args: ToolErrorFormatterArgs[RunContext]) -> None:
        """Mark a call whose tool raised as failed; return None: the model gets the SDK's text.

        For `tool_error_formatter`, which the SDK does not call for a tool with a
        `failure_error_function` of its own. Rejected calls and those of unknown tools are not
        marked here; `on_tool_end` marks calls that took too long, `_ErrorWatch` errors of MCP
        servers.
        """
        if args.kind == "tool_exception":
            args.run_context.context.reports.fail(clean_id(args.call_id))


def _call(context: RunContextWrapper[RunContext], tool: Tool) -> dict[str, Any]:
    call_id = context.tool_call_id if isinstance(context, ToolContext) else tool.name
    return {"tool_call_id": clean_id(call_id), "name": clean_id(tool.name)}


def _raw_call(context: RunContextWrapper[RunContext]) -> ResponseFunctionToolCall | None:
    return context.tool_call if isinstance(context, ToolContext) else None


def _arguments(context: RunContextWrapper[RunContext]) -> str:
    return context.tool_arguments if isinstance(context, ToolContext) else ""


class WorkHooks(ToolHooks):
    """The hooks of one run: `ToolHooks` that count usage and check the budget too.

    The budget is checked before each model call, and before a call of a tool that is an agent.
    """

    def __init__(
        self,
        journal: Journal,
        servers: ToolServers,
        steps: "StepItems",
        meter: UsageMeter,
        budget: Budget,
        trace: NoTrace = NO_TRACE,
    ) -> None:
        super().__init__(journal, servers, steps, trace)
        self._meter = meter
        self._budget = budget

    async def check_budget(self, context: RunContextWrapper[RunContext]) -> None:
        """Have `Budget.check` check the run's tokens so far.

        Raises `AgentSiteError` (limit_tokens, limit_site) if a budget is used up.
        """
        await self._budget.check(count_tokens(self._meter.spent(context.usage)))

    def keep(
        self, items: list[Item] | None, context: RunContextWrapper[RunContext], model: str = ""
    ) -> Step | None:
        """Return the step of `items` with what the run has used so far; None if `items` is None.

        `model` is the one to be asked next; "" is the last one that was asked.
        """
        if items is None:
            return None
        usage = self._meter.spent(context.usage)
        cost = self._meter.cost(usage)
        spent = {
            **{name: getattr(usage, name) for name in TOKEN_COLUMNS},
            "usage_source": usage.source.value,
            "cost": None if cost is None else str(cost),
            "model": (model or self._meter.model)[:200],
        }
        return Step(items=items, spent=cast(Spent, spent))

    async def on_llm_start(
        self,
        context: RunContextWrapper[RunContext],
        agent: Any,
        system_prompt: str | None,
        input_items: list[TResponseInputItem],
    ) -> None:
        # Check before the call is counted: one that is refused here is never sent.
        await self.check_budget(context)
        self._meter.begin_call(context.usage, name_model(agent), system_prompt, input_items)
        self._trace.begin_call(name_model(agent), agent.name, system_prompt, input_items)

    async def on_llm_end(
        self, context: RunContextWrapper[RunContext], agent: Any, response: ModelResponse
    ) -> None:
        self._meter.end_call(context.usage)
        self._steps.begin(response.to_input_items())
        self._trace.end_call(response)

    async def on_tool_start(
        self, context: RunContextWrapper[RunContext], agent: Any, tool: Tool
    ) -> None:
        if isinstance(tool, FunctionTool) and tool.timeout_seconds is None:
            # The SDK reads it after this hook. It refuses a time-out when a sync tool is made, but
            # takes this one; the thread is then abandoned. The tool is the run's own copy.
            tool.timeout_seconds = get_conf().tool_timeout_s
        if nested := _agents_behind(tool):
            await self.check_budget(context)
            for behind in filter(None, nested):
                _watch_calls(behind)
            models = frozenset(name_model(behind) if behind else "" for behind in nested)
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
    """Return whether a tool has timed out: the SDK shows it only by this text for the model."""
    if not isinstance(tool, FunctionTool) or tool.timeout_seconds is None:
        return False
    told = default_tool_timeout_error_message(
        tool_name=tool.name, timeout_seconds=tool.timeout_seconds
    )
    return result == told


def _agents_behind(tool: Any) -> list[Agent[Any] | None]:
    """Return the agent behind a tool, and all agents that it may call or hand over to.

    Empty for a tool that is no agent; None stands for an agent that the SDK does not expose.
    """
    found: dict[int, Agent[Any] | None] = {}
    agents = _agents_in([tool])
    while agents:
        agent = agents.pop()
        if id(agent) in found:
            continue
        found[id(agent)] = agent
        if agent is not None:
            agents += [*map(handoff_target, agent.handoffs), *_agents_in(agent.tools)]
    return list(found.values())


def is_repeatable(tool: Any) -> bool:
    """Return whether a call of the tool that a lost worker had begun may be made once more.

    None may that needs approval, or is no function tool for the SDK. Of the others a function's
    may, an MCP server's only if the server declares the tool read-only or idempotent, and an
    agent's only if neither it nor an agent that it may hand over to has tools or is unknown:
    tools may have finished.
    """
    if not isinstance(tool, FunctionTool) or tool.needs_approval:
        return False
    if tool._mcp_tool_binding is not None:
        hints = tool.mcp_annotations
        return bool(hints and (hints.read_only_hint or hints.idempotent_hint))
    behind = _agents_behind(tool)
    return not any(agent is None or agent.tools or agent.mcp_servers for agent in behind)


def _agents_in(tools: Iterable[Any]) -> list[Agent[Any] | None]:
    """Return the agents among the tools, from a private field of the SDK."""
    return [tool._agent_instance for tool in tools if getattr(tool, "_is_agent_tool", False)]


work_hooks: ContextVar[WorkHooks | None] = ContextVar("work_hooks", default=None)
"""The hooks of the current run; agents that are its tools run in the same context."""


def _watch_calls(agent: Agent[Any]) -> None:
    """Have the budget checked before each model call of an agent that is a tool.

    The SDK gives the hooks of a run to none of its tools. Such an agent is shared by all runs, so
    this is done once, in front of the hooks that it may have.
    """
    if not isinstance(agent.hooks, _CallWatch):
        agent.hooks = _CallWatch(agent.hooks or AgentHooks())


PASSED_ON = ("on_start", "on_end", "on_handoff", "on_tool_start", "on_tool_end", "on_llm_end")


class _CallWatch(AgentHooks[Any]):
    """Checks the budget, then calls the hooks that the site may have given the agent."""

    def __init__(self, hooks: AgentHooksBase[Any, Any]) -> None:
        self._on_llm_start = hooks.on_llm_start
        for name in PASSED_ON:
            setattr(self, name, getattr(hooks, name))

    async def on_llm_start(self, context: Any, *args: Any, **kwargs: Any) -> None:
        if (hooks := work_hooks.get()) is not None:
            await hooks.check_budget(context)
        await self._on_llm_start(context, *args, **kwargs)
