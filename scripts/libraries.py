"""The chat page's libraries: from npm by the lock file, and what is served of them copied.

What is served to a site's visitors is then bundled: see `bundling.py`.

`make` runs this by itself; in an image, after `pip install -r requirements-build.txt`:
`python scripts/libraries.py`.
"""

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

import bundling
import npm
from venvs import SetupError, Venv

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "static" / "vendor"
CACHE = ROOT / ".cache"

HIGHLIGHT = "@highlightjs/cdn-assets/es"
LANGUAGES = (
    *("bash", "c", "cpp", "csharp", "css", "dart", "diff", "django", "dockerfile", "elixir"),
    *("go", "graphql", "haskell", "http", "ini", "java", "javascript", "json", "kotlin", "lua"),
    *("makefile", "markdown", "nginx", "perl", "php", "powershell", "protobuf"),
    *("python", "r", "ruby", "rust", "scala", "scss", "shell", "sql", "swift", "typescript"),
    *("xml", "yaml"),
)
SERVED = {
    "markdown-it.js": "markdown-it/dist/browser/markdown-it.esm.min.mjs",
    "markdown-it.LICENSE.txt": "markdown-it/LICENSE",
    "markdown-it-footnote.js": "markdown-it-footnote/index.mjs",
    "markdown-it-footnote.LICENSE.txt": "markdown-it-footnote/LICENSE",
    "mermaid.js": "@mermaid-js/tiny/dist/mermaid.tiny.js",
    "mermaid.LICENSE.txt": "@mermaid-js/tiny/LICENSE",
    "temml.js": "temml/dist/temml.min.js",
    "temml.css": "temml/dist/Temml-Local.css",
    "Temml.woff2": "temml/dist/Temml.woff2",
    "temml.LICENSE.txt": "temml/LICENSE",
    "highlight.js": f"{HIGHLIGHT}/core.min.js",
    "highlight.LICENSE.txt": "@highlightjs/cdn-assets/LICENSE",
    **{f"languages/{name}.js": f"{HIGHLIGHT}/languages/{name}.min.js" for name in LANGUAGES},
}

EXPORTS = {"temml.js": "temml"}
"""The name that a script defines, for scripts that are not published minified as modules."""


def digest() -> str:
    """What the copies were made from."""
    made_from = (ROOT / "package-lock.json").read_bytes() + Path(__file__).read_bytes()
    return hashlib.sha256(made_from).hexdigest()


def are_current() -> bool:
    """Whether nothing is left to do."""
    stamp = TARGET / ".made-from"
    return stamp.is_file() and stamp.read_text() == digest()


def bring(venv: Venv) -> None:
    """Fetch and copy, unless that was done, and bundle; raises `SetupError`."""
    if not are_current():
        fetch(venv)
    bundling.build()


def fetch(venv: Venv) -> None:
    print("agentsite: downloading the JavaScript libraries (only once)", flush=True)
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as directory:
        fetched, log = Path(directory), CACHE / "libraries.log"
        try:
            npm.install(venv, ROOT, fetched, log)
        except SetupError as exc:
            raise SetupError(f"downloading the JavaScript libraries failed: {exc}") from exc
        bundling.keep_program(fetched / "node_modules")
        put_in_place(fetched / "node_modules", fetched / "vendor")


def put_in_place(modules: Path, draft: Path) -> None:
    """Never half: what is served changes with one renaming."""
    for name, source in SERVED.items():
        copy(modules / source, draft / name)
    (draft / ".made-from").write_text(digest())
    shutil.rmtree(TARGET, ignore_errors=True)
    draft.rename(TARGET)


def copy(source: Path, target: Path) -> None:
    """Without the name of a map, which is not served and stops `collectstatic`.

    `tsc` follows the page's imports into scripts, and is told that their types are not ours.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".woff2":
        shutil.copy(source, target)
        return
    lines = source.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith("//# sourceMappingURL=")]
    head = "// @ts-nocheck\n" if target.suffix == ".js" else ""
    exported = EXPORTS.get(target.name)
    tail = f"\nexport default {exported};\n" if exported else ""
    target.write_text(head + "".join(kept) + tail)


if __name__ == "__main__":
    try:
        bring(Venv(Path(sys.prefix)))
    except SetupError as exc:
        sys.exit(f"agentsite: {exc}")
