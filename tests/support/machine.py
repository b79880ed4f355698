"""Measures and shares the machine that the tests run on: its speed, and what runs on it.

A test session is one `pytest` command with all of its worker processes. They share a directory,
whose path the first process passes to the others in the environment.
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
"""Duration of the measured work on an idle core of the machine in docs/performance.md."""

CROWD_CORES = 8
"""A machine with this many cores of that speed gets crowds of full size."""

_pace = 1.0


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def measuring() -> Iterator[None]:
    """Measure the duration of a fixed piece of real work, which sets the pace of this process.

    All workers of a session measure at once, so the pace includes the load that they cause.
    """
    global _pace
    started = time.perf_counter()
    yield
    _pace = max(1.0, (time.perf_counter() - started) / REFERENCE_S)


def scaled(seconds: float) -> float:
    """Return the seconds to wait here for what may take `seconds` on the reference machine."""
    return seconds * _pace


def crowd(size: int) -> int:
    """Return the size of a crowd that this machine can carry; at least an eighth of `size`."""
    if os.environ.get(FULL_CROWDS):
        return size
    return round(size * min(1.0, max(0.125, cores() / (CROWD_CORES * _pace))))


def shared_dir() -> Path:
    """Return the directory of this test session; it is deleted with the process that created it."""
    if SHARED_DIR not in os.environ:
        made = tempfile.mkdtemp(prefix="agentsite-session-")
        atexit.register(shutil.rmtree, made, ignore_errors=True)
        os.environ[SHARED_DIR] = made
    return Path(os.environ[SHARED_DIR])


@contextlib.contextmanager
def turn(test: str, *, alone: bool) -> Iterator[None]:
    """Hold the machine for one test: `alone`, or shared with tests of other workers.

    A test that waits for its turn alone blocks tests that come later, so that it gets it.
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
    """Describe the pace, the load, and the tests that other workers are running."""
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    lines = [f"pace {_pace:.1f}, load {load}, {cores()} cores"]
    for note in sorted(shared_dir().glob("*.test")):
        with contextlib.suppress(FileNotFoundError):
            if note.stem != WORKER:
                lines.append(f"beside it, {note.stem}: {note.read_text()}")
    return "\n".join(lines)
