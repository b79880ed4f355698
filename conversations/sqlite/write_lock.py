"""The lock that makes the threads of one process take turns at writing to a SQLite file.

SQLite itself lets one connection write at a time, and the others sleep and look again, for longer
each time: who has waited longest is served last. Here the lock is handed to the next in line.
"""

import threading
from collections import deque

_this_thread = threading.local()


def prefer_this_thread() -> None:
    """Serve this thread before all others from now on: for the one that commits streamed text.

    It cannot starve the others as long as it is only one: between two of its transactions the lock
    goes to whoever waits.
    """
    _this_thread.is_preferred = True


class WriteLock:
    """Held by one connection; handed over in the order of arrival, to a preferred thread first.

    It belongs to no thread: whoever has acquired it sees to its release, from any thread.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._is_held = False
        self._preferred: deque[threading.Lock] = deque()
        self._others: deque[threading.Lock] = deque()

    def acquire(self, timeout_s: float) -> bool:
        """Wait for the lock for so many seconds; whether it was got."""
        turn = threading.Lock()
        with self._mutex:
            if not self._is_held:
                self._is_held = True
                return True
            line = self._preferred if _is_preferred() else self._others
            turn.acquire()
            line.append(turn)
        try:
            if turn.acquire(timeout=timeout_s):
                return True
        except BaseException:
            if not self._leave(turn, line):
                self.release()
            raise
        return not self._leave(turn, line)

    def _leave(self, turn: threading.Lock, line: deque[threading.Lock]) -> bool:
        """Wait no more; False if the lock was handed over in the meantime."""
        with self._mutex:
            if turn in line:
                line.remove(turn)
                return True
        return False

    def release(self) -> None:
        """Hand the lock to the next in line, if anybody waits."""
        with self._mutex:
            if line := self._preferred or self._others:
                line.popleft().release()
            else:
                self._is_held = False


def _is_preferred() -> bool:
    return getattr(_this_thread, "is_preferred", False)


_locks: dict[str, WriteLock] = {}


def write_lock(path: str) -> WriteLock:
    """The one lock of this process for the database at `path`."""
    return _locks.setdefault(path, WriteLock())
