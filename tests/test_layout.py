"""The shape that the design asks for, read from the sources."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.site import ROOT, environment, run_python

FORBIDDEN = {
    "conversations": {"realtime", "agentsite"},
    "realtime": {"agentsite"},
}


def sources(package: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        yield path.relative_to(ROOT), ast.parse(path.read_text())


def imported_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports say where they go"
            yield node.module or ""


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_run_one_way(package):
    wrong = [
        f"{path} imports {name}"
        for path, tree in sources(package)
        for name in imported_names(tree)
        if name.split(".")[0] in FORBIDDEN[package]
    ]
    assert wrong == []


@pytest.mark.parametrize("package", ["agentsite", "realtime"])
def test_rows_are_reached_only_through_conversations(package):
    wrong = [
        f"{path}:{node.lineno}"
        for path, tree in sources(package)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "objects"
    ]
    assert wrong == []


def test_commands_do_not_pay_for_the_agents_sdk():
    code = "import django, sys; django.setup(); print('agents' in sys.modules)"
    env = environment(DEBUG="1", DJANGO_SETTINGS_MODULE="agentsite.settings")
    assert run_python("-c", code, env=env) == "False\n"
