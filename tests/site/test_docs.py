"""What the documents say is what the code does."""

import ast
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard, get_args

import pytest
import reference
from django.apps import apps
from django.conf import global_settings
from django.contrib.auth.models import User
from django.core.management import get_commands
from rest_framework_simplejwt.tokens import AccessToken

import agentsite.settings
from agentsite.settings import PREFIX, Environment
from conversations import apps as apps_module
from conversations.errors import ERRORS
from realtime import process as process_module
from realtime import protocol
from realtime.conf import RealtimeSettings, socket_path
from realtime.process import Process
from realtime.sockets import server
from tests.support.addresses import routes
from tests.support.agent_site import Serve
from tests.support.conformance import check_frame
from tests.support.machine import scaled
from tests.support.site import ROOT, run_site
from tests.support.transcript import BaseClient
from tests.support.waiting import TIMEOUT_S

PAGES = [path for glob in ("*.md", "docs/**/*.md", "benchmarks/*.md") for path in ROOT.glob(glob)]
FOLDERS = "agentsite|benchmarks|conversations|deploy|docs|realtime|scripts|static|templates|tests"
EXAMPLE = [path.read_text() for path in ROOT.glob("tests/another_project/**/*.py")]
CONF = RealtimeSettings()
TOKEN_MINUTES = AccessToken.lifetime.total_seconds() / 60
KIB = 1024


def read(page: str) -> str:
    return (ROOT / page).read_text()


def code_in(page: str, language: str) -> str:
    """The first block of code of a page in one language."""
    block = re.search(rf"```{language}\n(.*?)```", read(page), re.DOTALL)
    assert block, f"{page} has no {language}"
    return block[1]


def blocks_in(page: str) -> list[str]:
    """All blocks of Python of a page."""
    return re.findall(r"^```python\n(.*?)^```", read(page), re.DOTALL | re.MULTILINE)


@pytest.fixture(params=PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


class TestReferences:
    def test_what_is_made_from_the_code_is_up_to_date(self) -> None:
        assert reference.outdated() == [], "run: python scripts/reference.py"

    def test_every_frame_and_event(self) -> None:
        kinds = [
            *protocol.CLIENT_FRAMES,
            *protocol.SERVER_FRAMES,
            *get_args(protocol.StatusMetadata),
        ]
        schemas = [kind.model_json_schema()["properties"] for kind in kinds]
        names = {(schema.get("event") or schema["type"])["const"] for schema in schemas}
        assert names <= set(re.findall(r"`([\w.]+)`", read("docs/protocol.md")))

    def test_every_close_code(self) -> None:
        known = {value for name, value in vars(protocol).items() if name.startswith("CLOSE_")}
        told = re.findall(r"^\| (4\d{3}) \|", read("docs/protocol.md"), re.MULTILINE)
        assert set(map(int, told)) == known

    def test_every_error_code(self) -> None:
        told = re.findall(r"^\| `(\w+)` \| (\d+) \|", read("docs/protocol.md"), re.MULTILINE)
        assert told == [(code.value, str(info.http_status)) for code, info in ERRORS.items()]

    def test_every_setting(self) -> None:
        told = re.findall(r"^\| `([A-Z_]+)` \|", read("docs/operations.md"), re.MULTILINE)
        assert sorted(told) == sorted(name.upper() for name in Environment.model_fields)


class TestNames:
    """What a page names is there."""

    def test_links(self, page: Path) -> None:
        text = page.read_text()
        pictures = re.findall(r'(?:src|srcset)="([^"]+)"', text)
        for link in [*pictures, *re.findall(r"\]\(([^)\s]+)\)", text)]:
            if link.startswith("https://"):
                continue
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors_of(target), link

    def test_files(self, page: Path) -> None:
        named = re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", page.read_text())
        assert [name for name in named if not (ROOT / name).exists()] == []

    def test_functions(self, page: Path) -> None:
        linked = re.findall(r"\[`([\w.]+)`\]\(([\w./]+\.py)\)", page.read_text())
        wrong = [
            (name, file) for name, file in linked if name not in defined_in(page.parent / file)
        ]
        assert wrong == []

    def test_tests(self, page: Path) -> None:
        for name, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text()):
            assert re.search(rf"def {test}\b", read(name)), f"{name}::{test}"

    def test_settings(self, page: Path) -> None:
        known = {name.upper() for name in Environment.model_fields}
        if page.name == "embedding.md":
            known |= {*dir(global_settings), *dir(agentsite.settings)}
            known |= set(re.findall(r"[A-Z]+_[A-Z_]+", "".join(EXAMPLE)))
        if page.name == "models.md":
            known |= {"OLLAMA_CONTEXT_LENGTH"}  # A setting of that server.
        named = re.findall(r"`([A-Z]+_[A-Z_]+)(?:=[^`]*)?`", page.read_text())
        assert {name.removeprefix(PREFIX) for name in named} - {""} <= known

    def test_commands(self, page: Path) -> None:
        text = page.read_text()
        targets = re.findall(r"^(\w[\w ]*):", read("Makefile"), re.MULTILINE)
        named = set(re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE))
        assert named <= set(" ".join(targets).split())
        assert set(re.findall(r"manage\.py (\w+)", text)) <= set(get_commands())

    def test_nobodys_machine(self, page: Path) -> None:
        assert not re.search(r"(^|[\s`(])/(work|tmp|root|home)/|issue #?\d", page.read_text())


def is_function(node: ast.AST) -> TypeGuard[ast.FunctionDef | ast.AsyncFunctionDef]:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


@cache
def defined_in(path: Path) -> set[str]:
    """The functions and classes of a file, methods as `Class.method`."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = [
                m for m in node.body if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
            found |= {f"{node.name}.{method.name}" for method in methods}
    return found


def anchors_of(page: Path) -> set[str]:
    """What a link may name on a page, as viewers of Markdown make it from the headings."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("README.md", f"nobody watches for {CONF.disconnect_grace_s / 60:.0f} minutes"),
        ("docs/protocol.md", f"good for {TOKEN_MINUTES:.0f} minutes"),
        ("docs/protocol.md", f"above {server.MAX_MESSAGE_BYTES // KIB} KiB is not answered"),
        ("docs/protocol.md", f"`{protocol.SUBPROTOCOL}`"),
        ("docs/protocol.md", f"Version {protocol.VERSION}."),
        ("docs/security.md", f"above {CONF.frame_max_bytes // KIB} KiB gets an error"),
        ("docs/security.md", f"Above {CONF.frames_per_minute} frames a minute"),
        ("docs/security.md", f"{CONF.outbox_frames} frames, {CONF.outbox_bytes // KIB**2} MiB"),
        ("docs/security.md", f"takes nothing for {CONF.send_timeout_s:.0f} s"),
        ("docs/security.md", f"holds {CONF.queue_max} messages that wait"),
        ("docs/security.md", f"follows {CONF.follow_max} sessions"),
        ("docs/architecture.md", f"| flusher | {CONF.flush_interval_ms:.0f} ms"),
        ("docs/architecture.md", f"| poller | {CONF.head_interval_s:.0f} s"),
        ("docs/architecture.md", f"| sweeper | {CONF.sweep_s:.0f} s"),
        ("docs/architecture.md", f"a pause of up to {CONF.head_interval_s:.0f} s"),
        ("docs/architecture.md", f"for about {CONF.disconnect_grace_s:.0f} s"),
        ("docs/architecture.md", f"{process_module.DRAIN_S} s for replies to end"),
        ("docs/operations.md", f"for workers {process_module.WORKER_DRAIN_S} s by default"),
        ("docs/architecture.md", f"{CONF.buffer_s:.0f} s or {CONF.buffer_bytes // KIB**2} MiB"),
    ],
)
def test_figures_are_those_of_the_settings(name: str, phrase: str) -> None:
    assert phrase in " ".join(read(name).split())


def test_lines_of_the_log() -> None:
    paths = [*ROOT.glob("realtime/**/*.py"), *ROOT.glob("conversations/**/*.py")]
    sources = "".join(path.read_text() for path in paths)
    lines = re.findall(r"^\| `(\w[^`]*<[^`]+)` \|", read("docs/operations.md"), re.MULTILINE)
    pieces = [piece for line in lines for piece in re.split(r"<\w+>|provider_\.\.\.", line)]
    assert len(lines) >= 5
    assert [piece for piece in pieces if piece not in sources] == []


def test_the_example_of_the_protocol() -> None:
    base = BaseClient()
    for line in code_in("docs/protocol.md", "text").splitlines():
        if line.startswith("> "):
            protocol.parse_client_frame(line[2:])
        elif line:
            frame = json.loads(line.removeprefix("< "))
            check_frame(frame)
            base.apply(frame)
    assert base.replies == ["Herons stand still for hours."]


def test_the_addresses_of_the_rest_api() -> None:
    told = re.findall(r"`[A-Z]+ (/api/[^`?\s]+)", read("docs/protocol.md"))
    there = {re.sub(r"<\w+:(session_)?", "<", route.address) for route in routes("/api/")}
    assert set(told) == there


def test_the_permissions_of_staff() -> None:
    known = {
        f"conversations.{name}"
        for model in apps.get_app_config("conversations").get_models()
        for name in (
            *(f"{action}_{model._meta.model_name}" for action in model._meta.default_permissions),
            *(name for name, _ in model._meta.permissions),
        )
    }
    named = re.findall(r"`(conversations\.[a-z_]+)`", read("docs/review.md"))
    assert len(named) == 7
    assert set(named) <= known


def test_the_client_of_the_readme() -> None:
    with run_site() as site:
        ann = site.users["ann"]
        code = code_in("README.md", "python").replace("127.0.0.1:8000", f"127.0.0.1:{site.port}")
        done = subprocess.run(
            [sys.executable, "-c", code, ann.username, ann.password, "use a tool"],
            check=True,
            capture_output=True,
            text=True,
            timeout=scaled(TIMEOUT_S),
        )
    assert done.stdout.startswith("Scripted, not an AI.")
    assert done.stdout.endswith("shown above.")


class TestEmbeddingPage:
    def test_its_code_is_of_the_project(self) -> None:
        blocks = blocks_in("docs/embedding.md")
        assert len(blocks) >= 5
        assert [block for block in blocks if not any(block in text for text in EXAMPLE)] == []

    def test_its_defaults(self, settings: Any) -> None:
        defaults = {
            "API_REQUESTS_PER_MINUTE": apps_module.requests_per_minute,
            "PROXIES": apps_module.proxies,
            "RESTORE_DAYS": apps_module.restore_days,
            "RETENTION_DAYS": apps_module.retention_days,
            "SOCKET_PATH": socket_path,
        }
        settings.SOCKET_PATH = ""
        for name, read_setting in defaults.items():
            delattr(settings, name)
            assert f"| `{name}` | `{read_setting()!r}` |" in read("docs/embedding.md")

    def test_what_the_apps_do_without(self) -> None:
        (listed,) = re.findall(r"need everything but (.*?);", read("docs/embedding.md"), re.DOTALL)
        names = "|".join(re.findall(r"`(?:django-)?([\w-]+)`", listed)).replace("-", "_")
        imports = re.compile(rf"^\s*(?:import|from) (?:{names})\b", re.MULTILINE)
        sources = [*ROOT.glob("conversations/**/*.py"), *ROOT.glob("realtime/**/*.py")]
        assert [path for path in sources if imports.search(path.read_text())] == []


def code_of_agents() -> dict[str, Any]:
    """All Python of docs/agents.md, as one module."""
    module = ModuleType("agents_of_the_page")
    for block in blocks_in("docs/agents.md"):
        exec(compile(block, "docs/agents.md", "exec"), module.__dict__)
    return module.__dict__


class TestAgentsPage:
    def test_the_list_is_one(self, settings: Any) -> None:
        (entry,) = code_of_agents()["AGENTS"]
        assert (entry.name, entry.starters) == ("librarian", ["Is there anything about herons?"])

    @pytest.mark.parametrize(
        "name", re.findall(r"^async def (test_\w+)", read("docs/agents.md"), re.MULTILINE)
    )
    async def test_its_tests(
        self, name: str, process: Process, serve_agents: Serve, ada: User
    ) -> None:
        await code_of_agents()[name](process, serve_agents, ada)
