"""The machine that the tests run on: how fast it is, and what it is doing.

A test session is one `pytest` command with all of its worker processes. They share a directory,
whose path the first of them leaves in the environment for the others.
"""

import atexit
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fasteners import InterProcessReaderWriterLock

SHARED_DIR = "AGENTSITE_TEST_SESSION"
FULL_CROWDS = "AGENTSITE_FULL_CROWDS"
STEPS = "AGENTSITE_STEPS"
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")

REFERENCE_S = 1.5
"""What the measured work takes on a quiet core of the machine of docs/performance.md."""

CROWD_CORES = 8
"""A machine with so many cores of that speed is given whole crowds."""

_pace = 1.0


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def measuring() -> Iterator[None]:
    """Take the time of a fixed piece of real work, which sets the pace of this process.

    All workers of a session do it at once, so that it includes what they cost each other.
    """
    global _pace
    started = time.perf_counter()
    yield
    _pace = max(1.0, (time.perf_counter() - started) / REFERENCE_S)


def scaled(seconds: float) -> float:
    """How long to wait here for what may take `seconds` on the reference machine."""
    return seconds * _pace


def crowd(size: int) -> int:
    """How many of a crowd of `size` this machine is asked to carry; never under an eighth."""
    if os.environ.get(FULL_CROWDS):
        return size
    return round(size * min(1.0, max(0.125, cores() / (CROWD_CORES * _pace))))


def shared_dir() -> Path:
    """The directory of this test session; it is deleted with the process that made it."""
    if SHARED_DIR not in os.environ:
        made = tempfile.mkdtemp(prefix="agentsite-session-")
        atexit.register(shutil.rmtree, made, ignore_errors=True)
        os.environ[SHARED_DIR] = made
    return Path(os.environ[SHARED_DIR])


@contextlib.contextmanager
def turn(test: str, *, alone: bool) -> Iterator[None]:
    """Hold the machine for one test: `alone`, or together with tests of other workers.

    Whoever wants it alone holds back those that come later, so that it gets its turn.
    """
    with contextlib.ExitStack() as stack:
        with _lock("next").write_lock():
            floor = _lock("floor")
            stack.enter_context(floor.write_lock() if alone else floor.read_lock())
        note = shared_dir() / f"{WORKER}.test"
        note.write_text(test)
        stack.callback(note.unlink, missing_ok=True)
        yield


def _lock(name: str) -> InterProcessReaderWriterLock:
    return InterProcessReaderWriterLock(shared_dir() / f"{name}.lock")


def describe() -> str:
    """The pace, the load, and the tests that other workers are running."""
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    lines = [f"pace {_pace:.1f}, load {load}, {cores()} cores"]
    for note in sorted(shared_dir().glob("*.test")):
        with contextlib.suppress(FileNotFoundError):
            if note.stem != WORKER:
                lines.append(f"beside it, {note.stem}: {note.read_text()}")
    return "\n".join(lines)
