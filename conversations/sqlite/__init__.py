"""A fair write lock for the threads of one process that write to the same SQLite file.

SQLite lets one connection write at a time; the others sleep and retry, for longer each time, so
the connection that has waited longest is likely to be served last. This lock is handed to the next
in line instead.
"""

import gc
import threading
import time
import weakref
from collections import deque

LOOK_S = 1.0
"""Seconds between two checks of a waiting connection that the holder of the lock still exists."""

_this_thread = threading.local()


def prefer_this_thread() -> None:
    """From now on, hand every write lock to the current thread before all others that wait.

    For the thread that commits text. Only one thread of the process may call this; then it cannot
    starve the others, because between two of its transactions the lock goes to one that waits.
    """
    _this_thread.is_preferred = True


class _Holder:
    """The connection that holds the lock, by a weak reference, and the thread that took it."""

    def __init__(self, connection: object) -> None:
        self._connection = weakref.ref(connection)
        self._thread = threading.current_thread()

    @property
    def is_gone(self) -> bool:
        """Whether the connection was garbage-collected; SQLite has rolled its transaction back."""
        return self._connection() is None

    def collect(self) -> None:
        """Collect garbage if the thread has ended: reference cycles may keep the connection."""
        if not self._thread.is_alive():
            gc.collect()


_Line = deque[tuple[threading.Lock, _Holder]]


class WriteLock:
    """A lock held by one connection; handed over in order of arrival, preferred threads first.

    It belongs to a connection, not a thread: any thread may release it. The code that has acquired
    it must release it. If the connection is garbage-collected, because its thread ended in the
    middle of a transaction, the lock goes to the next in line: those that wait look for that every
    `LOOK_S` seconds.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._holder: _Holder | None = None
        self._preferred: _Line = deque()
        self._others: _Line = deque()

    def acquire(self, timeout_s: float, connection: object) -> bool:
        """Wait up to `timeout_s` seconds for the lock; return whether `connection` holds it now.

        `connection` must not hold it already. Only a weak reference to it is kept.
        """
        turn, holder = threading.Lock(), _Holder(connection)
        with self._mutex:
            if self._holder is None or self._holder.is_gone:
                self._holder = holder
                return True
            line = self._preferred if _is_preferred() else self._others
            turn.acquire()
            line.append((turn, holder))
        try:
            if self._wait(turn, timeout_s):
                return True
        except BaseException:
            if not self._leave(turn, line):
                self.release()
            raise
        return not self._leave(turn, line)

    def _wait(self, turn: threading.Lock, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > LOOK_S:
            if turn.acquire(timeout=LOOK_S):
                return True
            self._hand_on_if_lost()
        return turn.acquire(timeout=max(0.0, left_s))

    def _hand_on_if_lost(self) -> None:
        if (holder := self._holder) is None:
            return
        holder.collect()
        with self._mutex:
            # Several waiting threads may notice; only the first one may hand the lock on.
            if holder.is_gone and self._holder is holder:
                self._hand_on()

    def _leave(self, turn: threading.Lock, line: _Line) -> bool:
        """Leave the line; False if the lock has been handed to this thread meanwhile."""
        with self._mutex:
            for place in line:
                if place[0] is turn:
                    line.remove(place)
                    return True
        return False

    def release(self) -> None:
        """Release the lock, or hand it to the next in line.

        The calling code must hold it; that is not checked.
        """
        with self._mutex:
            self._hand_on()

    def _hand_on(self) -> None:
        self._holder = None
        if line := self._preferred or self._others:
            turn, self._holder = line.popleft()
            turn.release()


def _is_preferred() -> bool:
    return getattr(_this_thread, "is_preferred", False)


_locks: dict[str, WriteLock] = {}


def write_lock(path: str) -> WriteLock:
    """Return this process's one lock for the database file at `path`.

    Another spelling of the path gives another lock.
    """
    return _locks.setdefault(path, WriteLock())
