"""The shape that the design asks for, read from the sources."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import modules_doc
import pytest

from conversations.api.base import ApiView
from conversations.urls import urlpatterns as conversations_urls
from realtime.urls import urlpatterns as realtime_urls
from tests.support.processes import run_warm
from tests.support.site import ROOT, environment, run_python

FILES_A_FOLDER = 12

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


def test_every_view_of_the_api_is_one_of_ours():
    """What a project says of its other views holds for none of these."""
    views = {route.name: route.callback for route in (*conversations_urls, *realtime_urls)}
    kinds = {name: getattr(view, "cls", object) for name, view in views.items()}
    others = {name for name, kind in kinds.items() if not issubclass(kind, ApiView)}
    assert others == {"api-asyncapi", "api-typescript"}


def test_the_protocol_is_described_without_settings():
    """Clients of benchmarks hold frames to it."""
    code = "from realtime import wire_schema; print(wire_schema.asyncapi()['asyncapi'])"
    assert run_warm("-c", code, env=environment(), cwd=ROOT).startswith("3.")


def test_commands_do_not_pay_for_the_agents_sdk():
    code = "import django, sys; django.setup(); print('agents' in sys.modules)"
    env = environment(DEBUG="1", DJANGO_SETTINGS_MODULE="agentsite.settings")
    assert run_python("-c", code, env=env) == "False\n"


OWNERS = {
    "realtime/process.py": "chats in flight, which a drain waits for",
    "realtime/dbpool.py": "units of work, which the pool finishes before it closes",
    "realtime/work/executor.py": "claims, in a registry that a drain waits for",
    "realtime/channel_layer.py": "senders, in a task group of the publisher's own task",
    "realtime/work/run.py": "the stream of a run, which its task unwinds",
    "realtime/work/background.py": "attempts, in a task group of the sender's own task",
    "realtime/sockets/server.py": "the drain itself, which ends the server",
    "realtime/tasks.py": "the registry of tasks",
    "agentsite/health.py": "one look at a time, which the requests that ask for it wait for",
    "agentsite/local_model/supervisor.py": "the reader of a child, which ends with it",
}
"""Who may begin a task or shield one, and what that is."""


@pytest.mark.parametrize("package", ["agentsite", "realtime", "conversations"])
def test_every_task_has_an_owner(package):
    begin = {"create_task", "ensure_future", "shield"}
    found = {
        str(path)
        for path, tree in sources(package)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in begin
    }
    outside = ("agentsite/client/", "agentsite/terminal.py")
    assert {name for name in found if not name.startswith(outside)} <= OWNERS.keys()


def test_the_first_connection_does_not_pay_for_the_agents_sdk():
    code = "import sys, agentsite.asgi; print('realtime.work.run' in sys.modules)"
    env = environment(DEBUG="1", DJANGO_SETTINGS_MODULE="agentsite.settings")
    assert run_warm("-c", code, env=env, cwd=ROOT) == "True\n"


def test_no_translation_is_fixed_at_import():
    """`gettext` at import time translates into the language of the process, for all visitors."""
    wrong = [
        f"{path}:{call.lineno}"
        for package in ("conversations", "realtime", "agentsite")
        for path, tree in sources(package)
        for call in calls_at_import(tree)
        if isinstance(call.func, ast.Name) and call.func.id in eager_translators(tree)
    ]
    assert wrong == []


def eager_translators(tree: ast.Module) -> set[str]:
    """The names that a module gives to functions which translate at once."""
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "django.utils.translation"
        for alias in node.names
        if alias.name.endswith("gettext")
    }


def calls_at_import(node: ast.AST) -> Iterator[ast.Call]:
    """Every call outside the bodies of functions; defaults and decorators run at import."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield child
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            for expression in (*child.decorator_list, child.args):
                yield from calls_at_import(expression)
        elif not isinstance(child, ast.Lambda):
            yield from calls_at_import(child)


REVIEWERS = ("conversations/admin/", "conversations/review/", "conversations/templatetags/")


def test_the_record_knows_nothing_of_its_review():
    wrong = [
        f"{path} imports {name}"
        for path, tree in sources("conversations")
        for name in imported_names(tree)
        if name.startswith("conversations.review") and not str(path).startswith(REVIEWERS)
    ]
    assert wrong == []


def test_no_extra_is_known_to_the_apps():
    """The Python client, the terminal, the embedded model and benchmarks can be taken away."""
    extras = r"\b(benchmarks|agentsite\.(client|terminal|local_model))\b"
    texts = {path: (ROOT / path).read_text() for path in modules_doc.list_modules()}
    inside = {path: text for path, text in texts.items() if path.parts[0] != "agentsite"}
    assert [path for path, text in inside.items() if re.search(extras, text)] == []


def test_a_folder_is_seen_at_a_glance():
    folders = Counter(path.parent for path in modules_doc.list_modules())
    assert [folder for folder, files in folders.items() if files > FILES_A_FOLDER] == []


def test_a_module_name_means_one_thing():
    names: dict[str, set[str]] = {"conversations": set(), "realtime": set()}
    for path in modules_doc.list_modules():
        names.setdefault(path.parts[0], set()).add(path.name)
    both = names["conversations"] & names["realtime"]
    assert both <= {"__init__.py", "apps.py", "urls.py"}
