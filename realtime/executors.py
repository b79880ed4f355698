"""Where runs are worked on: `inline`, supervised tasks of the web process."""

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.conf import settings

from conversations import lifecycle
from conversations.changes import RunLostError
from conversations.lifecycle import Claim, Claimed
from realtime import dbpool, registry
from realtime.conf import get_conf
from realtime.flusher import Flusher
from realtime.gate import Gate
from realtime.supervisor import Supervisor
from realtime.tracebacks import describe
from realtime.upkeep import Upkeep

if TYPE_CHECKING:
    from realtime.runs import RunWork

logger = logging.getLogger(__name__)


class InlineExecutor:
    """The runs of one event loop; the database decides who may work on which."""

    def __init__(self, flusher: Flusher, gate: Gate) -> None:
        # Imported with the first run: the Agents SDK takes more than a second.
        from realtime.providers import Provider
        from realtime.tool_servers import ToolServers

        self.worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"[:100]
        self._flusher = flusher
        self._gate = gate
        self._provider = Provider(gate)
        self._tool_servers = ToolServers()
        self._upkeep = Upkeep(self._provider)
        self._tasks = Supervisor()
        self._working: dict[UUID, RunWork] = {}
        self._known: set[UUID] = set()
        self._wanted: set[UUID] = set()
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def working(self) -> frozenset[UUID]:
        """The runs under way here."""
        return frozenset(self._working)

    def make_claim(self) -> Claim | None:
        """What a chat needs to give its run to this worker; None when that takes no more."""
        if self._draining:
            return None
        return Claim(
            worker=self.worker,
            lease=timedelta(seconds=get_conf().lease_s),
            agent=registry.default_agent(),
            model=settings.AGENT_MODEL,
            agents=self._gate.admitted,
        )

    def start(self, run_id: UUID) -> None:
        """Claim a queued run and work on it, unless somebody else does.

        One that is only now suspended here, and answered already, is begun again after that.
        """
        if self._draining:
            return
        if run_id in self._known:
            self._wanted.add(run_id)
        else:
            self._begin(run_id, self._claim_and_run(run_id))

    def work_on(self, claimed: Claimed) -> None:
        """Work on a run that this worker has claimed."""
        self._begin(claimed.run.pk, self._run(claimed))

    def _begin(self, run_id: UUID, work: Coroutine[Any, Any, UUID | None]) -> None:
        self._known.add(run_id)
        self._idle.clear()
        self._tasks.start(self._work(run_id, work), f"run {run_id}")

    def cancel(self, run_id: UUID) -> None:
        """Stop a run at once if it is worked on here; elsewhere the worker's poll sees it."""
        if work := self._working.get(run_id):
            work.journal.cancelled.set()

    def interrupt(self, session_id: UUID) -> None:
        """The same for whatever is worked on in a session."""
        for work in self._working.values():
            if work.claimed.run.session_id == session_id:
                work.journal.cancelled.set()

    async def _work(self, run_id: UUID, work: Coroutine[Any, Any, UUID | None]) -> None:
        try:
            following = await work
        finally:
            self._known.discard(run_id)
            self._working.pop(run_id, None)
            if run_id in self._wanted:
                self._wanted.remove(run_id)
                self.start(run_id)
            if not self._known:
                self._idle.set()
        if following is not None:
            self.start(following)

    async def _claim_and_run(self, run_id: UUID) -> UUID | None:
        if (claim := self.make_claim()) is None:
            return None
        claimed = await dbpool.write(lifecycle.claim_run, run_id, claim)
        return await self._run(claimed) if claimed is not None else None

    async def _run(self, claimed: Claimed) -> UUID | None:
        from realtime.runs import RunWork

        run_id = claimed.run.pk
        work = self._working[run_id] = RunWork(
            claimed, self._flusher, self._provider, self._tool_servers
        )
        try:
            following = await work.run()
        except RunLostError:
            logger.warning("run %s: lost to another worker", run_id)
            return None
        if not self._draining:
            self._upkeep.follow(claimed.run, work.context_share)
        return following

    async def settled(self) -> None:
        """Wait until nothing is worked on, nor done after it."""
        await self._idle.wait()
        await self._upkeep.settled()

    async def drain(self, seconds: float) -> None:
        """Begin nothing new, let what works go on for so long, then give the rest up."""
        self._draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            logger.warning("%d replies are cut off", len(self._working))
        cut = list(self._known)
        await self._upkeep.stop()
        await self._tasks.stop()
        for run_id in cut:
            await self._give_up(run_id)

    async def _give_up(self, run_id: UUID) -> None:
        """Let others have it; what cannot be written now a sweeper finds by its lease."""
        try:
            await dbpool.write(
                lifecycle.recover_run,
                run_id,
                max_attempts=get_conf().max_attempts,
                worker=self.worker,
            )
        except Exception as exc:
            logger.error("run %s: not given up: %s", run_id, describe(exc))

    async def close(self) -> None:
        """Close the connections to the model and to tool servers; drain first."""
        await self._upkeep.stop()
        await self._tasks.stop()
        await self._tool_servers.close()
        await self._provider.close()
