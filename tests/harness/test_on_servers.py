"""A part of the in-process tests, on Postgres and Valkey in place of SQLite and memory."""

import os
import subprocess
import sys

import pytest

from tests.support.machine import SHARED_DIR
from tests.support.servers import ON_SERVERS
from tests.support.site import ROOT

FILES = [
    "tests/record/test_lifecycle.py",
    "tests/record/test_run_states.py",
    "tests/work/test_suspension.py",
    "tests/sockets/test_viewer.py",
    "tests/api/test_turns.py",
]
"""What costs little, and where most depends on the database's locks and on the layer's ways."""


@pytest.mark.in_process("starts such a session itself")
@pytest.mark.timeout(300)
def test_what_depends_on_them_most() -> None:
    # A session of its own: it must not wait for its turn on the machine behind this very test.
    apart = ("PYTEST_", SHARED_DIR)
    env = {name: value for name, value in os.environ.items() if not name.startswith(apart)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *FILES],
        check=False,
        cwd=ROOT,
        env=env | {ON_SERVERS: "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
