"""What a tool is given of the run that called it."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from agents.tool_context import ToolContext

from conversations.shapes import UserId
from conversations.text import clean_id
from realtime.progress import ProgressReports


@dataclass(frozen=True)
class RunContext:
    """The SDK context of every run; a tool's first parameter is `ToolContext[RunContext]`."""

    user_id: UserId
    session_id: UUID
    run_id: UUID
    reports: ProgressReports

    def progress(self, tool: ToolContext[Any], text: str, fraction: float | None = None) -> None:
        """Tell how far a tool is: a short text and, from 0 to 1, a fraction.

        From a sync tool too, which the SDK runs in a thread.
        """
        self.reports.report(clean_id(tool.tool_call_id), clean_id(tool.tool_name), text, fraction)

    def summarise(self, tool: ToolContext[Any], text: str) -> None:
        """Say in a few words what a tool has done: the page shows that in place of its name."""
        self.reports.summarise(clean_id(tool.tool_call_id), text)
