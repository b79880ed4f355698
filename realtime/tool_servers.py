"""MCP servers: connected when an agent first needs one, closed when the process stops."""

import asyncio
import logging
import math
import time
from collections.abc import Iterable
from typing import Any

from agents import Agent, Handoff
from agents.mcp import MCPServer, MCPServerManager, MCPToolCustomDataContext
from agents.tool_context import ToolContext

from conversations.errors import AgentSiteError, ErrorCode
from conversations.text import clean_id
from realtime.conf import get_conf
from realtime.tracebacks import describe

logger = logging.getLogger(__name__)


def find_agent(agent: Agent[Any], name: str) -> Agent[Any] | None:
    """The agent of that name among those that `agent` may hand over to, itself included."""
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
    """The SDK keeps a reference in a `Handoff` that it has made itself."""
    if isinstance(handoff, Agent):
        return handoff
    reference = handoff._agent_ref
    return reference() if reference else None  # type: ignore[return-value]


class ToolServers:
    """The connections of one event loop, shared by its runs; one that has died is made again."""

    def __init__(self) -> None:
        self._managers: dict[MCPServer, MCPServerManager] = {}
        self._locks: dict[MCPServer, asyncio.Lock] = {}
        self._failed_at: dict[MCPServer, float] = {}

    async def connect(self, servers: Iterable[MCPServer]) -> None:
        """Have these answer; raises `AgentSiteError(tools_unavailable)`.

        Who has waited for another's try does not try in vain again: all would, one by one.
        """
        asked_at = time.monotonic()
        for server in servers:
            async with self._locks.setdefault(server, asyncio.Lock()):
                if self._failed_at.get(server, -math.inf) >= asked_at:
                    raise AgentSiteError(ErrorCode.TOOLS_UNAVAILABLE)
                if not await self._answers(server):
                    await self._connect(server)

    async def _answers(self, server: MCPServer) -> bool:
        """Whether a connection is there and alive; a server that caches its tools is not asked."""
        if server not in self._managers:
            return False
        try:
            async with asyncio.timeout(get_conf().tool_server_timeout_s):
                await server.list_tools()
        except Exception as exc:
            logger.warning("tool server %s is gone: %s", server.name, type(exc).__name__)
            return False
        return True

    async def _connect(self, server: MCPServer) -> None:
        await self._disconnect(server)
        _watch_errors(server)
        timeout = get_conf().tool_server_timeout_s
        # "In parallel" gives the connection a task of its own, which alone may close it.
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
            logger.error("tool server %s: %s", server.name, describe(exc))
            raise AgentSiteError(ErrorCode.TOOLS_UNAVAILABLE) from exc

    async def _disconnect(self, server: MCPServer) -> None:
        if (manager := self._managers.pop(server, None)) is not None:
            await manager.cleanup_all()

    async def close(self) -> None:
        """Close every connection; whoever still needs one gets another."""
        for server in list(self._managers):
            await self._disconnect(server)


def _watch_errors(server: Any) -> None:
    """Have what the server marks as an error shown as one; the SDK tells its extractor alone."""
    extract = getattr(server, "custom_data_extractor", None)
    if isinstance(extract, _ErrorWatch):
        return
    server.custom_data_extractor = _ErrorWatch(extract)


class _ErrorWatch:
    """Stands before the extractor that the site may have given the server."""

    def __init__(self, extract: Any) -> None:
        self._extract = extract

    def __call__(self, call: MCPToolCustomDataContext) -> Any:
        context = call.run_context
        if call.is_error and isinstance(context, ToolContext):
            context.context.reports.fail(clean_id(context.tool_call_id))
        return self._extract(call) if self._extract else None
