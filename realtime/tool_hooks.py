"""Fence, cancel check and write-ahead before every tool, in one place."""

import asyncio
from typing import Any

from agents import RunContextWrapper, RunHooks, Tool
from agents.tool_context import ToolContext

from conversations.text import clean_text
from realtime.journal import Journal
from realtime.run_context import RunContext

SHOWN_LENGTH = 4_000
"""Characters of a tool's arguments and output that are shown and kept for people."""


class ToolHooks(RunHooks[RunContext]):
    """Tells the journal of every tool; no tool starts before that is committed."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def on_tool_start(
        self, context: RunContextWrapper[RunContext], agent: Any, tool: Tool
    ) -> None:
        payload = {**_call(context, tool), "arguments": _shown(_arguments(context))}
        self._journal.append("tool.started", payload)
        await self._journal.commit()
        if self._journal.cancelled.is_set():
            raise asyncio.CancelledError

    async def on_tool_end(
        self, context: RunContextWrapper[RunContext], agent: Any, tool: Tool, result: object
    ) -> None:
        payload = {**_call(context, tool), "output": _shown(str(result))}
        self._journal.append("tool.finished", payload)


def _call(context: RunContextWrapper[RunContext], tool: Tool) -> dict[str, Any]:
    call_id = context.tool_call_id if isinstance(context, ToolContext) else tool.name
    return {"tool_call_id": call_id, "name": tool.name}


def _arguments(context: RunContextWrapper[RunContext]) -> str:
    return context.tool_arguments if isinstance(context, ToolContext) else ""


def _shown(text: str) -> str:
    text = clean_text(text)
    return text if len(text) <= SHOWN_LENGTH else text[: SHOWN_LENGTH - 1] + "…"
