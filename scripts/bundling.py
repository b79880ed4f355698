"""The page's modules and style sheets, bundled and minified by esbuild into `bundle/`.

`collectstatic` takes a file of the bundle in place of the source of the same name, if the bundle
was made from the sources as they are (`agentsite.apps.BundleFinder`). Without a bundle the sources
are served, which do the same in more requests.
"""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

from venvs import SetupError, logged

ROOT = Path(__file__).resolve().parent.parent
STATIC = ROOT / "static"
TARGET = ROOT / "bundle"
CACHE = ROOT / ".cache"

MODULES = ("chat/main.js", "chat/shared_page.js")
SHEETS = ("chat/styles/page.css", "chat/styles/rendered.css")
INPUTS = ".inputs.json"
"""The file in the bundle that has the SHA-256 of each source; `collectstatic` does not take it."""

OPTIONS = (
    *(
        "--bundle",
        "--splitting",
        "--format=esm",
        "--minify",
    ),
    *("--outbase=static", "--chunk-names=chat/[name]-[hash]", "--log-level=warning"),
)
LIMIT_S = 120


def program() -> Path:
    """Return where esbuild is kept, by the version in the lock file; it may not exist."""
    lock = json.loads((ROOT / "package-lock.json").read_text())
    return CACHE / f"esbuild-{lock['packages']['node_modules/esbuild']['version']}"


def keep_program(modules: Path) -> None:
    """Keep the program that npm has installed for this platform; it needs no Node.js to run."""
    for found in modules.glob("@esbuild/*/bin/esbuild"):
        draft = found.with_name("draft")
        shutil.copy(found, draft)
        draft.chmod(0o755)
        draft.rename(program())


def build() -> None:
    """Make the bundle, unless there is no esbuild; keep one that is the same.

    Raises `SetupError` if a source has an error.
    """
    if not program().exists():
        return
    with tempfile.TemporaryDirectory(dir=CACHE) as directory:
        draft, facts = Path(directory) / "bundle", Path(directory) / "facts.json"
        outputs = (f"--outdir={draft}", f"--metafile={facts}")
        command: list[str | Path] = [program(), *entries(), *OPTIONS, *outputs]
        log = CACHE / "bundle.log"
        if not logged(command, log, cwd=ROOT, timeout=LIMIT_S):
            raise SetupError(f"bundling the page's modules failed; see {log}")
        names = json.loads(facts.read_text())["inputs"]
        (draft / INPUTS).write_text(json.dumps({name: digest(ROOT / name) for name in names}))
        if not TARGET.exists() or contents(draft) != contents(TARGET):
            shutil.rmtree(TARGET, ignore_errors=True)
            draft.rename(TARGET)


def entries() -> list[Path]:
    """Return the files that pages name, relative to the checkout."""
    top = sorted([*STATIC.glob("*.js"), *STATIC.glob("*.css")])
    found = [*top, *(STATIC / name for name in (*MODULES, *SHEETS))]
    return [path.relative_to(ROOT) for path in found]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contents(folder: Path) -> dict[Path, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in files}
