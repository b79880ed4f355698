"""Child processes that live no longer than the process that started them."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import ClassVar
from urllib.request import urlopen
from weakref import WeakSet

from servers import Command, free_ports

from tests.support.machine import scaled
from tests.support.waiting import TIMEOUT_S, poll
from tests.support.warm import WarmProcess

START_S = 60.0
"""Time limit for the start of a server."""

LOG_LINES = 12


def free_port() -> int:
    """Return a TCP port that nothing listens on at this moment."""
    return free_ports(1)[0]


def answers(url: str) -> bool:
    """Whether a GET of `url` is answered by 200 at this moment."""
    with contextlib.suppress(OSError, HTTPException), urlopen(url, timeout=scaled(5)) as response:
        return bool(response.status == 200)
    return False


def count_nameless_files(pid: int | str = "self") -> int:
    """Return how many unlinked temporary files a process has open; Linux only."""
    count = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            count += str(entry.readlink()).endswith(" (deleted)")
    return count


def _state_of(pid: int) -> str:
    """Return the letter for the state of a process; Linux only."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


class Child:
    """A server in its own process, its output in `log_path`.

    A `warm` one is a Python program with `argv` as its arguments; it gets the large libraries from
    the process that it is forked from. Any other dies with the thread that called `start`, on
    Linux.
    """

    running: ClassVar[WeakSet["Child"]] = WeakSet()
    """All children that were started, for the report of a failed test."""

    def __init__(
        self,
        argv: Sequence[str],
        log_path: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        warm: bool = False,
    ) -> None:
        self.argv = list(argv)
        self.log_path = log_path
        self._env = env
        self._warm = warm
        self._command = Command(tuple(argv), cwd)
        self._process: subprocess.Popen[bytes] | WarmProcess | None = None

    @classmethod
    def of(cls, command: Command, log_path: Path) -> "Child":
        """Return a child that runs `command`, also as another user."""
        child = cls(command.argv, log_path)
        child._command = command
        return child

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """The output of all starts so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self, is_ready: Callable[[], object], *, within: float = START_S) -> None:
        """Start the process and wait until it is ready; raises `AssertionError` with its log."""
        assert not self.is_running, "already running"
        self._process = self._warm_process() if self._warm else self._cold_process()
        Child.running.add(self)
        try:
            poll(lambda: not self.is_running or is_ready(), "the start", within=within)
            assert self.is_running, f"ended with {self._process.returncode} as it started"
        except (TimeoutError, AssertionError) as exc:
            self.kill()
            raise AssertionError(f"{' '.join(self.argv[:3])}: {exc}\n{self.log}") from exc

    def _warm_process(self) -> WarmProcess:
        env = os.environ if self._env is None else self._env
        return WarmProcess(self.argv, self.log_path, env=env, cwd=self._command.cwd or Path.cwd())

    def _cold_process(self) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                self._command.launch(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._command.cwd,
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone; after SIGSTOP it stands still, on Linux."""
        os.kill(self.pid, number)
        if number == signal.SIGSTOP:
            # With several threads it takes a moment: what is sent meanwhile may still be served.
            poll(lambda: _state_of(self.pid) == "T", "the process to stand still")

    def wait(self, *, within: float = TIMEOUT_S) -> int:
        """Wait for the end; returns the exit status, negative for a signal."""
        assert self._process is not None, "not started"
        return self._process.wait(scaled(within))

    def terminate(self, *, within: float = TIMEOUT_S) -> int:
        """Send SIGTERM and wait; raises `subprocess.TimeoutExpired`."""
        self.signal(signal.SIGTERM)
        return self.wait(within=within)

    def kill(self) -> None:
        """Kill the process and all that it started; does nothing if it has ended."""
        if self._process is None or not self.is_running:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def run_warm(*arguments: str, env: Mapping[str, str], cwd: Path) -> str:
    """Run a Python program as a warm `Child` and return its output; raises `AssertionError`."""
    with tempfile.NamedTemporaryFile(prefix="agentsite-output-") as output:
        process = WarmProcess(arguments, Path(output.name), env=env, cwd=cwd)
        try:
            status = process.wait(scaled(START_S))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            raise
        said = output.read().decode()
    assert status == 0, f"{arguments}: {said}"
    return said


def describe_children() -> str:
    """Return the last lines of output of each running child."""
    shown = []
    for child in sorted(Child.running, key=lambda child: child.log_path):
        if child.is_running and child.log:
            lines = child.log.splitlines()[-LOG_LINES:]
            shown.append("\n".join([f"--- the end of {child.log_path.name}", *lines]))
    return "\n".join(shown)
