"""Valkey and Postgres start, die and come back."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from redis import Redis

from tests.support.processes import Child
from tests.support.servers import Postgres, Valkey, run_postgres, run_valkey
from tests.support.waiting import poll


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    with run_valkey() as running:
        yield running


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Postgres]:
    with run_postgres() as running:
        yield running


def test_valkey_comes_back_empty(own_valkey: Valkey) -> None:
    with Redis.from_url(own_valkey.url) as client:
        client.set("name", "value")
        own_valkey.kill()
        own_valkey.start()
        assert client.get("name") is None


def test_databases_are_apart_and_copied(own_postgres: Postgres) -> None:
    template = own_postgres.create_database()
    with psycopg.connect(own_postgres.url(template)) as connection:
        connection.execute("CREATE TABLE thing (name text)")
    with own_postgres.database(template) as url, psycopg.connect(url) as connection:
        connection.execute("INSERT INTO thing VALUES ('one')")
    with own_postgres.database(template) as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM thing").fetchone() == (0,)


def test_postgres_keeps_commits_over_a_kill(own_postgres: Postgres) -> None:
    with own_postgres.database() as url:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept (name text)")
        own_postgres.kill()
        own_postgres.start()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_postgres_drops_connections(own_postgres: Postgres) -> None:
    with own_postgres.database() as url, psycopg.connect(url, autocommit=True) as connection:
        own_postgres.terminate_backends()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_failed_start_shows_the_log(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "raise SystemExit('no such luck')"]
    with pytest.raises(AssertionError, match="no such luck"):
        Child(argv, tmp_path / "log").start(lambda: False)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_child_dies_with_its_parent(tmp_path: Path) -> None:
    program = f"""
import pathlib, sys, time
from tests.support.processes import Child
child = Child(["/bin/sleep", "600"], pathlib.Path({str(tmp_path / "log")!r}))
child.start(lambda: True)
print(child.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child_pid = int(parent.stdout.readline())
        parent.kill()
    poll(lambda: not _is_alive(child_pid), "the end of the child")


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
