"""The SDK context that tools are given, and the progress that they report."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from agents.tool_context import ToolContext

from conversations.shapes import UserId
from conversations.text import clean_id, clean_text
from realtime.conf import get_conf
from realtime.work.journal import Journal

Payload = dict[str, Any]

TEXT_LENGTH = 200
"""Characters of a progress text or summary: each is one line on the page."""


@dataclass
class _Step:
    """A tool call at work: when it began, when it last reported, and the report that waits."""

    begun_at: float
    told_at: float = float("-inf")
    waiting: Payload | None = None
    timer: asyncio.TimerHandle | None = None
    summary: str = ""
    failed: bool = False


@dataclass(frozen=True)
class StepEnd:
    """How a tool call ended, after how many seconds; `summary` is "" if the tool gave none."""

    seconds: float
    summary: str
    failed: bool


class ProgressReports:
    """How the tool calls of one run progress and end, by call id: calls may run in parallel.

    A call's first report goes to the journal at once, later ones at most once per interval; of
    those that wait only the latest is kept, and the end of the call drops it. Reports of calls that
    have not begun or have ended are ignored: a tool's thread may run on. `report` and `summarise`
    may be called from any thread, all else on `loop`.
    """

    def __init__(self, journal: Journal, loop: asyncio.AbstractEventLoop) -> None:
        self._journal = journal
        self._loop = loop
        self._interval_s = get_conf().progress_interval_ms / 1000
        self._steps: dict[str, _Step] = {}

    def begin(self, call_id: str) -> None:
        """Note that a call starts; earlier reports of it are ignored."""
        self._steps[call_id] = _Step(time.monotonic())

    def end(self, call_id: str) -> StepEnd:
        """Note that a call has ended, and return how; a report that waits is dropped.

        A call that is not at work counts as one of 0 seconds that has not failed.
        """
        step = self._steps.pop(call_id, None) or _Step(time.monotonic())
        if step.timer is not None:
            step.timer.cancel()
        return StepEnd(time.monotonic() - step.begun_at, step.summary, step.failed)

    def end_all(self) -> None:
        """End all calls when the work on the run ends, also by suspension or loss.

        Later reports of tools that go on are ignored.
        """
        for call_id in list(self._steps):
            self.end(call_id)

    def fail(self, call_id: str) -> None:
        """Note that the call has failed; `end` then says so. Ignored for a call not at work."""
        if step := self._steps.get(call_id):
            step.failed = True

    def report(self, call_id: str, name: str, text: str, fraction: float | None) -> None:
        """Report the progress of a call of the tool `name`, from any thread.

        `text` becomes one line of at most `TEXT_LENGTH` characters. `fraction` is limited to 0 to
        1; None if it is not known. Ignored for a call not at work.
        """
        payload: Payload = {"tool_call_id": call_id, "name": name, "progress": _line(text)}
        if fraction is not None:
            payload["fraction"] = min(1.0, max(0.0, fraction))
        self._on_loop(self._report, call_id, payload)

    def summarise(self, call_id: str, text: str) -> None:
        """Set the summary that `end` returns for the call, from any thread; the latest counts.

        It becomes one line of at most `TEXT_LENGTH` characters. Ignored for a call not at work.
        """
        self._on_loop(self._summarise, call_id, _line(text))

    def _on_loop(self, work: Any, *args: Any) -> None:
        """Call `work` at once on the loop; from a thread, schedule it there, in order."""
        if _running_loop() is self._loop:
            work(*args)
        else:
            self._loop.call_soon_threadsafe(work, *args)

    def _report(self, call_id: str, payload: Payload) -> None:
        step = self._steps.get(call_id)
        if step is None:
            return
        step.waiting = payload
        due = step.told_at + self._interval_s - time.monotonic()
        if due <= 0:
            self._tell(step)
        elif step.timer is None:
            step.timer = self._loop.call_later(due, self._tell, step)

    def _tell(self, step: _Step) -> None:
        step.timer = None
        if step.waiting is not None:
            step.told_at = time.monotonic()
            self._journal.append("tool.progress", step.waiting)
            step.waiting = None

    def _summarise(self, call_id: str, text: str) -> None:
        if step := self._steps.get(call_id):
            step.summary = text


def _line(text: str) -> str:
    return " ".join(clean_text(text).split())[:TEXT_LENGTH]


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@dataclass(frozen=True)
class RunContext:
    """The SDK context of every run; a tool's first parameter is `ToolContext[RunContext]`.

    Tools call `progress` and `summarise`; `reports` is for the run itself.
    """

    user_id: UserId
    session_id: UUID
    run_id: UUID
    reports: ProgressReports

    def progress(self, tool: ToolContext[Any], text: str, fraction: float | None = None) -> None:
        """Report the progress of a tool: a short text, and a fraction from 0 to 1 if it is known.

        May be called from a sync tool, which the SDK runs in a thread. Only the first report and
        then the latest of each interval are shown; none after the tool's end.
        """
        self.reports.report(clean_id(tool.tool_call_id), clean_id(tool.tool_name), text, fraction)

    def summarise(self, tool: ToolContext[Any], text: str) -> None:
        """Say in a few words what a tool did: the page shows this in place of the tool's name.

        It does so once the call has ended without failing. May be called from a thread, and again:
        the latest text counts. Ignored after the call's end.
        """
        self.reports.summarise(clean_id(tool.tool_call_id), text)
