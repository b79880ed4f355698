"""Manages a virtual environment per version of Python; installs only when something changed."""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNREACHABLE = ("connection broken", "NewConnectionError", "Temporary failure in name resolution")


OPTIONS = (
    "--disable-pip-version-check",
    "--no-deps",
    # Most modules are never imported; the others are compiled as they are.
    "--no-compile",
)


class SetupError(Exception):
    """A failure that stops the set-up; its text is one line for the user."""


@dataclass(frozen=True)
class Venv:
    home: Path

    @property
    def python(self) -> Path:
        return self.home / "bin" / "python"

    def package(self, name: str) -> Path:
        """Return the folder of an installed package."""
        return next(self.home.glob(f"lib/python3.*/site-packages/{name}"))

    def create(self) -> None:
        """Create the environment, or create it again for another build of Python."""
        stamp = self.home / "made-by"
        if self.python.exists() and stamp.is_file() and stamp.read_text() == sys.version:
            return
        log = self.home.with_name(f"{self.home.name}-venv.log")
        self.home.parent.mkdir(exist_ok=True)
        if not logged([sys.executable, "-m", "venv", "--clear", self.home], log):
            raise SetupError(
                "creating a virtual environment failed (on Debian and Ubuntu, install "
                f"python3-venv); see {log}"
            )
        stamp.write_text(sys.version)

    def install(self, wanted: Path) -> None:
        """Install a requirements file with pip, unless that was done; raises `SetupError`.

        The file must name all that its packages need, as lock files do: nothing is resolved.
        """
        stamp = self.home / f"{wanted.stem}.sha256"
        digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
        if stamp.is_file() and stamp.read_text() == digest:
            return
        print(f"agentsite: installing {wanted.name} (the first time, this takes a minute or two)")
        sys.stdout.flush()
        log = self.home / "pip.log"
        pip = [str(self.python), "-m", "pip", "install", *OPTIONS]
        if not logged([*pip, "-r", str(wanted)], log):
            raise SetupError(f"installing {wanted.name} failed: {reason_in(log)}; see {log}")
        stamp.write_text(digest)


def logged(command: Sequence[str | Path], log: Path, **options: Any) -> bool:
    """Run a command, output to a file; returns whether it succeeded within any `timeout`."""
    with log.open("wb") as output:
        options |= {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        try:
            return subprocess.run(command, check=False, **options).returncode == 0
        except subprocess.TimeoutExpired as exc:
            output.write(f"\nTIMEOUT: ended after {exc.timeout:.0f} s\n".encode())
            return False


def reason_in(log: Path) -> str:
    text = log.read_text(errors="replace")
    if any(sign in text for sign in UNREACHABLE):
        return "the package index cannot be reached; check the network"
    faults = [line for line in text.splitlines() if line.startswith("ERROR: ")]
    return faults[-1].removeprefix("ERROR: ") if faults else "pip failed"
