"""Runs real Valkey and Postgres servers, installed from wheels."""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import servers
from psycopg import sql

from tests.support.machine import scaled
from tests.support.processes import Child, free_port
from tests.support.waiting import TIMEOUT_S

ON_SERVERS = "AGENTSITE_ON_SERVERS"
POSTGRES_URL = "AGENTSITE_TEST_POSTGRES"


@contextlib.contextmanager
def scratch_dir(name: str) -> Iterator[Path]:
    """Create a directory that other users can enter, with a path short enough for a Unix socket."""
    path = Path(tempfile.mkdtemp(prefix=f"agentsite-{name}-", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Valkey:
    """A server without persistence: after `kill` and `start` it is empty, on the same port."""

    def __init__(self, work_dir: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process = Child.of(servers.valkey(self.port, work_dir), work_dir / "valkey.log")

    def start(self) -> None:
        self.process.start(self._answers)

    def kill(self) -> None:
        """Kill the server as `kill -9` does."""
        self.process.kill()

    def flush(self) -> None:
        """Delete all keys; connections stay open."""
        self._ask(b"FLUSHALL\r\n")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self._ask(b"PING\r\n") == b"+PONG\r\n"
        return False

    def _ask(self, command: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=scaled(TIMEOUT_S)) as sock:
            sock.sendall(command)
            return sock.recv(1024)


class Postgres:
    """One cluster; each test that uses it creates a database of its own."""

    def __init__(self, work_dir: Path) -> None:
        self.port = free_port()
        self._work_dir = work_dir
        self._names = (f"test_{number}" for number in itertools.count(1))

    @cached_property
    def process(self) -> Child:
        options = {
            "max_connections": 200,
            # The machine does not lose power in a test, and `kill -9` loses nothing either way.
            "fsync": "off",
            "full_page_writes": "off",
        }
        command = servers.postgres(self.port, self._work_dir, options)
        return Child.of(command, self._work_dir / "postgres.log")

    def start(self) -> None:
        self.process.start(self._answers)

    def kill(self) -> None:
        """Kill the server as `kill -9` does; `start` recovers what was committed."""
        self.process.kill()

    def stop(self) -> None:
        """Stop the server in order; its connections are dropped."""
        if self.process.is_running:
            self.process.signal(signal.SIGINT)
            self.process.wait()

    def terminate_backends(self) -> None:
        """Drop all connections, and wait until they are gone; the server stays up."""
        self.execute(
            "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
            int(scaled(10) * 1000),
        )

    @contextlib.contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """Return the URL of a new database, a copy of `template`; it is dropped at the end."""
        name = self.create_database(template)
        try:
            yield self.url(name)
        finally:
            if self.process.is_running:
                self.drop_database(name)

    def create_database(self, template: str = "template1") -> str:
        """Create a copy of `template`, which must have no connections; returns its name."""
        name = next(self._names)
        names = sql.Identifier(name), sql.Identifier(template)
        self.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
        return name

    def drop_database(self, name: str) -> None:
        self.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )

    def url(self, name: str) -> str:
        """Return the value of `DATABASE_URL` for the database `name`."""
        return f"postgres://postgres@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: sql.Composed | LiteralString, *params: Any) -> None:
        """Execute one statement as the superuser, outside any transaction."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement, params or None)

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            self.execute("SELECT 1")
            return True
        return False


@contextlib.contextmanager
def run_valkey() -> Iterator[Valkey]:
    with scratch_dir("valkey") as work_dir:
        valkey = Valkey(work_dir)
        try:
            valkey.start()
            yield valkey
        finally:
            valkey.kill()


@contextlib.contextmanager
def run_postgres() -> Iterator[Postgres]:
    with scratch_dir("postgres") as work_dir:
        postgres = Postgres(work_dir)
        try:
            postgres.start()
            yield postgres
        finally:
            postgres.stop()
            postgres.kill()


def start_for_session(stack: contextlib.ExitStack) -> dict[str, str]:
    """Return the settings with which in-process tests run on servers; they end with `stack`.

    The first process of the session starts the Postgres, and the others find it by the environment.
    Each has a Valkey of its own, since groups of a channel layer are the same in all databases of
    one. Without `ON_SERVERS` in the environment it starts nothing and returns {}.
    """
    if not os.environ.get(ON_SERVERS):
        return {}
    if POSTGRES_URL not in os.environ:
        os.environ[POSTGRES_URL] = stack.enter_context(run_postgres()).url("agentsite")
    valkey = stack.enter_context(run_valkey())
    return {"DATABASE_URL": os.environ[POSTGRES_URL], "REDIS_URL": valkey.url}
