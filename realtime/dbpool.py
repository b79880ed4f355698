"""The one bridge from the event loop to the database.

Every unit of work is one sync function, run in a thread of a bounded pool, each thread with a
connection of its own. `database_sync_to_async` would put all of a process into one thread.
SQLite has one writer at a time whatever we do: there, all writes of a process go through one
thread, since competing writers make each other wait for the file's lock.

What a reply at work needs goes before all that is new: behind a crowd that has just come, its lease
would run out, and another process would take it for dead.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from typing import Any, ParamSpec, TypeVar

from django.db import DatabaseError, InterfaceError, connection, connections

from realtime.conf import get_conf

P = ParamSpec("P")
T = TypeVar("T")


ASIDE_THREADS = 2

_Waiting = tuple[Callable[[], Any], Future[Any]]


class _Pool:
    """So many threads, each with its own database connection."""

    def __init__(self, size: int, name: str) -> None:
        self.size = size
        self.executor = ThreadPoolExecutor(size, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._first: deque[_Waiting] = deque()
        self._rest: deque[_Waiting] = deque()

    async def run(self, work: Callable[[], T], *, first: bool = False) -> T:
        done: Future[T] = Future()
        with self._lock:
            (self._first if first else self._rest).append((work, done))
        self.executor.submit(self._take)
        return await asyncio.shield(asyncio.wrap_future(done))

    def _take(self) -> None:
        """Do one unit; this is called once for each that waits."""
        with self._lock:
            work, done = (self._first or self._rest).popleft()
        try:
            done.set_result(_unit(work))
        except BaseException as exc:
            done.set_exception(exc)

    def close(self) -> None:
        """Meet every thread once, so that each closes its own connection."""
        barrier = threading.Barrier(self.size)
        for _ in range(self.size):
            self.executor.submit(_close_thread, barrier)
        self.executor.shutdown(wait=True)


def _close_thread(barrier: threading.Barrier) -> None:
    connections.close_all()
    barrier.wait()


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
    return _Pool(1, "db-write") if connection.vendor == "sqlite" else _readers()


@cache
def _aside() -> _Pool:
    return _Pool(ASIDE_THREADS, "db-aside")


def shutdown() -> None:
    """Finish what is under way and close every thread's connection; the next use starts anew."""
    used = {_readers(), _writers(), *([_aside()] if _aside.cache_info().currsize else [])}
    for pool in used:
        pool.close()
    for made in (_readers, _writers, _aside):
        made.cache_clear()
