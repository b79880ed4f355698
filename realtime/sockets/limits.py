"""How many sockets may be open, how fast they are opened, and how many frames they may send."""

import asyncio
import logging
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from conversations.people.accounts import hash_token
from realtime.channel_layer import close_redis
from realtime.conf import get_conf
from realtime.tasks import loop_timeout

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger(__name__)

SOCKETS_AT_FULL_RATE = 10
"""How many times the limit of one socket all sockets of a user in a process may send together."""

USERS_KEPT = 1_000
"""Limits of users that are kept at least; above that, unused ones are dropped."""


class FrameLimit:
    """A limit on frames, as a token bucket: `per_minute` at once, refilled evenly in a minute.

    `excess` counts refusals in a row.
    """

    def __init__(self, per_minute: int) -> None:
        self._capacity = float(per_minute)
        self._left = float(per_minute)
        self._at = time.monotonic()
        self.excess = 0

    def take(self, of_user: "FrameLimit | None" = None) -> bool:
        """Count one frame, against `of_user` too; return False if either limit has no room for it.

        A refused frame counts against neither, but raises `excess`; also that of `of_user`, if that
        is the limit without room. `of_user` is not asked if this limit has no room.
        """
        self._refill()
        if self._left < 1 or (of_user is not None and not of_user.take()):
            self.excess += 1
            return False
        self._left -= 1
        self.excess = 0
        return True

    def _refill(self) -> None:
        now = time.monotonic()
        self._left = min(self._capacity, self._left + (now - self._at) * self._capacity / 60)
        self._at = now

    @property
    def is_full(self) -> bool:
        """Whether all of the limit is free again: a new one would differ only in `excess`."""
        self._refill()
        return self._left >= self._capacity

    @property
    def retry_after(self) -> float:
        """Seconds until this limit has room for a frame, counted from the latest `take`.

        0.0 if it had room after it. Read it directly after a refusal.
        """
        return max(0.0, (1 - self._left) * 60 / self._capacity)


class UserFrames:
    """The limit on the frames of each user, which all sockets of the user in this process share.

    A new socket does not start with a new limit.
    """

    def __init__(self) -> None:
        self._limits: dict[Hashable, FrameLimit] = {}
        self._tidy_at = USERS_KEPT

    def of(self, user_id: Hashable) -> FrameLimit:
        """Return the limit of one user: `SOCKETS_AT_FULL_RATE` times that of one socket.

        It is made at the first call. Call this for each frame and do not keep the result: a limit
        that is full again may be dropped and replaced.
        """
        limit = self._limits.get(user_id)
        if limit is None:
            if len(self._limits) >= self._tidy_at:
                self._tidy()
            per_minute = SOCKETS_AT_FULL_RATE * get_conf().frames_per_minute
            limit = self._limits[user_id] = FrameLimit(per_minute)
        return limit

    def _tidy(self) -> None:
        self._limits = {pk: limit for pk, limit in self._limits.items() if not limit.is_full}
        self._tidy_at = max(USERS_KEPT, 2 * len(self._limits))


HANDSHAKE_PAUSE_S = 0.005
"""Seconds between two handshakes at least: of many clients that return together, each costs some
milliseconds, which replies at work need too.
"""


class Handshakes:
    """Lets sockets be opened one after the other, at a pace that leaves time to replies.

    Addresses take turns, since nobody has signed in yet: one that opens sockets without end keeps
    no other out. The pause between two handshakes is a timer of the event loop: while the loop is
    busy it is longer.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[asyncio.Future[bool]]] = OrderedDict()
        self._waiting = 0
        self._is_pausing = False

    async def enter(self, address: str) -> bool:
        """Wait for the turn of a handshake from `address`; return whether it may go on.

        It may not if more than `handshakes_waiting` wait: then one of the address with the most of
        them is refused.
        """
        if not self._is_pausing:
            self._pause()
            return True
        if self._waiting >= get_conf().handshakes_waiting and not self._make_room(address):
            return False
        called: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(address, deque()).append(called)
        self._waiting += 1
        try:
            return await called
        except asyncio.CancelledError:
            if called in self._lines.get(address, ()):
                self._lines[address].remove(called)
                self._left(address)
            raise

    def _make_room(self, address: str) -> bool:
        """Refuse the newest handshake of the address with the most, unless that is `address`."""
        greedy = max(self._lines, key=lambda other: len(self._lines[other]), default=address)
        if len(self._lines.get(greedy, ())) <= len(self._lines.get(address, ())):
            return False
        self._lines[greedy].pop().set_result(False)
        self._left(greedy)
        return True

    def _left(self, address: str) -> None:
        """Note that one handshake of an address waits no more."""
        self._waiting -= 1
        if not self._lines[address]:
            del self._lines[address]

    def _pause(self) -> None:
        self._is_pausing = True
        asyncio.get_running_loop().call_later(HANDSHAKE_PAUSE_S, self._call_next)

    def _call_next(self) -> None:
        self._is_pausing = False
        if not self._lines:
            return
        address, line = next(iter(self._lines.items()))
        called = line.popleft()
        self._lines.move_to_end(address)
        self._left(address)
        if not called.done():  # else its task is being cancelled
            called.set_result(True)
        self._pause()


PREFIX = "agentsite:sockets"
REDIS_TIMEOUT_S = 1.0
"""Seconds that a handshake waits for Redis; then only this process's own sockets count."""

REWRITE_S = 3_600.0
KEPT_S = 3 * 3_600
"""Seconds after which Redis drops a hash of counts that no process has written meanwhile."""

TAKE = """
local me = ARGV[1]
for i, key in ipairs(KEYS) do
    local sum = tonumber(ARGV[2 * i + 1])
    local counts = redis.call("HGETALL", key)
    for j = 1, #counts, 2 do
        if counts[j] ~= me then
            if redis.call("EXISTS", counts[j]) == 1 then
                sum = sum + tonumber(counts[j + 1])
            else
                redis.call("HDEL", key, counts[j])
            end
        end
    end
    if sum > tonumber(ARGV[2 * i + 2]) then
        return 0
    end
end
for i, key in ipairs(KEYS) do
    redis.call("HSET", key, me, ARGV[2 * i + 1])
    redis.call("EXPIRE", key, ARGV[2])
end
return 1
"""
"""Writes this process's own counts, unless one exceeds its limit together with other processes.

A hash for each user and address has the count of each process, by the key that the process keeps
alive. The counts of a process whose key has expired are removed.
"""


class Places:
    """Counts the open sockets of each user and address; a new socket never displaces another.

    Counts those of all processes that share `redis`, and of this one alone while Redis is away. The
    truth about each process is in its memory; Redis has copies, which `run` corrects.
    """

    def __init__(self, redis: "Redis | None" = None) -> None:
        self._taken: Counter[Hashable] = Counter()
        self._redis = redis
        self._script: Any = redis.register_script(TAKE) if redis is not None else None
        self._me = f"{PREFIX}:process:{uuid4().hex}"
        # One request at a time: of sockets that connect at the same time, the first ones stay.
        self._in_order = asyncio.Lock()
        self._is_joined = False
        self._changed: set[Hashable] = set()
        self._has_changed = asyncio.Event()
        self._beat_at = self._rewrite_at = 0.0

    def __bool__(self) -> bool:
        """Return whether any place is taken in this process."""
        return bool(self._taken)

    async def take(self, limits: Mapping[Hashable, int]) -> Callable[[], None] | None:
        """Take a place under each key, unless one has as many taken as its limit in `limits`.

        Returns a function that gives the places back, to be called once; None if nothing was taken.
        Waits at most `REDIS_TIMEOUT_S` for Redis; if it does not answer, only this process counts.
        """
        if any(self._taken[key] >= limit for key, limit in limits.items()):
            return None
        self._taken.update(limits.keys())
        give_back = partial(self._give_back, list(limits))
        try:
            is_free = await self._ask_others(limits)
        except BaseException:
            give_back()
            raise
        if not is_free:
            give_back()
            return None
        return give_back

    def _give_back(self, keys: list[Hashable]) -> None:
        self._taken.subtract(keys)
        for key in keys:
            if not self._taken[key]:
                del self._taken[key]
        self._note(keys)

    def _note(self, keys: Iterable[Hashable]) -> None:
        """Let `run` write the counts of these keys, as they are at that time."""
        if self._redis is not None:
            self._changed.update(keys)
            self._has_changed.set()

    async def _ask_others(self, limits: Mapping[Hashable, int]) -> bool:
        """Write the new counts to Redis; return False if they exceed a limit with other processes.

        While Redis is away, return True: only this process counts then.
        """
        counts = {key: self._taken[key] for key in limits}
        if not self._is_joined:
            self._note(limits)
            return True
        args = [number for key, limit in limits.items() for number in (counts[key], limit)]
        try:
            async with loop_timeout(REDIS_TIMEOUT_S), self._in_order:
                taken = await self._script([*map(_name, limits)], [self._me, KEPT_S, *args])
        except Exception as exc:
            self._lose(exc)
            self._note(limits)
            return True
        self._note(key for key, count in counts.items() if self._taken[key] != count)
        return bool(taken)

    async def run(self) -> None:
        """Keep the counts of this process in Redis correct and alive, until cancelled.

        Then other processes no longer count them, and the Redis client is closed. Returns at once
        if there is no Redis.
        """
        if self._redis is None:
            return
        try:
            while True:
                await self._keep_up(self._redis)
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, self._beat_at - time.monotonic())):
                        await self._has_changed.wait()
        finally:
            with suppress(Exception):
                async with asyncio.timeout(REDIS_TIMEOUT_S):
                    await self._redis.delete(self._me)
            with suppress(Exception):
                await close_redis(self._redis)

    async def _keep_up(self, redis: "Redis") -> None:
        self._has_changed.clear()
        changed: set[Hashable] = set()
        try:
            async with loop_timeout(REDIS_TIMEOUT_S), self._in_order:
                if time.monotonic() >= self._beat_at:
                    await self._beat(redis)
                if self._is_joined:
                    changed, self._changed = self._changed, set()
                    await self._write(redis, changed)
        except Exception as exc:
            self._changed |= changed
            self._lose(exc)

    async def _beat(self, redis: "Redis") -> None:
        """Renew this process's key; if it had expired, or Redis may lack counts, write them all."""
        now, lease_ms = time.monotonic(), round(get_conf().lease_s * 1_000)
        self._beat_at = now + get_conf().beat_s
        is_alive = await redis.set(self._me, 1, px=lease_ms, xx=True)
        if not is_alive or not self._is_joined or now >= self._rewrite_at:
            await self._write(redis, self._taken)
            await redis.set(self._me, 1, px=lease_ms)
            self._rewrite_at, self._is_joined = now + REWRITE_S, True

    async def _write(self, redis: "Redis", keys: Iterable[Hashable]) -> None:
        pipeline = redis.pipeline(transaction=False)
        for key in keys:
            if count := self._taken.get(key, 0):
                pipeline.hset(_name(key), self._me, str(count))
                pipeline.expire(_name(key), KEPT_S)
            else:
                pipeline.hdel(_name(key), self._me)
        await pipeline.execute()

    def _lose(self, exc: Exception) -> None:
        """Count in this process alone until the next `_beat` that succeeds."""
        if self._is_joined:
            logger.warning("sockets are counted in this process alone: %s", type(exc).__name__)
        self._is_joined = False


def _name(key: Hashable) -> str:
    """Return the key in Redis, hashed so that it shows no address."""
    return f"{PREFIX}:{hash_token(str(key))}"
