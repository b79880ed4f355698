"""The one bridge from the event loop to the database.

Every unit of work is one sync function, run in a thread of a bounded pool, each thread with a
connection of its own. `database_sync_to_async` would put all of a process into one thread.

On SQLite the writes of this pool go through one thread, which goes before the sync views of the
process whenever both want to write (`conversations.sqlite`).

What a reply at work needs goes before all that is new: behind a crowd that has just come, its lease
would run out, and another process would take it for dead.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache, partial
from typing import Any, ParamSpec, TypeVar

from django.db import DatabaseError, InterfaceError, connection, connections

from conversations.sqlite import prefer_this_thread
from realtime.conf import get_conf

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)

ASIDE_THREADS = 2

SHUTDOWN_S = 5.0
"""How long `shutdown` waits for units of work that are under way or in the queue."""

_Waiting = tuple[Callable[[], Any], Future[Any]]


class _Pool:
    """At most so many threads, each with its own database connection.

    They are daemon threads: one that hangs in the database must not keep the process from ending,
    as the threads of `ThreadPoolExecutor` do.
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
        """What `work` returns, once a thread has done it; raises `RuntimeError` after `close`.

        It is done also when the caller is cancelled.
        """
        done: Future[T] = Future()
        # From here on nobody can cancel it.
        done.set_running_or_notify_cancel()
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the pool is closed")
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
        """Do one unit after another, until the pool is closed and nothing waits any more."""
        if self._is_preferred:
            prefer_this_thread()
        try:
            while (waiting := self._take()) is not None:
                _do(*waiting)
                # Not kept until the next one comes.
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
        """Finish what has been handed in, at most until `deadline`; how many threads hang then."""
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
    """One unit on this thread's connection; a pooled or broken connection is given back."""
    try:
        return work()
    except (DatabaseError, InterfaceError):
        connections.close_all()
        raise
    finally:
        if connection.vendor != "sqlite":
            connections.close_all()


async def read(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a unit of work that only reads."""
    return await _readers().run(partial(fn, *args, **kwargs))


async def read_first(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`read` for a reply that this process works on."""
    return await _readers().run(partial(fn, *args, **kwargs), first=True)


async def read_aside(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """A piece of what takes long in all: it never stands before what people wait for.

    In few threads, since each connection keeps pages and statements of its own.
    """
    return await _aside().run(partial(fn, *args, **kwargs))


async def write(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a unit of work that writes.

    It runs to its end when the caller is cancelled: a commit is never left in the middle.
    """
    return await _writers().run(partial(fn, *args, **kwargs))


async def write_first(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`write` for a reply that this process works on."""
    return await _writers().run(partial(fn, *args, **kwargs), first=True)


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
    """Finish what is under way and close every thread's connection; the next use starts anew.

    Threads that hang in the database for longer than `seconds` are left to themselves.
    """
    deadline = time.monotonic() + seconds
    used = {_readers(), _writers(), *([_aside()] if _aside.cache_info().currsize else [])}
    hanging = sum(pool.close(deadline) for pool in used)
    for made in (_readers, _writers, _aside):
        made.cache_clear()
    if hanging:
        logger.error("%d threads hang in the database and are left behind", hanging)
