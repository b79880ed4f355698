"""The channel layer: its messages, its groups and their members, and publishing.

Message fields are JSON values, and every frame is encoded already: consumers forward it unchanged.
Group names contain only ids that the server itself has made.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, cast
from uuid import UUID

from channels.layers import InMemoryChannelLayer, get_channel_layer
from django.conf import settings

from conversations.shapes import RunRef, UserId
from realtime import dbpool
from realtime.conf import get_conf
from realtime.tasks import loop_timeout
from realtime.telemetry import metrics

if TYPE_CHECKING:
    from redis.asyncio import Redis

CAPACITY = 10_000
"""Unread messages of a process. With more, the oldest is dropped; readers find the gap and read the
database.
"""

LIST_SENDS_PER_S = 1_000
"""Frames about a user's list of sessions that a process sends a second, to all sockets of the user
together: with 300 sockets three frames, so that one user costs no more than many.
"""


class LocalLayer(InMemoryChannelLayer):
    """Channels' in-memory layer, but neither messages nor group memberships expire.

    With Channels, a channel of which a message expires, as while a laptop sleeps, leaves all its
    groups; the search for such messages visits every channel at each message. Here a full channel
    loses its oldest message, where Channels drops the new one.
    """

    def __init__(self, **options: object) -> None:
        super().__init__(capacity=CAPACITY, **options)
        self.dropped = 0

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Add a message to a channel, in place of its oldest one if it is full."""
        queue = self.channels.get(channel)
        if queue is not None and queue.full():
            queue.get_nowait()
            self.dropped += 1
        await super().send(channel, message)

    def _clean_expired(self) -> None:
        return


def open_redis() -> "Redis | None":
    """Return a new client for the Redis of the default layer; None if it does not use Redis.

    Of several hosts the first is taken. The client connects at its first request. The caller closes
    it with `close_redis`.
    """
    layer = settings.CHANNEL_LAYERS.get("default", {})
    if not layer.get("BACKEND", "").startswith("channels_redis."):
        return None
    # Installed with such a layer alone.
    from channels_redis.utils import create_pool, decode_hosts
    from redis.asyncio import Redis

    hosts = decode_hosts(layer.get("CONFIG", {}).get("hosts"))
    return Redis(connection_pool=create_pool(hosts[0]))


async def close_redis(client: "Redis") -> None:
    """Close a client of `open_redis`, and its connections to Sentinels, which redis-py leaves open.

    Raises what redis-py raises.
    """
    pool = client.connection_pool
    await client.aclose(close_connection_pool=True)
    manager = getattr(pool, "sentinel_manager", None)
    for sentinel in manager.sentinels if manager else ():
        await sentinel.aclose()


class RunFrames(TypedDict):
    """Consecutive frames of one run's journal; `number` and `epoch` are the run's.

    `type` is "run.frames". `first` is the `seq` of the first frame, `chars` counts characters of
    answer text in all of them, and `ended` says that the last one is the run's terminal frame. An
    empty `frames` says that the journal has events before `first` that readers must read from the
    database; with `ended` the terminal one is among them.
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

    `type` is "session.frames". `frames` may be empty: the change only raises `rev`. `runs` has
    (id, number) of the runs whose replies the frames show. A reader that has resumed the session
    is sent these runs from now on, unless they have ended for it.
    """

    type: str
    session_id: str
    rev: int
    runs: list[tuple[str, int]]
    frames: list[str]


class Notice(TypedDict):
    """A frame about a run that is not part of its journal, for readers that are sent that run.

    `type` is "run.notice"; `number` is the run's in its session.
    """

    type: str
    session_id: str
    run_id: str
    number: int
    frame: str


class UserFrames(TypedDict):
    """Frames for every socket of a user; `type` is "user.frames".

    Each has a key, at the same place in `keys`: a later frame with the same key makes an earlier
    one needless.
    """

    type: str
    keys: list[str]
    frames: list[str]


class RunCancel(TypedDict):
    """Asks the worker of a run to stop it; sent to all worker processes. `type` is "run.cancel"."""

    type: str
    run_id: str


WORKER_GROUP = "workers"

Envelope = tuple[str, dict[str, Any]]


def session_group(session_id: UUID) -> str:
    """Return the name of the group of the readers that follow a session."""
    return f"session.{session_id.hex}"


def user_group(user_id: UserId) -> str:
    """Return the name of the group of all sockets of a user."""
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


REJOIN_PAUSE_S = 1.0


class Reader(Protocol):
    """Takes the messages of the groups that it has joined."""

    def deliver(self, message: Mapping[str, Any]) -> None:
        """Take a message; called on the event loop, so it must neither block nor raise."""


class UserFeed:
    """Sends frames to all sockets of one user, at most `LIST_SENDS_PER_S` sends a second.

    Up to one second's sends go out at once. Then frames wait, and a frame replaces a waiting one
    with the same key: the number that waits is bounded by what a user has, not by what happens.
    """

    def __init__(self, readers: set[Reader]) -> None:
        self._readers = readers
        self._waiting: dict[str, str] = {}
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def put(self, message: "UserFrames") -> None:
        """Send the message's frames, now or when it is their turn.

        A waiting frame with the same key is dropped. Call it on the event loop, and not after
        `close`.
        """
        for key, text in zip(message["keys"], message["frames"], strict=True):
            # Move it to the end: it must not overtake frames of the same session.
            self._waiting.pop(key, None)
            self._waiting[key] = text
        if self._timer is None:
            self._send()

    def _send(self) -> None:
        loop = asyncio.get_running_loop()
        now, self._timer = loop.time(), None
        while self._waiting and self._due <= now:
            text = self._waiting.pop(next(iter(self._waiting)))
            self._due = max(self._due, now - 1) + len(self._readers) / LIST_SENDS_PER_S
            for reader in list(self._readers):
                reader.deliver({"type": "user.frames", "frames": [text]})
        if self._waiting:
            self._timer = loop.call_at(self._due, self._send)

    def close(self) -> None:
        """Never send the frames that wait. May be called again."""
        if self._timer is not None:
            self._timer.cancel()


@dataclass(eq=False)
class _Group:
    """A group, and its readers in this process.

    `state` says whether the process's channel is in it, as far as that is known. Hold `lock` to
    change it.
    """

    readers: set[Reader] = field(default_factory=set)
    state: Literal["out", "in", "unsure"] = "out"
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    feed: UserFeed = field(init=False)

    def __post_init__(self) -> None:
        self.feed = UserFeed(self.readers)


class Hub:
    """Receives the layer's messages for all readers of a process, on one channel.

    The channel is in a group while one of the readers is, so a message comes in once, however many
    readers it is for. While the layer fails to add it to a group, the group's readers get frames
    only through the poller. No method raises what the layer raises.
    """

    def __init__(self, layer: Any) -> None:
        self.reads = dbpool.SharedReads()
        self._layer = layer
        self._groups: dict[str, _Group] = {}
        self._channel: str | None = None
        self._opening = asyncio.Lock()
        self._retry_at = 0.0

    async def run(self) -> None:
        """Receive messages until cancelled.

        After a failure, which is logged, it tries every `REJOIN_PAUSE_S` seconds to open a new
        channel, and adds that to all groups that have readers.
        """
        while True:
            try:
                await self._receive()
            except Exception as exc:
                logger.warning("channel layer: receiving failed: %s", type(exc).__name__)
                self._forget_channel()
            await asyncio.sleep(REJOIN_PAUSE_S)

    async def _receive(self) -> None:
        if (channel := await self._open()) is None:
            return
        await self.rejoin()
        while True:
            self._deliver(await self._layer.receive(channel))

    async def _open(self) -> str | None:
        """Return the channel; opens one if there is none. None if that fails.

        A failure holds for `REJOIN_PAUSE_S`, so that a layer that is away does not delay each join.
        """
        async with self._opening:
            if self._channel is None and time.monotonic() >= self._retry_at:
                try:
                    async with loop_timeout(get_conf().layer_timeout_s):
                        self._channel = await self._layer.new_channel()
                except Exception as exc:
                    self._retry_at = time.monotonic() + REJOIN_PAUSE_S
                    logger.warning("channel layer: no channel: %s", type(exc).__name__)
            return self._channel

    def _forget_channel(self) -> None:
        self._channel = None
        for group in self._groups.values():
            group.state = "out"

    def _deliver(self, message: dict[str, Any]) -> None:
        # A process of an earlier version does not name the group.
        group = self._groups.get(message.get("group", ""))
        if group is None:
            return
        if message["type"] == "user.frames":
            group.feed.put(cast(UserFrames, message))
            return
        for reader in list(group.readers):
            reader.deliver(message)

    async def join(self, name: str, reader: Reader) -> None:
        """Deliver the messages of a group to a reader, from this call's end at the latest.

        After a failure of the layer, which is logged and not raised, they come only when `rejoin`
        has succeeded. Joining twice has no effect.
        """
        group = self._groups.setdefault(name, _Group())
        group.readers.add(reader)
        await self._settle(name, group)

    async def leave(self, names: Iterable[str], reader: Reader) -> None:
        """Deliver no more messages of these groups to a reader, from the beginning of this call on.

        The last reader of a group in this process takes the channel out of it; a failure of the
        layer is only logged. If the caller is cancelled meanwhile, `rejoin` does the rest. Groups
        that the reader has not joined are ignored.
        """
        left = {name: group for name in names if (group := self._groups.get(name))}
        # All of them before the first await: a reader that is gone must not be kept.
        for group in left.values():
            group.readers.discard(reader)
        for name, group in left.items():
            if not group.readers:
                await self._settle(name, group)

    async def rejoin(self) -> bool:
        """Retry failed joins, and finish leaves that were cut short.

        Returns False if a join fails again, True if none is left to retry. Stops at the first
        failure, as a layer that is away refuses all. The poller calls it at each poll.
        """
        for name, group in list(self._groups.items()):
            is_settled = group.readers and group.state == "in"
            if not is_settled and not await self._settle(name, group):
                return False
        return True

    async def _settle(self, name: str, group: _Group) -> bool:
        """Add the channel to the group or remove it, as the group has readers now or has none.

        Return whether that succeeded. One call at a time for a group, as an addition and a removal
        must reach the layer in their order.
        """
        async with group.lock:
            wanted: Literal["in", "out"] = "in" if group.readers else "out"
            settled = group.state == wanted
            if not settled and (channel := await self._open()) is not None:
                # If this task is cancelled, nobody knows whether the layer has done it.
                group.state = "unsure"
                change = self._layer.group_add if group.readers else self._layer.group_discard
                settled = await self._try(change, name, channel)
                group.state = wanted if settled else "unsure"
            if not group.readers:
                group.feed.close()
                if self._groups.get(name) is group:
                    del self._groups[name]
            return settled

    async def _try(
        self, change: Callable[[str, str], Awaitable[None]], group: str, channel: str
    ) -> bool:
        try:
            async with loop_timeout(get_conf().layer_timeout_s):
                await change(group, channel)
        except Exception as exc:
            metrics.LAYER_FAILURES.inc()
            logger.warning("channel layer: group call failed: %s", type(exc).__name__)
            return False
        return True


MAX_WAITING = 10_000
"""Envelopes that wait for the layer at most; readers catch up on the dropped ones from the
database.
"""

SENDERS = 16
"""Groups that are sent to at the same time, if the layer can; channels-redis publishes one message
after the other for each of its hosts.
"""


class Publisher:
    """Sends envelopes to several groups at once, but in order within each group.

    An envelope is dropped if the layer fails to send it. If more than `MAX_WAITING` wait, the
    oldest is dropped. A reader notices the gap at the next frame, or the poller does, and the
    missing frames are read from the database. `dropped` counts only those above `MAX_WAITING`.
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
        """Queue envelopes, in this order within a group; never waits. Call it on the event loop.

        For each one above `MAX_WAITING` the oldest that waits is dropped. Nothing is sent until
        `run` is running.
        """
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
        metrics.FRAMES_DROPPED.labels("layer_behind").inc()
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
        """Wait until no envelope is queued or in flight, for `layer_timeout_s` at most.

        Raises nothing when that time is over; the envelopes stay queued.
        """
        with contextlib.suppress(TimeoutError):
            async with loop_timeout(get_conf().layer_timeout_s):
                await self._idle.wait()

    def _report(self, exc: Exception) -> None:
        """Log the first of several failures in a row only."""
        metrics.FRAMES_DROPPED.labels("layer_failed").inc()
        metrics.LAYER_FAILURES.inc()
        if not self._failing:
            logger.warning("channel layer: send failed: %s", type(exc).__name__)
        self._failing = True


async def send(layer: Any, envelope: Envelope) -> None:
    """Send one envelope; raises what the layer raises, `TimeoutError` after `layer_timeout_s`.

    The message names its group, as a process receives those of all its groups on one channel.
    """
    group, message = envelope
    async with loop_timeout(get_conf().layer_timeout_s):
        await layer.group_send(group, {**message, "group": group})
