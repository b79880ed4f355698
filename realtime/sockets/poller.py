"""Finds what the channel layer has lost, for all sockets of a process; pings; ends sign-ins."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from conversations.people import sign_ins
from conversations.people.sign_ins import SignIn
from conversations.runs import catch_up as catch_up_module
from conversations.runs import lifecycle
from conversations.runs.catch_up import Heads
from realtime import dbpool, protocol
from realtime.channel_layer import Hub
from realtime.conf import get_conf
from realtime.protocol import PongMetadata, ServerPing
from realtime.sockets.reader import Outbox
from realtime.sockets.viewer import Viewer, viewed_for
from realtime.tasks import Supervisor, describe

logger = logging.getLogger(__name__)

IN_FLIGHT_S = 0.25
"""Seconds that frames may take on the layer: those in flight when heads are read need not be read
again.
"""

BEAT_S = 1.0
"""Seconds between two looks for sockets whose ping is due."""

PATIENCE_S = 0.25
"""Seconds to wait for one socket's repair before the next begins; most take a few milliseconds."""


@dataclass(eq=False, slots=True)
class Socket:
    """One connection that the poller watches, with the sign-in that it was opened with.

    A chat over REST is one too. `repair` is its latest repair, which may have ended; None before
    the first.
    """

    viewer: Viewer
    outbox: Outbox
    sign_in: SignIn
    repair: asyncio.Task[None] | None = None


class Poller:
    """At intervals, compares all sockets of the process with the database, and pings them.

    It also closes those whose sign-in has ended. Each check reads the database once for all
    sockets. Pings have a timer of their own, which looks only at sockets that are due.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        # With the monotonic time of the next ping; the socket that is due first comes first.
        self._sockets: OrderedDict[Socket, float] = OrderedDict()
        self._repairs = Supervisor()

    @contextmanager
    def watch(self, socket: Socket) -> Iterator[None]:
        """Include a socket in each `poll`, `ping` and `each` while the context is open."""
        self._sockets[socket] = time.monotonic() + get_conf().heartbeat_s
        try:
            yield
        finally:
            self._sockets.pop(socket, None)

    @property
    def count(self) -> int:
        """The number of watched sockets."""
        return len(self._sockets)

    def each(self, act: Callable[[Socket], object]) -> None:
        """Call `act` with every watched socket; an exception of `act` ends the loop."""
        for socket in list(self._sockets):
            act(socket)

    async def run(self) -> None:
        """Wait for `head_interval_s` seconds and call `poll`, again and again, until cancelled.

        Errors of `poll` are only logged. At the end repairs that still run are cancelled.
        """
        try:
            while True:
                await asyncio.sleep(get_conf().head_interval_s)
                await self._try_to_poll()
        finally:
            await self._repairs.stop()

    async def beat(self) -> None:
        """Call `ping` every `BEAT_S` seconds until cancelled."""
        while True:
            await asyncio.sleep(BEAT_S)
            self.ping(time.monotonic())

    def ping(self, now: float) -> None:
        """Ping each watched socket that is due at `now`, by the monotonic clock.

        A socket is due `heartbeat_s` after it was opened or last pinged. The cost depends only on
        the number of sockets that are due.
        """
        text = ""
        while self._sockets:
            socket, due = next(iter(self._sockets.items()))
            if due > now:
                return
            self._sockets[socket] = now + get_conf().heartbeat_s
            self._sockets.move_to_end(socket)
            text = text or ServerPing(metadata=PongMetadata(server_time=time.time())).encode()
            socket.outbox.put(text)

    async def _try_to_poll(self) -> None:
        try:
            await self.poll()
        except Exception as exc:
            logger.error("poll failed: %s", describe(exc))

    async def poll(self) -> None:
        """Close sockets of ended sign-ins, repair those behind, mark sessions viewed, rejoin.

        In this order, for all watched sockets; without any it does nothing. A slow repair goes on
        after this returns. Sessions are marked if they have an open run. Raises database errors,
        which skip the rest.
        """
        sockets = list(self._sockets)
        if not sockets:
            return
        await self._close_ended(sockets)
        await self._compare(sockets)
        await self._mark_viewed(sockets)
        await self._hub.rejoin()

    async def _close_ended(self, sockets: list[Socket]) -> None:
        given = {socket.sign_in for socket in sockets}
        ended = await dbpool.read_soon(sign_ins.list_ended_sign_ins, given)
        for socket in sockets if ended else ():
            if socket.sign_in in ended:
                socket.outbox.finish(protocol.CLOSE_SIGN_IN_ENDED)

    async def catch_up(self, seconds: float) -> None:
        """Put what sockets have missed into their outboxes, for at most `seconds`; raises nothing.

        Returns early when all repairs have ended; does not wait until frames are sent. Call it
        before closing the sockets: frames still on the layer would come too late.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._compare(list(self._sockets))
                await self._repairs.settled()
        except TimeoutError:
            logger.info("catch-up before closing timed out: some sockets are behind")
        except Exception as exc:
            logger.error("catch-up before closing failed: %s", describe(exc))

    async def _compare(self, sockets: list[Socket]) -> None:
        sessions: set[UUID] = set().union(*(socket.viewer.sessions for socket in sockets))
        runs = {pk for socket in sockets for pk in socket.viewer.open_runs}
        heads = await dbpool.read_soon(catch_up_module.read_heads, sessions, runs)
        await asyncio.sleep(IN_FLIGHT_S)
        for socket in sockets:
            # Skip a socket whose repair still runs, for example at a locked row.
            is_free = socket.repair is None or socket.repair.done()
            if is_free and socket.viewer.is_behind(heads):
                await self._repair(socket, heads)

    async def _repair(self, socket: Socket, heads: Heads) -> None:
        """Repair one socket after another, but go on without waiting for a slow one."""
        socket.repair = self._repairs.start(socket.viewer.on_heads(heads), "catch-up")
        await asyncio.wait([socket.repair], timeout=PATIENCE_S)

    async def _mark_viewed(self, sockets: list[Socket]) -> None:
        """Mark watched sessions with an open run as viewed: no other runs could be cancelled."""
        viewers = [socket.viewer for socket in sockets if socket.viewer.watches]
        watched = {pk for viewer in viewers for pk in viewer.working_sessions}
        if watched:
            await dbpool.write_soon(lifecycle.mark_viewed, list(watched), viewed_for())
