"""Django's Postgres backend, with a pool that does not hand out dead connections.

Use it with `"ENGINE": "conversations.postgres"`, a pool in OPTIONS, and no CONN_HEALTH_CHECKS. With
those on, psycopg's pool checks each connection that it hands out, but pauses for longer and longer
between those that are dead. All are after a restart of the server, and requests then fail for as
long as the pauses take.
"""

import time
from typing import Any, ClassVar

from django.db.backends.postgresql import base
from psycopg import Error
from psycopg_pool import ConnectionPool

RENEW_PAUSE_S = 1.0
"""Seconds in which the idle connections are renewed once at most, however many prove to be dead."""


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection that is alive when it is handed out; the first dead one has the idle renewed."""

    _renewed_at: ClassVar[dict[str, float]] = {}

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = super().get_new_connection(conn_params)
        # All may be dead, and the idle ones have been renewed only now.
        for _ in range(self.pool.max_size if self.pool else 0):
            if _is_alive(connection):
                break
            self._renew_idle()
            self.pool.putconn(connection)
            connection = super().get_new_connection(conn_params)
        return connection

    def _renew_idle(self) -> None:
        """Have the pool replace its idle connections: they died with the one that was found."""
        now = time.monotonic()
        if now - self._renewed_at.get(self.alias, -RENEW_PAUSE_S) >= RENEW_PAUSE_S:
            self._renewed_at[self.alias] = now
            self.pool.drain()


def _is_alive(connection: Any) -> bool:
    try:
        ConnectionPool.check_connection(connection)
    except Error:
        return False
    return True
