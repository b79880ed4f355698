"""Whether the client's side of a connection takes more."""

import asyncio
from collections.abc import Callable

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer


@implementer(IPushProducer)
class Valve:
    """Registered with a transport, which closes it when its buffer is full."""

    def __init__(self, abort: Callable[[], object]) -> None:
        self._abort = abort
        self._open = asyncio.Event()
        self._open.set()

    def pauseProducing(self) -> None:  # noqa: N802  (Twisted's names)
        self._open.clear()

    def resumeProducing(self) -> None:  # noqa: N802
        self._open.set()

    def stopProducing(self) -> None:  # noqa: N802
        self._open.set()

    async def drained(self, timeout_s: float) -> None:
        """Wait until there is room.

        A client that takes nothing for so long is cut off; raises `TimeoutError`.
        """
        if self._open.is_set():
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._open.wait()
        except TimeoutError:
            self._abort()
            raise
