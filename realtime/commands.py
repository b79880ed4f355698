"""Chats, from a reader to the database: the same over a socket and over REST."""

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from conversations.actions import NewChat, Posted
from conversations.errors import AgentSiteError, ErrorCode
from realtime import registry

if TYPE_CHECKING:
    from realtime.process import Process
    from realtime.viewer import Viewer

T = TypeVar("T")


class InFlight:
    """Work for people that runs to its end, also when whoever asked for it is gone.

    A drain waits for it: what it commits may have to be released.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """The result of `work`, which goes on when the caller is cancelled."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Whoever should have raised it may be gone; then nobody else looks at it.
            task.exception()

    async def settled(self) -> None:
        """Wait for what is in flight now, not for what begins meanwhile."""
        if self._tasks:
            await asyncio.wait(list(self._tasks))


async def chat(process: "Process", viewer: "Viewer", new: NewChat) -> Posted:
    """Store a chat, and have its reader follow it; raises `AgentSiteError`.

    The run that it makes reaches the executor by its commit alone, whatever becomes of the reader.
    """
    if new.agent is not None and new.agent not in registry.agent_names():
        raise AgentSiteError(ErrorCode.UNKNOWN_AGENT)
    posting = viewer.chat(new, process.executor.offer_claim)
    return await process.chats.run(posting, "chat")
