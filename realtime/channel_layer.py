"""The channel layer: its messages, its groups and their members, and publishing.

Message fields are JSON values, and every frame is encoded already: consumers forward it unchanged.
Group names contain only ids that the server itself has made.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypedDict
from uuid import UUID

from channels.layers import InMemoryChannelLayer, get_channel_layer
from django.conf import settings

from conversations.shapes import RunRef, UserId
from realtime.conf import get_conf

if TYPE_CHECKING:
    from redis.asyncio import Redis

CLEAN_PAUSE_S = 1.0
CAPACITY = 1_000
"""Unread messages of one socket. Further ones are dropped; the reader finds the gap and reads the
database.
"""
FOREVER_S = 10 * 365 * 86_400


class LocalLayer(InMemoryChannelLayer):
    """Channels' in-memory layer, but it drops expired messages at most once a second.

    Channels does so at each message, visiting every channel: the cost of a message would grow with
    the number of sockets. Group memberships do not expire here; by default they do after a day.
    """

    def __init__(self, **options: object) -> None:
        super().__init__(capacity=CAPACITY, group_expiry=FOREVER_S, **options)
        self._clean_at = 0.0

    def _clean_expired(self) -> None:
        now = time.monotonic()
        if now >= self._clean_at:
            self._clean_at = now + CLEAN_PAUSE_S
            super()._clean_expired()


def open_redis() -> "Redis | None":
    """Return a new client for the layer's Redis, of several hosts the first; None if it has none.

    The caller closes it.
    """
    layer = settings.CHANNEL_LAYERS.get("default", {})
    if not layer.get("BACKEND", "").startswith("channels_redis."):
        return None
    # Installed with such a layer alone.
    from channels_redis.utils import create_pool, decode_hosts
    from redis.asyncio import Redis

    hosts = decode_hosts(layer.get("CONFIG", {}).get("hosts"))
    return Redis(connection_pool=create_pool(hosts[0]))


class RunFrames(TypedDict):
    """Consecutive frames of one run's journal; `number` and `epoch` are the run's.

    `first` is the `seq` of the first frame, `chars` counts characters of answer text in all of
    them, and `ended` says that the last one is the run's terminal frame. An empty `frames` says
    that the journal has events before `first` that readers must read from the database.
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
    """The frames of one change of a session; `rev` is the session's after the change.

    `runs` has (id, number) of the runs whose replies the frames show. A reader that has resumed the
    session follows these runs from now on.
    """

    type: str
    session_id: str
    rev: int
    runs: list[tuple[str, int]]
    frames: list[str]


class Notice(TypedDict):
    """A frame about a run that is not part of its journal; `number` is the run's."""

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
    """Asks the worker of a run to stop it; sent to all worker processes."""

    type: str
    run_id: str


WORKER_GROUP = "workers"

Envelope = tuple[str, dict[str, Any]]


def session_group(session_id: UUID) -> str:
    """Return the group of the sockets that follow a session."""
    return f"session.{session_id.hex}"


def user_group(user_id: UserId) -> str:
    """Return the group of all sockets of a user."""
    return f"user.{user_id}"


def run_frames(ref: RunRef, first: int, frames: list[str], *, chars: int, ended: bool) -> Envelope:
    """Make an envelope with frames of a run, for the group of its session.

    The arguments are fields of `RunFrames`; `first` is the `seq` of the first frame.
    """
    message = RunFrames(
        type="run.frames",
        session_id=str(ref.session_id),
        run_id=str(ref.run_id),
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
    """The groups that one reader's channel is in.

    If the layer fails to add the channel to a group, the reader gets frames only through the poller
    until `rejoin` succeeds. No method raises what the layer raises.
    """

    def __init__(self, layer: Any, channel: str) -> None:
        self._layer = layer
        self._channel = channel
        self._groups: set[str] = set()
        self._missing: set[str] = set()
        self._has_left = False
        self._one_by_one = asyncio.Lock()

    async def join(self, group: str) -> None:
        """Join a group; does nothing after `leave_all`. A failure is logged, see `rejoin`."""
        # One call at a time: a join and a leave of one group must reach the layer in their order.
        async with self._one_by_one:
            if self._has_left:
                return
            self._groups.add(group)
            if not await self._try(self._layer.group_add, group):
                self._missing.add(group)

    async def rejoin(self) -> bool:
        """Retry failed joins; return False if one fails again, True if none is left."""
        if not self._missing:
            return True
        async with self._one_by_one:
            for group in list(self._missing):
                if not await self._try(self._layer.group_add, group):
                    return False
                self._missing.discard(group)
        return True

    async def leave(self, group: str) -> None:
        """Leave a group; a failure is logged."""
        async with self._one_by_one:
            self._groups.discard(group)
            self._missing.discard(group)
            await self._try(self._layer.group_discard, group)

    async def leave_all(self) -> None:
        """Leave all groups; later calls of `join` do nothing."""
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
"""Envelopes that wait for the layer at most; readers catch up on the dropped ones from the
database.
"""

SENDERS = 16
"""Groups that are sent to at the same time. A layer with one Redis connection sends one by one."""


class Publisher:
    """Sends envelopes to several groups at once, but in order within each group.

    An envelope is dropped if the layer fails to send it. If more than `MAX_WAITING` wait, the
    oldest is dropped. A reader notices the gap at the next frame, and reads the missing ones from
    the database.
    """

    def __init__(self) -> None:
        self.dropped = 0
        # A group is in `_waiting` while one of its envelopes waits or is in flight. It is in
        # `_ready`, once, while an envelope waits and none is in flight.
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
        """Queue envelopes, in this order within a group; never waits. Call it on the event loop."""
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
        """Drop the oldest envelope of all groups; it is also the first one of its own group."""
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
        """Send queued envelopes until cancelled; a failure to send is only logged."""
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
        if not self._waiting[group]:  # all were dropped meanwhile
            return
        number, message = self._waiting[group].popleft()
        del self._order[number]
        try:
            await send(self._layer, (group, message))
            self._failing = False
        except Exception as exc:
            self._report(exc)

    def _leave(self, group: str) -> None:
        """Release a group: queue it again if envelopes wait, else forget it."""
        if self._waiting[group]:
            self._ready.put_nowait(group)
            return
        del self._waiting[group]
        if not self._waiting:
            self._dropping = False
            self._idle.set()

    async def flush(self) -> None:
        """Wait until no envelope is queued or in flight, for `layer_timeout_s` at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(get_conf().layer_timeout_s):
                await self._idle.wait()

    def _report(self, exc: Exception) -> None:
        """Log the first of several failures in a row only."""
        if not self._failing:
            logger.warning("channel layer: send failed: %s", type(exc).__name__)
        self._failing = True


async def send(layer: Any, envelope: Envelope) -> None:
    """Send one envelope; raises what the layer raises, `TimeoutError` after `layer_timeout_s`."""
    async with asyncio.timeout(get_conf().layer_timeout_s):
        await layer.group_send(*envelope)
