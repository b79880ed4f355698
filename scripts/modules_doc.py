"""Builds the maps of modules in docs/, from docstrings and imports."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("conversations", "realtime", "agentsite")


def packages() -> str:
    """Return a table of folders: their modules, and the folders that they import from."""
    rows = [
        f"| `{folder}/` | {_names(paths)} | {_imports(folder, paths)} |"
        for folder, paths in _folders().items()
    ]
    return "\n".join(["| folder | modules | imports |", "| --- | --- | --- |", *rows])


def modules() -> str:
    """Return a table for each folder, with the first paragraph of each module's docstring."""
    return "\n\n".join(_table(folder, paths) for folder, paths in _folders().items())


def list_modules() -> list[Path]:
    """Return the Python files of the three packages, without migrations, relative to ROOT."""
    found = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return [path.relative_to(ROOT) for path in found if "migrations" not in path.parts]


def imported_modules(path: Path) -> set[Path]:
    """Return the files of the three packages that a file imports at its top, relative to ROOT.

    Imports under `TYPE_CHECKING` are left out.
    """
    found = set()
    for node in _top_statements(ast.parse((ROOT / path).read_text()).body):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {file for name in names if (file := _file_of(name) or _file_of(node.module))}
    return found - {path}


def _top_statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If) and getattr(node.test, "id", "") != "TYPE_CHECKING":
            yield from _top_statements(node.body)
        else:
            yield node


def _file_of(module: str) -> Path | None:
    if module.partition(".")[0] not in PACKAGES:
        return None
    path = Path(*module.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if (ROOT / file).is_file()), None)


def _folders() -> dict[Path, list[Path]]:
    folders: dict[Path, list[Path]] = {}
    for path in list_modules():
        folders.setdefault(path.parent, []).append(path)
    return folders


def _names(paths: list[Path]) -> str:
    return ", ".join(path.stem for path in paths if path.stem != "__init__")


def _imports(folder: Path, paths: list[Path]) -> str:
    others = {file.parent for path in paths for file in imported_modules(path)} - {folder}
    return ", ".join(f"`{other}/`" for other in sorted(others))


def _table(folder: Path, paths: list[Path]) -> str:
    rows = [f"| `{path.name}` | {_summary(path)} |" for path in paths if _summary(path)]
    return "\n".join([f"| `{folder}/` | |", "| --- | --- |", *rows])


def _summary(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse((ROOT / path).read_text())) or ""
    return " ".join(docstring.partition("\n\n")[0].split())
