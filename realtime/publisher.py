"""Sends committed frames to the channel layer, in the order of their commits."""

import asyncio
import contextlib
import logging
from typing import Any

from channels.layers import get_channel_layer

from realtime.conf import get_conf
from realtime.groups import Envelope

logger = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""What waits while the layer is away is bounded; viewers catch up from the database."""


class Publisher:
    """One queue and one sender, so that nothing overtakes; what the layer refuses is dropped."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Envelope] = asyncio.Queue(MAX_WAITING)
        self._layer: Any = get_channel_layer()
        self._failing = False

    def put(self, envelopes: list[Envelope]) -> None:
        for envelope in envelopes:
            try:
                self._queue.put_nowait(envelope)
            except asyncio.QueueFull:
                return

    async def run(self) -> None:
        while True:
            envelope = await self._queue.get()
            try:
                await send(self._layer, envelope)
                self._failing = False
            except Exception as exc:
                self._report(exc)
            finally:
                self._queue.task_done()

    async def flush(self) -> None:
        """Wait until all that was put has been sent, but not for a layer that hangs."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(get_conf().layer_timeout_s):
                await self._queue.join()

    def _report(self, exc: Exception) -> None:
        """Once for each time the layer goes away, not once a frame."""
        if not self._failing:
            logger.warning("channel layer: send failed: %s", type(exc).__name__)
        self._failing = True


async def send(layer: Any, envelope: Envelope) -> None:
    """One group send, bounded in time."""
    async with asyncio.timeout(get_conf().layer_timeout_s):
        await layer.group_send(*envelope)
