"""Starts Python programs in forks of a process that has imported the large libraries already.

Those imports are most of what a start of the site costs. Each test process has one such parent
process; it has no thread, no settings and no event loop of its own.
"""

import atexit
import ctypes
import gc
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

LIBRARIES = (
    "agents",
    "agents.mcp.manager",
    "aiohttp",
    "autobahn.twisted.websocket",
    "channels.auth",
    "channels.generic.websocket",
    "channels_redis.pubsub",
    "corsheaders.middleware",
    "csp.apps",
    "csp.middleware",
    "daphne.http_protocol",
    "django.contrib.admin",
    "django.contrib.admindocs.views",
    "django.core.management",
    "django.core.management.commands.makemigrations",
    "django.core.management.commands.migrate",
    "django.db.backends.sqlite3.base",
    "django.db.models.sql.compiler",
    "django.template",
    "django.test",
    "django_filters.utils",
    "drf_spectacular",
    "drf_spectacular.utils",
    "httpcore2",
    "markdown_it",
    "mdit_py_plugins.footnote",
    "nh3",
    "openai",
    "prometheus_client.asgi",
    "psycopg_pool",
    "pydantic_settings",
    "redis.asyncio",
    "requests",
    "rest_framework.serializers",
    "rest_framework_simplejwt.utils",
    "servestatic.middleware",
    "twisted.internet.asyncioreactor",
    "twisted.internet.endpoints",
    "twisted.web.http",
    "yaml",
)
"""None of them needs settings, starts a thread or chooses Twisted's reactor."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([f"{__name__}_imports"])


class WarmProcess:
    """A Python program, with the methods of `subprocess.Popen` that `Child` needs."""

    def __init__(
        self, arguments: Sequence[str], log_path: Path, *, env: Mapping[str, str], cwd: Path
    ) -> None:
        arguments = list(arguments)
        # A daemon, so that a program left running does not delay the end of the tests.
        self._process = _context.Process(
            target=_become, args=(arguments, log_path, dict(env), cwd), daemon=True
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the program's end; raises `subprocess.TimeoutExpired`."""
        self._process.join(timeout)
        if (status := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired("python", timeout or 0)
        return status


def _become(arguments: list[str], log_path: Path, env: dict[str, str], cwd: Path) -> None:
    """Turn the fork into a process as started by `python ARGUMENTS` in `cwd`."""
    os.setsid()
    # The parent is killed with the test process.
    die_with_parent()
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    run_as(arguments, env=env, cwd=cwd)


def run_as(arguments: list[str], *, env: Mapping[str, str], cwd: Path) -> None:
    """Run in this fork what `python ARGUMENTS` runs in `cwd`; it may raise `SystemExit`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    installed = [path for path in sys.path if path.startswith((sys.base_prefix, sys.prefix))]
    sys.path[:] = [str(cwd), *installed]
    try:
        _run(arguments)
    finally:
        # A fork does not run what an interpreter runs at its exit.
        atexit._run_exitfuncs()
        if database := sys.modules.get("django.db"):
            database.connections.close_all()


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends; on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _run(arguments: list[str]) -> None:
    match arguments:
        case ["-m", module, *rest]:
            sys.argv = [module, *rest]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", code, *rest]:
            sys.argv = ["-c", *rest]
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
        case [script, *rest]:
            sys.argv = [script, *rest]
            runpy.run_path(script, run_name="__main__")


def import_all() -> None:
    """Import the installed ones of `LIBRARIES`, in the process that is forked."""
    for name in LIBRARIES:
        with suppress(ImportError):
            import_module(name)
    gc.freeze()
