"""Django's SQLite backend with a fair write lock for the threads of a process.

Use it with `"ENGINE": "conversations.sqlite"`. A connection holds the process's write lock from the
statement that begins its write transaction until that transaction has ended. Between processes
only SQLite's own lock applies, as with Django's backend.

SQLite lets one connection write at a time; the others sleep and retry, for longer each time, so
the connection that has waited longest is likely to be served last. This lock is handed to the next
in line instead.
"""

import gc
import re
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.db.backends.sqlite3 import base

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


DEFAULT_TIMEOUT_S = 5.0
"""The default timeout of `sqlite3.connect`."""

_READS = re.compile(
    r"\s*(SELECT|EXPLAIN|PRAGMA|SAVEPOINT|RELEASE|ROLLBACK|COMMIT|END)\b", re.IGNORECASE
)
_QUERY = re.compile(r"\s*WITH\b", re.IGNORECASE)
_CHANGES = re.compile(r"\b(INSERT|UPDATE|DELETE|REPLACE)\b", re.IGNORECASE)


def may_write(sql: str) -> bool:
    """Return whether a statement may take SQLite's write lock; True in doubt."""
    if _READS.match(sql):
        return False
    return not _QUERY.match(sql) or _CHANGES.search(sql) is not None


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection that takes turns in writing to its file with other threads of this process.

    It holds the process's write lock for the file from the first statement that may write until
    the transaction of that statement has ended. Other processes do not see this lock.
    """

    _holds_lock = False

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        self._lock = write_lock(str(conn_params["database"]))
        self._timeout_s = float(conn_params.get("timeout", DEFAULT_TIMEOUT_S))
        return super().get_new_connection(conn_params)

    def create_cursor(self, name: str | None = None) -> Any:
        return self.connection.cursor(factory=partial(Cursor, self))

    @contextmanager
    def taking_turns(self, sql: str) -> Iterator[bool]:
        """Hold the lock during one statement that may write, and until its transaction ends.

        A statement that only reads takes no lock. Yields whether the statement may write while no
        transaction is open, and so commits by itself unless it begins one. Raises
        `sqlite3.OperationalError`, as SQLite does, if the lock is not available within the
        connection's `timeout`.
        """
        if may_write(sql) and not self._holds_lock:
            if not self._lock.acquire(self._timeout_s, self):
                raise sqlite3.OperationalError("database is locked")
            self._holds_lock = True
        try:
            yield self._holds_lock and not self.connection.in_transaction
        finally:
            self._release_after_transaction()

    def _release_after_transaction(self) -> None:
        if self._holds_lock and not self.connection.in_transaction:
            self._release()

    def _release(self) -> None:
        self._holds_lock = False
        self._lock.release()

    def _commit(self) -> None:
        try:
            super()._commit()  # type: ignore[misc]
        finally:
            self._release_after_transaction()

    def _rollback(self) -> None:
        try:
            super()._rollback()  # type: ignore[misc]
        finally:
            self._release_after_transaction()

    def _close(self) -> None:
        try:
            super()._close()  # type: ignore[misc]
        finally:
            if self._holds_lock:
                self._release()


class Cursor(base.SQLiteCursorWrapper):
    """A cursor that waits for the process's write lock before statements that may write."""

    def __init__(self, database: DatabaseWrapper, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self._database = database
        self._returned: Iterator[Any] | None = None

    def execute(self, query: str, params: Any = None) -> Any:
        self._returned = None
        with self._database.taking_turns(query) as is_whole_transaction:
            result = super().execute(query, params)
            if is_whole_transaction and not self._database.connection.in_transaction:
                self._read_returned()
        return result

    def executemany(self, query: str, param_list: Any) -> Any:
        self._returned = None
        with self._database.taking_turns(query):
            return super().executemany(query, param_list)

    def _read_returned(self) -> None:
        """Read all rows now: a statement with RETURNING commits when its last row is read.

        The lock is still held here; without this the commit would come after its release.
        """
        if self.description is not None:
            self._returned = iter(super().fetchall())

    def fetchone(self) -> Any:
        return super().fetchone() if self._returned is None else next(self._returned, None)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        size = self.arraysize if size is None else size
        if self._returned is None:
            return super().fetchmany(size)
        return [row for _, row in zip(range(size), self._returned, strict=False)]

    def fetchall(self) -> list[Any]:
        return super().fetchall() if self._returned is None else list(self._returned)

    def __next__(self) -> Any:
        return super().__next__() if self._returned is None else next(self._returned)
