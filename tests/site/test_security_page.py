"""Every rule of docs/security.md has a number, and tests that are there."""

import ast
import re
from functools import cache

import pytest

from agentsite.settings import Environment
from tests.support.site import ROOT

STATEMENTS = 34
"""So many are promised; the rows after them are what holds beside them."""

PAGE = (ROOT / "docs/security.md").read_text()
ROWS = re.findall(r"^\| (\d+) \| (.+) \| (.+) \| (.*) ?\| (.+) \|$", PAGE, re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")


@cache
def list_tests(path: str) -> set[str]:
    """The tests of a file, those of a class as `TestClass::test`."""
    found = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found |= {
            f"{prefix}{test.name}"
            for test in inner
            if isinstance(test, ast.FunctionDef | ast.AsyncFunctionDef)
            and test.name.startswith("test_")
        }
    return found


def test_every_statement_has_a_row() -> None:
    numbers = [int(number) for number, *_ in ROWS]
    assert numbers == list(range(1, len(ROWS) + 1))
    assert len(numbers) > STATEMENTS
    assert len(ROWS) == len(re.findall(r"^\| \d", PAGE, re.MULTILINE))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_names_tests_that_are_there(row: tuple[str, ...]) -> None:
    named = TEST.findall(row[4])
    assert named
    assert TEST.sub("", row[4]).strip(" ,") == ""
    assert [f"{path}::{test}" for path, test in named if test not in list_tests(path)] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_names_settings_that_are_there(row: tuple[str, ...]) -> None:
    names = re.findall(r"`(\w+)`", row[3])
    assert re.sub(r"`\w+`", "", row[3]).strip(" ,") == ""
    assert set(names) <= {name.upper() for name in Environment.model_fields}
