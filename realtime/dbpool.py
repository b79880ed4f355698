"""The only way from the event loop to the database: units of work in a bounded pool of threads.

A unit of work is one sync function. Each thread has a database connection of its own;
`database_sync_to_async` would run all units of a process in one thread.

On SQLite one thread does all writes of the pool. When it and a sync view of the same process both
want to write, this thread is first (`conversations.sqlite`).

Units wait in the order of their `Rank`: behind a burst of new chats the leases of replies at work
would expire, and another process would take their worker for dead. Lower ranks never have all
threads, also because each thread that runs Python takes time from the event loop.
"""

import asyncio
import logging
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Hashable
from concurrent.futures import Future
from enum import IntEnum
from functools import cache, partial
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, cast

from django.db import DatabaseError, InterfaceError, connection, connections

from conversations.sqlite.base import prefer_this_thread
from realtime.conf import get_conf

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)

# Few, since each database connection keeps pages and statements of its own.
ASIDE_THREADS = 2

SHUTDOWN_S = 5.0
"""Seconds that `shutdown` waits for units that run or wait."""


class Rank(IntEnum):
    """The order in which work is done that waits at the same time: lower numbers first."""

    REPLY = 0
    """What a reply at work needs: its commits, its lease, its model calls and tools."""

    SOON = 1
    """What people wait for in front of a reply, and runs whose chats are accepted: cancels,
    answers, catch-ups, sign-ins of sockets, claims."""

    CHAT = 2
    """New chats. Their users take turns."""

    REST = 3
    """Lists, history, and work in the background."""


class Entry(NamedTuple, Generic[T]):
    """What waits in a `FairQueue`; entries with the same `turn`, such as a user, take one turn."""

    item: T
    rank: Rank
    turn: Hashable = None


class FairQueue(Generic[T]):
    """A queue in the order of ranks; within a rank turns alternate, and each has its own order."""

    def __init__(self) -> None:
        self._lines: dict[Rank, OrderedDict[Hashable, deque[Entry[T]]]] = {
            rank: OrderedDict() for rank in Rank
        }
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, entry: Entry[T]) -> None:
        """Add an entry; if others of its turn wait, it comes after them."""
        self._lines[entry.rank].setdefault(entry.turn, deque()).append(entry)
        self._count += 1

    def take(
        self, may_go: Callable[[Rank], bool] | None = None, held: Collection[Hashable] = ()
    ) -> Entry[T] | None:
        """Remove and return the first entry whose rank `may_go`; None if there is none.

        Entries of the turns in `held` stay. `may_go` is asked once for each rank that waits.
        """
        for rank, line in self._lines.items():
            if not line or (may_go is not None and not may_go(rank)):
                continue
            for turn in line:
                if turn not in held:
                    return self._take_from(line, turn)
        return None

    def _take_from(self, line: OrderedDict[Hashable, deque[Entry[T]]], turn: Hashable) -> Entry[T]:
        entry = line[turn].popleft()
        if line[turn]:
            line.move_to_end(turn)
        else:
            del line[turn]
        self._count -= 1
        return entry


_Unit = tuple[Callable[[], Any], Future[Any]]


class _Pool:
    """At most `size` threads, each with its own database connection.

    Units that are not of replies at work never have more than half of the threads, and new chats
    and what ranks below them a quarter, or two. A user's chats are stored one by one: those of one
    user that wait for a locked row do not take both threads.

    They are daemon threads, unlike those of `ThreadPoolExecutor`: a thread that hangs in the
    database must not keep the process from ending.
    """

    def __init__(self, size: int, name: str, *, is_preferred: bool = False) -> None:
        self.size = size
        self._name = name
        self._is_preferred = is_preferred
        self._changed = threading.Condition()
        # For units of this rank and of those below it, together.
        self._limits = {Rank.SOON: max(1, size // 2), Rank.CHAT: max(2, size // 4)}
        self._waiting: FairQueue[_Unit] = FairQueue()
        self._running: Counter[Rank] = Counter()
        self._turns: set[Hashable] = set()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._is_closed = False

    async def run(self, work: Callable[[], T], rank: Rank, turn: Hashable = None) -> T:
        """Run `work` in a thread and return its result; raises `RuntimeError` after `close`.

        `work` runs to its end even if the caller is cancelled; raises what it raises. Units with
        the same `turn` run one after the other, unless it is None.
        """
        done: Future[T] = Future()
        # Mark it as running: from here on `cancel()` has no effect on it.
        done.set_running_or_notify_cancel()
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the database pool is closed")
            self._waiting.put(Entry((work, done), rank, turn))
            if self._may_run(rank) and turn not in self._turns:
                if len(self._waiting) > self._idle and len(self._threads) < self.size:
                    self._add_thread()
                self._changed.notify()
        return await asyncio.shield(asyncio.wrap_future(done))

    def _may_run(self, rank: Rank) -> bool:
        """Return whether one more unit of this rank may run now; hold `_changed`."""
        return all(
            rank < limited or self._count_from(limited) < limit
            for limited, limit in self._limits.items()
        )

    def _count_from(self, rank: Rank) -> int:
        return sum(count for other, count in self._running.items() if other >= rank)

    def _add_thread(self) -> None:
        name = f"{self._name}_{len(self._threads)}"
        thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        """Do one unit after another until the pool is closed and no unit waits."""
        if self._is_preferred:
            prefer_this_thread()
        try:
            while (entry := self._take()) is not None:
                _do(*entry.item)
                self._leave(entry)
                # Release the unit and its arguments before waiting for the next one.
                del entry
        finally:
            connections.close_all()

    def _take(self) -> Entry[_Unit] | None:
        """Wait for a unit that may run, and take it; None if the pool is closed and none may.

        What still waits then waits for a unit that runs, whose thread takes it next.
        """
        with self._changed:
            self._idle += 1
            while (entry := self._next()) is None and not self._is_closed:
                self._changed.wait()
            self._idle -= 1
            if entry is not None:
                self._running[entry.rank] += 1
                if entry.turn is not None:
                    self._turns.add(entry.turn)
            return entry

    def _next(self) -> Entry[_Unit] | None:
        return self._waiting.take(self._may_run, self._turns)

    def _leave(self, entry: Entry[_Unit]) -> None:
        with self._changed:
            self._running[entry.rank] -= 1
            self._turns.discard(entry.turn)
            # This thread takes one unit next; the end of this one may have freed two.
            self._changed.notify()

    def close(self, deadline: float) -> int:
        """Accept no more units, and wait for accepted ones until `deadline` (monotonic clock).

        Blocks. Returns how many threads still run then.
        """
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return sum(thread.is_alive() for thread in self._threads)


def _do(work: Callable[[], Any], done: Future[Any]) -> None:
    try:
        done.set_result(_unit(work))
    except BaseException as exc:
        done.set_exception(exc)


def _unit(work: Callable[[], T]) -> T:
    """Run one unit on this thread's connection.

    The connection is closed after a database error, and on other databases than SQLite always.
    """
    try:
        return work()
    except (DatabaseError, InterfaceError):
        connections.close_all()
        raise
    finally:
        if connection.vendor != "sqlite":
            connections.close_all()


async def read(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `fn`, which only reads, in a database thread, and return its result.

    It runs to its end even if the caller is cancelled, also if it had not begun. Raises what `fn`
    raises, and `RuntimeError` during `shutdown`. No transaction is opened. Its rank is `REST`.
    """
    return await _readers().run(partial(fn, *args, **kwargs), Rank.REST)


async def read_first(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `fn` like `read`, but before all other ranks; only for replies at work."""
    return await _readers().run(partial(fn, *args, **kwargs), Rank.REPLY)


async def read_soon(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `fn` like `read`, but with the rank `SOON`, before new chats."""
    return await _readers().run(partial(fn, *args, **kwargs), Rank.SOON)


async def read_aside(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `fn` like `read`, but in one of the `ASIDE_THREADS` threads for long reading jobs.

    `fn` is to be one short step of such a job, so that several jobs take turns.
    """
    return await _aside().run(partial(fn, *args, **kwargs), Rank.REPLY)


async def write(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `fn`, which writes, in a database thread, and return its result.

    On SQLite all units that write run in one thread. `fn` opens its own transactions. It runs to
    its end even if the caller is cancelled, also if it had not begun. Raises what `fn` raises, and
    `RuntimeError` during `shutdown`. Its rank is `REST`.
    """
    return await _writers().run(partial(fn, *args, **kwargs), Rank.REST)


async def write_first(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `fn` like `write`, but before all other ranks; only for replies at work."""
    return await _writers().run(partial(fn, *args, **kwargs), Rank.REPLY)


async def write_soon(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `fn` like `write`, but with the rank `SOON`, before new chats."""
    return await _writers().run(partial(fn, *args, **kwargs), Rank.SOON)


async def write_chat(user_id: Hashable, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `fn` like `write`, but with the rank `CHAT`: a new chat, in its user's turn.

    A user's chats run one after the other.
    """
    return await _writers().run(partial(fn, *args, **kwargs), Rank.CHAT, ("user", user_id))


class SharedReads:
    """Reads that are done once for all who ask for the same at the same time."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, asyncio.Task[Any]] = {}
        self._running: dict[Hashable, asyncio.Task[Any]] = {}

    async def read(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn` as `read_soon` does, once for all who call before that begins.

        Callers share a read if they pass the same `fn` and equal arguments, which must be hashable.
        While one runs, later callers share the next one: nobody gets what was read before they
        called. The result is shared too, as is an exception: do not modify it. The read goes on if
        a caller is cancelled.
        """
        key = fn, args, frozenset(kwargs.items())
        task = self._waiting.get(key)
        if task is None:
            work = self._read_next(key, partial(read_soon, fn, *args, **kwargs))
            task = self._waiting[key] = asyncio.create_task(work, name="shared read")
        return cast(T, await asyncio.shield(task))

    async def _read_next(self, key: Hashable, start: Callable[[], Awaitable[T]]) -> T:
        while (before := self._running.get(key)) is not None:
            await asyncio.wait([before])
        self._running[key] = self._waiting.pop(key)
        try:
            return await start()
        finally:
            del self._running[key]


@cache
def _readers() -> _Pool:
    return _Pool(get_conf().db_threads, "db-read")


@cache
def _writers() -> _Pool:
    if connection.vendor == "sqlite":
        return _Pool(1, "db-write", is_preferred=True)
    return _readers()


@cache
def _aside() -> _Pool:
    return _Pool(ASIDE_THREADS, "db-aside")


def shutdown(seconds: float = SHUTDOWN_S) -> None:
    """Finish accepted units, and close the pools with their connections.

    Units that come meanwhile raise `RuntimeError`; those after it start new pools. Blocks for at
    most `seconds`: do not call it on the event loop. Threads that still hang in the database then
    are abandoned, which is logged.
    """
    deadline = time.monotonic() + seconds
    used = {_readers(), _writers(), *([_aside()] if _aside.cache_info().currsize else [])}
    hanging = sum(pool.close(deadline) for pool in used)
    for made in (_readers, _writers, _aside):
        made.cache_clear()
    if hanging:
        logger.error("%d database threads did not end and are abandoned", hanging)
