"""Sends committed frames to the channel layer, those of one group in the order of their commits."""

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from typing import Any

from channels.layers import get_channel_layer

from realtime.conf import get_conf
from realtime.groups import Envelope

logger = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""What waits while the layer is away is bounded; viewers catch up from the database."""

SENDERS = 16
"""How many groups are sent to at once; a layer of one Redis connection sends one after another."""


class Publisher:
    """Sends to several groups at once, but never two envelopes of one group: nothing overtakes.

    What the layer refuses is dropped, and so is what has waited longest where too much waits: a
    reader notices the gap at the next frame that it gets, and reads the rest from the database.
    """

    def __init__(self) -> None:
        self.dropped = 0
        # A group is in `_waiting` while anything of it waits or is in flight, in `_ready` once
        # while something waits and nothing is in flight.
        self._waiting: dict[str, deque[tuple[int, dict[str, Any]]]] = {}
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self._order: OrderedDict[int, str] = OrderedDict()
        self._count = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._layer: Any = get_channel_layer()
        self._failing = False
        self._dropping = False

    def put(self, envelopes: list[Envelope]) -> None:
        """Send these later, in this order where the group is the same; never waits."""
        for group, message in envelopes:
            if len(self._order) >= MAX_WAITING:
                self._drop_stalest()
            if group not in self._waiting:
                self._waiting[group] = deque()
                self._ready.put_nowait(group)
            self._count += 1
            self._waiting[group].append((self._count, message))
            self._order[self._count] = group
            self._idle.clear()

    def _drop_stalest(self) -> None:
        """The oldest of all groups, which is the first of its own."""
        _, group = self._order.popitem(last=False)
        self._waiting[group].popleft()
        self.dropped += 1
        if not self._dropping:
            logger.warning(
                "channel layer is behind: %d messages wait, the oldest are dropped (%d so far)",
                *(MAX_WAITING, self.dropped),
            )
        self._dropping = True

    async def run(self) -> None:
        """Send what is put, until cancelled."""
        async with asyncio.TaskGroup() as senders:
            for _ in range(SENDERS):
                senders.create_task(self._send_groups())

    async def _send_groups(self) -> None:
        while True:
            group = await self._ready.get()
            try:
                await self._send_next(group)
            finally:
                self._leave(group)

    async def _send_next(self, group: str) -> None:
        if not self._waiting[group]:  # all was dropped
            return
        number, message = self._waiting[group].popleft()
        del self._order[number]
        try:
            await send(self._layer, (group, message))
            self._failing = False
        except Exception as exc:
            self._report(exc)

    def _leave(self, group: str) -> None:
        """What waits in the group is for the next sender that is free."""
        if self._waiting[group]:
            self._ready.put_nowait(group)
            return
        del self._waiting[group]
        if not self._waiting:
            self._dropping = False
            self._idle.set()

    async def flush(self) -> None:
        """Wait until all that was put has been sent, but not for a layer that hangs."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(get_conf().layer_timeout_s):
                await self._idle.wait()

    def _report(self, exc: Exception) -> None:
        """Once for each time the layer goes away, not once a frame."""
        if not self._failing:
            logger.warning("channel layer: send failed: %s", type(exc).__name__)
        self._failing = True


async def send(layer: Any, envelope: Envelope) -> None:
    """One group send, bounded in time."""
    async with asyncio.timeout(get_conf().layer_timeout_s):
        await layer.group_send(*envelope)
