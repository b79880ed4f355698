"""The channel layer: groups, who is in them, and what is published to them.

Everything in a message is a string or a number, and every frame is encoded already: consumers
forward it as it is. Group names are made of ids that the server itself has given out.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Any, TypedDict
from uuid import UUID

from channels.layers import InMemoryChannelLayer, get_channel_layer

from conversations.shapes import RunRef, UserId
from realtime.conf import get_conf

CLEAN_PAUSE_S = 1.0
CAPACITY = 1_000
"""Unread messages of a socket; what comes on top is dropped, and read from the database."""
FOREVER_S = 10 * 365 * 86_400


class LocalLayer(InMemoryChannelLayer):
    """Channels' in-memory layer, tidied once a second instead of at every message.

    Tidying looks at every channel there is, so that the cost of a message grew with the sockets.
    Nor does it drop a socket from its groups after a day.
    """

    def __init__(self, **options: object) -> None:
        super().__init__(capacity=CAPACITY, group_expiry=FOREVER_S, **options)
        self._clean_at = 0.0

    def _clean_expired(self) -> None:
        now = time.monotonic()
        if now >= self._clean_at:
            self._clean_at = now + CLEAN_PAUSE_S
            super()._clean_expired()


class RunFrames(TypedDict):
    """Frames of one run's journal, `first` being the seq of the first; `chars` of answer text.

    Without frames it says that there are more before `first`, to be read from the database.
    """

    type: str
    session_id: str
    run_id: str
    number: int
    epoch: int
    first: int
    chars: int
    ended: bool
    frames: list[str]


class SessionFrames(TypedDict):
    """What one change of a session shows; `rev` is the session's after it.

    `runs` are id and number of the runs whose replies it tells of: readers owe their frames.
    """

    type: str
    session_id: str
    rev: int
    runs: list[tuple[str, int]]
    frames: list[str]


class Notice(TypedDict):
    """A frame about a run that is not part of its journal."""

    type: str
    session_id: str
    run_id: str
    number: int
    frame: str


class UserFrames(TypedDict):
    """Frames for every socket of a user."""

    type: str
    frames: list[str]


class RunCancel(TypedDict):
    """To all workers: stop a run if it is yours."""

    type: str
    run_id: str


WORKER_GROUP = "workers"

Envelope = tuple[str, dict[str, Any]]


def session_group(session_id: UUID | str) -> str:
    return f"session.{UUID(str(session_id)).hex}"


def user_group(user_id: UserId) -> str:
    return f"user.{user_id}"


def run_frames(ref: RunRef, first: int, frames: list[str], *, chars: int, ended: bool) -> Envelope:
    """Frames `first`, `first + 1`, ... of a run, for the group of its session."""
    message = RunFrames(
        type="run.frames",
        session_id=ref.session_id,
        run_id=ref.run_id,
        number=ref.run_number,
        epoch=ref.epoch,
        first=first,
        chars=chars,
        ended=ended,
        frames=frames,
    )
    return session_group(ref.session_id), dict(message)


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
