"""What a user may ask of this site, and how many replies a process sets up at once."""

import asyncio
import logging

from django.db import InterfaceError, OperationalError

from conversations import usage
from conversations.limits import ChatLimits, check_budget
from conversations.models import Run
from conversations.usage import count_tokens, usage_of
from realtime import dbpool
from realtime.conf import get_conf

logger = logging.getLogger(__name__)

START_HOLD_S = 0.25
"""Setting a reply up takes some 20 ms of CPU; a place is not kept for a model that thinks."""


def chat_limits() -> ChatLimits:
    """Those of the settings, for every chat by whichever way it comes."""
    conf = get_conf()
    return ChatLimits(
        queue_max=conf.queue_max,
        runs=conf.runs_per_user,
        tokens_a_day=conf.tokens_per_day or None,
        guest_tokens_a_day=conf.guest_tokens_per_day or None,
        site_tokens_a_day=conf.site_tokens_per_day or None,
    )


class Budget:
    """What a run's user, and the site, may still spend; asked before each model call."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._counted = count_tokens(usage_of(run))

    async def check(self, spent: int) -> None:
        """Count that the run has taken `spent` tokens in all; raises `AgentSiteError`.

        Not while the database is away: a run goes on then for `BUFFER_S` at most.
        """
        try:
            if spent > self._counted:
                await dbpool.write_first(usage.count_spent, self._run.pk, spent)
                self._counted = spent
            await dbpool.read_first(check_budget, self._run.owner_id, chat_limits())
        except (OperationalError, InterfaceError) as exc:
            logger.warning("run %s: budget not checked: %s", self._run.pk, type(exc).__name__)


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
