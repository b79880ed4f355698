"""The lock that makes the threads of one process take turns at writing to a SQLite file.

SQLite itself lets one connection write at a time, and the others sleep and look again, for longer
each time: who has waited longest is served last. Here the lock is handed to the next in line.
"""

import gc
import threading
import time
import weakref
from collections import deque

LOOK_S = 1.0
"""How long a connection waits before it looks whether the one that holds the lock still exists."""

_this_thread = threading.local()


def prefer_this_thread() -> None:
    """Serve this thread before all others from now on: for the one that commits streamed text.

    It cannot starve the others as long as it is only one: between two of its transactions the lock
    goes to whoever waits.
    """
    _this_thread.is_preferred = True


class _Holder:
    """The connection that holds the lock, for as long as it exists, and the thread that took it."""

    def __init__(self, connection: object) -> None:
        self._connection = weakref.ref(connection)
        self._thread = threading.current_thread()

    @property
    def is_gone(self) -> bool:
        """Whether the connection exists no more: SQLite has rolled its transaction back."""
        return self._connection() is None

    def collect(self) -> None:
        """Have a connection go that nobody can reach: its own cycles may keep it for long."""
        if not self._thread.is_alive():
            gc.collect()


_Line = deque[tuple[threading.Lock, _Holder]]


class WriteLock:
    """Held by one connection; handed over in the order of arrival, to a preferred thread first.

    It belongs to no thread: whoever has acquired it sees to its release, from any thread. A
    connection that exists no more holds it no more either: a thread may end in the middle of a
    transaction.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._holder: _Holder | None = None
        self._preferred: _Line = deque()
        self._others: _Line = deque()

    def acquire(self, timeout_s: float, connection: object) -> bool:
        """Wait for so many seconds until `connection` holds the lock; whether it does."""
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
            # Of all that wait, one sees it first.
            if holder.is_gone and self._holder is holder:
                self._hand_on()

    def _leave(self, turn: threading.Lock, line: _Line) -> bool:
        """Wait no more; False if the lock was handed over in the meantime."""
        with self._mutex:
            for place in line:
                if place[0] is turn:
                    line.remove(place)
                    return True
        return False

    def release(self) -> None:
        """Hand the lock to the next in line, if anybody waits."""
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
    """The one lock of this process for the database at `path`."""
    return _locks.setdefault(path, WriteLock())
