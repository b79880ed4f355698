"""Django's SQLite backend with a fair write lock for the threads of a process.

Use it with `"ENGINE": "conversations.sqlite"`. A connection holds the process's write lock from the
statement that begins its write transaction until that transaction has ended. Between processes
only SQLite's own lock applies, as with Django's backend.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.db.backends.sqlite3 import base

from conversations.sqlite import write_lock

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
