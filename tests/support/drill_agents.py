"""An agent on the model of the settings, with tools that end when the test says so."""

import asyncio
from pathlib import Path

from agents import Agent, function_tool
from agents.tool_context import ToolContext

from realtime.registry import AgentEntry, irreversible
from realtime.work.run_context import RunContext


@function_tool
async def look_up(context: ToolContext[RunContext], word: str) -> str:
    """Say what is known about a word."""
    context.context.progress(context, f"Looking for {word}", 0.5)
    return f"“{word}” was found."


@function_tool
async def wait(context: ToolContext[RunContext]) -> str:
    """Wait until cancelled."""
    context.context.progress(context, "Waiting")
    await asyncio.Event().wait()
    return ""


@function_tool
def read_file(path: str) -> str:
    """Read a file, blocking a thread; a FIFO makes it wait for whoever writes."""
    return Path(path).read_text()


@function_tool
def fail() -> str:
    """Raise."""
    raise RuntimeError("as it should")


@irreversible
@function_tool(needs_approval=True)
def erase(path: str) -> str:
    """Erase a file.

    For tests, a line is added to it instead.
    """
    with Path(path).open("a") as file:
        file.write("erased\n")
    return f"Erased {path}."


@function_tool
def append(path: str) -> str:
    """Add a line to a file."""
    with Path(path).open("a") as file:
        file.write("appended\n")
    return f"Added a line to {path}."


TOOLS = [look_up, wait, read_file, fail, erase, append]


specialist = Agent[RunContext](name="specialist", instructions="Answer.", tools=[*TOOLS])
assistant = Agent[RunContext](
    name="assistant", instructions="Answer.", tools=[*TOOLS], handoffs=[specialist]
)
AGENTS = [AgentEntry(assistant)]
