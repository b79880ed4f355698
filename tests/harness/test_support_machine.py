"""Crowds run alone, deadlines are scaled, and what ends by one says what the machine was doing."""

import ast
import contextlib
import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import machine
from tests.support.machine import crowd, scaled
from tests.support.site import ROOT
from tests.support.waiting import poll

FAILING = "tests/support/failing.py"
SCALED_IN = {"machine.py", "waiting.py", "processes.py", "warm.py"}


@pytest.fixture(scope="module")
def told() -> str:
    """What pytest prints about the tests that fail."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", FAILING],
        check=False,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != machine.SHARED_DIR},
        capture_output=True,
        text=True,
        timeout=scaled(60),
    )
    assert "4 failed" in done.stdout, done.stdout + done.stderr
    return done.stdout


def section(told: str, name: str) -> str:
    """What is said of one test."""
    return told.split(f" {name} ___")[1].partition("\n____")[0]


def test_a_hang_is_told(told: str) -> None:
    assert re.search(
        r"Failed: Timeout \(>\d+\.\d+s\) from pytest-timeout", section(told, "test_hangs")
    )
    assert re.search(r"pace \d+\.\d, load [\d. ]+, \d+ cores", section(told, "test_hangs"))


def test_a_deadline_is_told_with_the_log_of_the_server(told: str) -> None:
    said = section(told, "test_waits_in_vain")
    assert re.search(r"TimeoutError: waited \d+\.\d s for a day without rain", said)
    assert re.search(r"--- the end of site-\d+\.log\nagentsite: chat", said)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("test_server_dies_at_its_start", "agentsite: SECRET_KEY"),
        ("test_port_is_taken", "cannot listen on 127.0.0.1:"),
    ],
)
def test_a_start_in_vain_is_told(told: str, name: str, reason: str) -> None:
    assert re.search(
        rf"E +AssertionError: manage\.py serve: ended with 1 as it started\nE .*{reason}",
        section(told, name),
    )


def test_time_is_told_by_folder(told: str) -> None:
    assert re.search(r"^ +\d+s tests/support$", told, re.MULTILINE)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A session of its own, in whose turns this test takes part."""
    monkeypatch.setenv(machine.SHARED_DIR, str(tmp_path))
    return tmp_path


# Takes its turn when it is asked to, and leaves when it is asked again.
TAKER = """
import sys
from tests.support.machine import turn
sys.stdin.readline()
with turn(sys.argv[1], alone=sys.argv[1] == "crowd"):
    print(sys.argv[1], flush=True)
    sys.stdin.readline()
"""


class Taker:
    """Another worker."""

    def __init__(self, name: str, stdout: int) -> None:
        argv = [sys.executable, "-c", TAKER, name]
        self.process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=stdout)

    def go_on(self) -> None:
        assert self.process.stdin
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()


def test_a_crowd_is_alone(session: Path) -> None:
    """It waits for those that run, and those that come after it wait for it."""
    reading, writing = os.pipe()
    with contextlib.ExitStack() as stack:
        said = stack.enter_context(os.fdopen(reading))
        first, crowd, late = takers = [Taker(n, writing) for n in ("first", "crowd", "late")]
        for taker in takers:
            stack.enter_context(taker.process)
            stack.callback(taker.process.kill)
        os.close(writing)
        first.go_on()
        assert said.readline() == "first\n"
        crowd.go_on()
        poll(lambda: is_held(session / "next.lock"), "the crowd to queue")
        late.go_on()
        assert running(session) == ["first"]
        first.go_on()
        assert said.readline() == "crowd\n"
        assert running(session) == ["crowd"]
        crowd.go_on()
        assert said.readline() == "late\n"
        late.go_on()


def is_held(path: Path) -> bool:
    """Whether another process has the lock."""
    with path.open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def running(session: Path) -> list[str]:
    return [note.read_text() for note in session.glob("*.test")]


def test_tests_of_other_workers_are_named(session: Path) -> None:
    (session / "gw7.test").write_text("tests/test_other.py::test_it")
    with machine.turn("tests/test_this.py::test_it", alone=False):
        assert "beside it, gw7: tests/test_other.py::test_it" in machine.describe()
        assert "test_this" not in machine.describe()


@pytest.mark.parametrize(
    ("cores", "pace", "size"), [(16, 1.0, 1_000), (4, 1.0, 500), (4, 2.0, 250), (1, 9.0, 125)]
)
def test_crowds_are_as_large_as_the_machine(
    monkeypatch: pytest.MonkeyPatch, cores: int, pace: float, size: int
) -> None:
    monkeypatch.delenv(machine.FULL_CROWDS, raising=False)
    monkeypatch.setattr(machine, "cores", lambda: cores)
    monkeypatch.setattr(machine, "_pace", pace)
    assert crowd(1_000) == size
    monkeypatch.setenv(machine.FULL_CROWDS, "1")
    assert crowd(1_000) == 1_000


def sources() -> Iterator[tuple[str, ast.AST]]:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if path.name not in SCALED_IN and "another_project" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text())):
                yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node


def test_no_deadline_is_in_seconds() -> None:
    """They go through `waiting`, which scales them: no time-out is a number, but for 0."""
    unscaled = {"asyncio.timeout", "asyncio.wait_for", "time.sleep"}
    wrong = [
        place
        for place, node in sources()
        if isinstance(node, ast.Call)
        and (
            ast.unparse(node.func) in unscaled
            or any(
                keyword.arg == "timeout"
                and isinstance(keyword.value, ast.Constant)
                and keyword.value.value
                for keyword in node.keywords
            )
        )
    ]
    assert wrong == []
