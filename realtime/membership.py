"""The groups of the channel layer that one socket is in."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from realtime.conf import get_conf

logger = logging.getLogger(__name__)


class Membership:
    """Joins and leaves; without the layer a reader lives on heads, until it connects again."""

    def __init__(self, layer: Any, channel: str) -> None:
        self._layer = layer
        self._channel = channel
        self._groups: set[str] = set()
        self._has_left = False

    async def join(self, group: str) -> None:
        if self._has_left:
            return
        self._groups.add(group)
        await self._try(self._layer.group_add, group)

    async def leave(self, group: str) -> None:
        self._groups.discard(group)
        await self._try(self._layer.group_discard, group)

    async def leave_all(self) -> None:
        """For good: what its reader still does joins nothing any more."""
        self._has_left = True
        for group in list(self._groups):
            await self.leave(group)

    async def _try(self, call: Callable[[str, str], Awaitable[None]], group: str) -> None:
        try:
            async with asyncio.timeout(get_conf().layer_timeout_s):
                await call(group, self._channel)
        except Exception as exc:
            logger.warning("channel layer: group call failed: %s", type(exc).__name__)
