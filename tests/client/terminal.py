"""`manage.py chat` in a process of its own: piped, or with a terminal before it."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.support.machine import scaled
from tests.support.site import ROOT, User, environment
from tests.support.waiting import TIMEOUT_S, poll

CHAT = [sys.executable, "-m", "agentsite.terminal"]
MANAGE_CHAT = [sys.executable, "manage.py", "chat"]

# No server of that database is there: the command must not ask for one.
ENVIRONMENT = {"DATABASE_URL": "postgres://nobody:nothing@127.0.0.1:1/nowhere", "TERM": "dumb"}


def as_user(user: User) -> dict[str, str]:
    """What lets the command in."""
    return environment(**ENVIRONMENT, AGENTSITE_PASSWORD=user.password)


def run_chat(
    *arguments: str, env: dict[str, str], said: str = "", command: list[str] = CHAT
) -> subprocess.CompletedProcess[str]:
    """Run it with something piped in."""
    return subprocess.run(
        [*command, *arguments],
        input=said,
        env=env,
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=scaled(60),
    )


def begin_chat(*arguments: str, env: dict[str, str], said: str) -> Any:
    """The same while it runs: a process, whose pipes hold bytes and have no buffer."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [*CHAT, *arguments], bufsize=0, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, stderr=pipe
    )
    assert process.stdin
    process.stdin.write(said.encode())
    process.stdin.close()
    process.stdin = None
    return process


# The terminal at stdin becomes that of the new session, whose foreground Ctrl-C interrupts.
LAUNCH = """
import fcntl, os, signal, sys, termios
# Whoever has started the tests in the background has told all below to ignore it.
signal.signal(signal.SIGINT, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """What a person sees, and types."""

    def __init__(self, process: subprocess.Popen[bytes], end: int) -> None:
        self.process = process
        self.shown = ""
        self._place = 0
        self._end = end
        os.set_blocking(end, False)

    def sees(self, text: str) -> None:
        """Wait until it stands there, below what was waited for before."""

        def is_there() -> bool:
            self._read()
            return text in self.shown[self._place :]

        try:
            poll(is_there, text, within=2 * TIMEOUT_S)
        except TimeoutError as exc:
            raise AssertionError(f"{text!r} is not in {self.shown!r}") from exc
        self._place = self.shown.index(text, self._place) + len(text)

    def _read(self) -> None:
        # Nothing has come, or, as Linux says it, the other end is closed.
        with suppress(OSError):
            self.shown += os.read(self._end, 65_536).decode(errors="replace")

    def types(self, keys: str) -> None:
        os.write(self._end, keys.encode())

    def ends(self) -> int:
        """Its exit status."""
        status = self.process.wait(scaled(TIMEOUT_S))
        self._read()
        return status


@contextmanager
def terminal(*arguments: str, env: dict[str, str], command: list[str] = CHAT) -> Iterator[Terminal]:
    """The command at a terminal of its own, where Ctrl-C is a signal."""
    end, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-ISc", LAUNCH, *command, *arguments],
        env=env,
        cwd=ROOT,
        stdin=other,
        stdout=other,
        stderr=other,
        start_new_session=True,
    )
    os.close(other)
    try:
        yield Terminal(process, end)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
        os.close(end)
