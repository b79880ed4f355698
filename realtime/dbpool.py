"""The only way from the event loop to the database: units of work in a bounded pool of threads.

A unit of work is one sync function. Each thread has a database connection of its own;
`database_sync_to_async` would run all units of a process in one thread.

On SQLite one thread does all writes of the pool. When it and a sync view of the same process both
want to write, this thread is first (`conversations.sqlite`).

Units for replies that are at work go before all others. Behind a burst of new chats their leases
would expire, and another process would take their worker for dead.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import Future
from functools import cache, partial
from typing import Any, ParamSpec, TypeVar, cast

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

_Waiting = tuple[Callable[[], Any], Future[Any]]


class _Pool:
    """At most `size` threads, each with its own database connection.

    They are daemon threads, unlike those of `ThreadPoolExecutor`: a thread that hangs in the
    database must not keep the process from ending.
    """

    def __init__(self, size: int, name: str, *, is_preferred: bool = False) -> None:
        self.size = size
        self._name = name
        self._is_preferred = is_preferred
        self._changed = threading.Condition()
        self._first: deque[_Waiting] = deque()
        self._rest: deque[_Waiting] = deque()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._is_closed = False

    async def run(self, work: Callable[[], T], *, first: bool = False) -> T:
        """Run `work` in a thread and return its result; raises `RuntimeError` after `close`.

        `work` runs to its end even if the caller is cancelled; raises what it raises. Units with
        `first` go ahead of all that wait without it, and among themselves in order.
        """
        done: Future[T] = Future()
        # Mark it as running: from here on `cancel()` has no effect on it.
        done.set_running_or_notify_cancel()
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the database pool is closed")
            (self._first if first else self._rest).append((work, done))
            if len(self._first) + len(self._rest) > self._idle and len(self._threads) < self.size:
                self._add_thread()
            self._changed.notify()
        return await asyncio.shield(asyncio.wrap_future(done))

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
            while (waiting := self._take()) is not None:
                _do(*waiting)
                # Release the unit and its arguments before waiting for the next one.
                del waiting
        finally:
            connections.close_all()

    def _take(self) -> _Waiting | None:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._first or self._rest or self._is_closed)
            self._idle -= 1
            line = self._first or self._rest
            return line.popleft() if line else None

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
    raises, and `RuntimeError` during `shutdown`. No transaction is opened.
    """
    return await _readers().run(partial(fn, *args, **kwargs))


async def read_first(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `fn` like `read`, but ahead of units that wait without `first`; for replies at work."""
    return await _readers().run(partial(fn, *args, **kwargs), first=True)


async def read_aside(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `fn` like `read`, but in one of the `ASIDE_THREADS` threads for long reading jobs.

    `fn` is to be one short step of such a job, so that several jobs take turns.
    """
    return await _aside().run(partial(fn, *args, **kwargs))


async def write(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `fn`, which writes, in a database thread, and return its result.

    On SQLite all units that write run in one thread. `fn` opens its own transactions. It runs to
    its end even if the caller is cancelled, also if it had not begun. Raises what `fn` raises, and
    `RuntimeError` during `shutdown`.
    """
    return await _writers().run(partial(fn, *args, **kwargs))


async def write_first(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `fn` like `write`, but ahead of units that wait without `first`; for replies at work."""
    return await _writers().run(partial(fn, *args, **kwargs), first=True)


class SharedReads:
    """Reads that are done once for all who ask for the same at the same time."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, asyncio.Task[Any]] = {}
        self._running: dict[Hashable, asyncio.Task[Any]] = {}

    async def read(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn` as the module's `read` does, once for all who call before that begins.

        Callers share a read if they pass the same `fn` and equal arguments, which must be hashable.
        While one runs, later callers share the next one: nobody gets what was read before they
        called. The result is shared too, as is an exception: do not modify it. The read goes on if
        a caller is cancelled.
        """
        key = fn, args, frozenset(kwargs.items())
        task = self._waiting.get(key)
        if task is None:
            work = self._read_next(key, partial(read, fn, *args, **kwargs))
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
