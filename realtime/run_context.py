"""What a tool is given of the run that called it."""

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from agents.tool_context import ToolContext

from conversations.text import clean_text
from realtime.journal import Journal

PROGRESS_LENGTH = 200


@dataclass(frozen=True)
class RunContext:
    """The SDK context of every run; a tool's first parameter is `ToolContext[RunContext]`."""

    user_id: int
    session_id: UUID
    run_id: UUID
    journal: Journal
    loop: asyncio.AbstractEventLoop

    def progress(self, tool: ToolContext[Any], text: str, fraction: float | None = None) -> None:
        """Tell how far a tool is: a short text and, from 0 to 1, a fraction.

        From a sync tool too, which the SDK runs in a thread.
        """
        payload: dict[str, Any] = {
            "tool_call_id": tool.tool_call_id,
            "name": tool.tool_name,
            "progress": clean_text(text)[:PROGRESS_LENGTH],
        }
        if fraction is not None:
            payload["fraction"] = min(1.0, max(0.0, fraction))
        if _running_loop() is self.loop:
            self.journal.append("tool.progress", payload)
        else:
            self.loop.call_soon_threadsafe(self.journal.append, "tool.progress", payload)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
