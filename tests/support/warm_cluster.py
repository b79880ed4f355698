"""`scripts/cluster.py` as a warm process, whose processes of the site are forks of it in turn.

Each would import the large libraries again. The first web process does: it starts from nothing.
"""

import asyncio
import gc
import os
import runpy
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from tests.support.warm import die_with_parent, run_as

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
# Python ignores these from its start on; `subprocess` has restored them for another program.
IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)

_cold = {"serve"}
_create = asyncio.create_subprocess_exec


async def create(
    *argv: str, env: Mapping[str, str], cwd: Path | None = None, **options: Any
) -> asyncio.subprocess.Process:
    """Start a command of `manage.py` as a fork, and any other as it is."""
    if "manage.py" in argv:
        arguments = list(argv[argv.index("manage.py") :])
        if arguments[1] not in _cold:
            options["preexec_fn"] = lambda: _become(arguments, env)
        _cold.discard(arguments[1])
    return await _create(*argv, env=env, cwd=cwd, **options)


def _become(arguments: list[str], env: Mapping[str, str]) -> NoReturn:
    """Run the command in place of the program that was to be executed.

    This is where `subprocess` would do so: output, session and folder are those of the new process.
    """
    status = 1
    try:
        die_with_parent()
        _leave_the_cluster()
        run_as(arguments, env=env, cwd=SCRIPTS.parent)
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        else:
            status = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _leave_the_cluster() -> None:
    """Drop the event loop, the signal handlers and the files of the parent.

    One of those files has the parent wait until a program is executed, or the file closed.
    """
    signal.set_wakeup_fd(-1)
    for number in HANDLED:
        signal.signal(number, signal.SIG_DFL)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    asyncio._set_running_loop(None)
    gc.enable()


if __name__ == "__main__":
    sys.path.insert(0, str(SCRIPTS))
    with mock.patch.object(asyncio, "create_subprocess_exec", create):
        runpy.run_path(str(SCRIPTS / "cluster.py"), run_name="__main__")
