"""Type-checks and lints the page's JavaScript with `tsc` and Biome, which npm installs.

They are fetched once, into `.cache/javascript`, where editors find them by `tsconfig.json` and
`biome.json`; the checks themselves need no network.
"""

import hashlib
import shutil
import subprocess
from pathlib import Path

import npm
from venvs import SetupError, Venv

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "scripts" / "javascript"
HOME = ROOT / ".cache" / "javascript"
PROTOCOL = HOME / "protocol.d.ts"

TYPES = ("typescript/bin/tsc", "--project", ".")
LINT = ("@biomejs/biome/bin/biome", "check", "--error-on-warnings")

WRITE_PROTOCOL = """
import os
import sys
from pathlib import Path
import django
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentsite.settings")
django.setup()
from realtime.wire_schema import typescript
Path(sys.argv[1]).write_text(typescript())
"""


def digest() -> str:
    """Return the digest of the lock file, which names the versions of the tools."""
    return hashlib.sha256((SOURCES / "package-lock.json").read_bytes()).hexdigest()


def are_there() -> bool:
    """Return whether the tools are installed in the versions of the lock file."""
    stamp = HOME / ".made-from"
    return stamp.is_file() and stamp.read_text() == digest()


def bring(venv: Venv) -> None:
    """Install the tools unless they are; raises `SetupError`."""
    if are_there():
        return
    print("agentsite: downloading the JavaScript checkers (only once)", flush=True)
    draft = HOME.with_suffix(".part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        npm.install(venv, SOURCES, draft, HOME.with_suffix(".log"))
    except SetupError as exc:
        raise SetupError(f"downloading the JavaScript checkers failed: {exc}") from exc
    (draft / ".made-from").write_text(digest())
    shutil.rmtree(HOME, ignore_errors=True)
    draft.rename(HOME)


def check(venv: Venv) -> int:
    """Check types against the current protocol, then lint and format; returns the exit status."""
    write_protocol(venv)
    return int(any([run(venv, *TYPES), run(venv, *LINT)]))


def write_protocol(venv: Venv) -> None:
    """Write the types of the protocol's frames for `tsc`; raises `CalledProcessError`."""
    subprocess.run([venv.python, "-c", WRITE_PROTOCOL, PROTOCOL], check=True, cwd=ROOT)


def run(venv: Venv, tool: str, *arguments: str) -> int:
    """Run one of the tools over the checkout; returns its exit status."""
    script = HOME / "node_modules" / tool
    command = [str(npm.node_of(venv)), str(script), *arguments]
    return subprocess.run(command, check=False, cwd=ROOT).returncode
