"""What a user may ask of this site, and how many replies a process sets up at once."""

import asyncio

from conversations.limits import ChatLimits
from realtime.conf import get_conf

START_HOLD_S = 0.25
"""Setting a reply up takes some 20 ms of CPU; a place is not kept for a model that thinks."""


def chat_limits() -> ChatLimits:
    """Those of the settings, for every chat by whichever way it comes."""
    conf = get_conf()
    return ChatLimits(conf.queue_max, conf.runs_per_user, conf.tokens_per_day or None)


class StartPlace:
    """One of the places of a gate, until it is left or its time is over."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._timer = asyncio.get_running_loop().call_later(START_HOLD_S, self._release)
        self._is_held = True

    def leave(self) -> None:
        """Let the next one in; once is enough."""
        self._timer.cancel()
        self._release()

    def _release(self) -> None:
        if self._is_held:
            self._is_held = False
            self._places.release()


class StartGate:
    """Lets replies begin in the order they came, a few at a time.

    A thousand that begin together would share the CPU, and all show their first word last.
    """

    def __init__(self, places: int) -> None:
        self._places = asyncio.Semaphore(places)

    async def enter(self) -> StartPlace:
        """Wait for a place."""
        await self._places.acquire()
        return StartPlace(self._places)
