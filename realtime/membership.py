"""The groups of the channel layer that one socket is in."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from realtime.conf import get_conf

logger = logging.getLogger(__name__)


class Membership:
    """Joins and leaves; where the layer has refused, a reader lives on heads until `rejoin`."""

    def __init__(self, layer: Any, channel: str) -> None:
        self._layer = layer
        self._channel = channel
        self._groups: set[str] = set()
        self._missing: set[str] = set()
        self._has_left = False
        self._one_by_one = asyncio.Lock()

    async def join(self, group: str) -> None:
        async with self._one_by_one:
            if self._has_left:
                return
            self._groups.add(group)
            if not await self._try(self._layer.group_add, group):
                self._missing.add(group)

    async def rejoin(self) -> bool:
        """Join what the layer has refused; False as soon as it refuses again."""
        if not self._missing:
            return True
        async with self._one_by_one:
            for group in list(self._missing):
                if not await self._try(self._layer.group_add, group):
                    return False
                self._missing.discard(group)
        return True

    async def leave(self, group: str) -> None:
        async with self._one_by_one:
            self._groups.discard(group)
            self._missing.discard(group)
            await self._try(self._layer.group_discard, group)

    async def leave_all(self) -> None:
        """For good: a chat that is still being stored joins nothing after this."""
        self._has_left = True
        for group in list(self._groups):
            await self.leave(group)

    async def _try(self, call: Callable[[str, str], Awaitable[None]], group: str) -> bool:
        try:
            async with asyncio.timeout(get_conf().layer_timeout_s):
                await call(group, self._channel)
        except Exception as exc:
            logger.warning("channel layer: group call failed: %s", type(exc).__name__)
            return False
        return True
