"""The page's code without a browser: Node's own test runner, and the checks of `make check`."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import npm
import page_checks
import pytest
from venvs import Venv

from agentsite.web import view_models
from agentsite.web.view_models import get_label, read_pairs
from conversations.models import RunStatus
from conversations.runs.usage import RunUsage
from conversations.sessions.rendering import render_markdown
from conversations.text import is_blank
from tests.browser.corpus import PLAIN
from tests.browser.hostile import REPLIES
from tests.support.machine import scaled
from tests.support.site import ROOT

TESTS = ROOT / "tests" / "javascript"
VENV = Venv(Path(sys.prefix))
SEARCH: dict[str, Any] = {"type": "tool", "tool_call_id": "c", "name": "web_search"}
STEPS = [
    SEARCH | {"status": "started"},
    SEARCH | {"status": "progress", "progress": "half"},
    SEARCH | {"status": "finished", "summary": "Searched 3 sessions", "duration_ms": 49},
    SEARCH | {"status": "finished", "summary": "Searched 3 sessions", "duration_ms": 50},
    *(SEARCH | {"status": "finished", "duration_ms": ms} for ms in (1249, 1250, 1350, 1450)),
    SEARCH | {"status": "failed", "summary": "no", "duration_ms": 90_000},
    SEARCH | {"status": "from_a_newer_server"},
]
PEOPLE = ("ann", "ben")
DECISIONS = [
    *({"decision": decision, "by": by} for decision in ("approve", "reject") for by in PEOPLE),
    *(
        {"decision": decision, "by": by}
        for decision in ("", "expired", "cancelled", "from_a_newer_server")
        for by in ("", *PEOPLE)
    ),
]
BLANKS = ["", " \t\n", "\u200b", "\u2060\ufeff", "\u3164 \u3164", "\u2800", "\u00ad", "\ufe0f"]
SEEN = ["a", "\u200ba", ".", "\u3164x", "\U0001f469\u200d\U0001f4bb", "\u2764\ufe0f", "\u0301"]
ENDINGS = [
    {"run_status": status, "reason": reason, "error_code": code}
    for status in RunStatus.values
    for reason in ("", "user", "redirect", "limit", "worker_lost", "approval_expired")
    for code in ("", "provider_timeout", "from_a_newer_server")
]


SPENT = [
    RunUsage(10, 3, cost, "USD")
    for cost in (None, Decimal("0.000000"), Decimal("0.001200"), Decimal("10.000000"))
]


def read_frame(spent):
    """The usage as the terminal frame of its run has it."""
    cost = None if spent.cost is None else f"{spent.cost:f}"
    total = spent.input_tokens + spent.output_tokens
    return dataclasses.asdict(spent) | {"total_tokens": total, "cost": cost}


OBJECTS = (
    *("", "null", "7", "[1]", '"a"', "{", "{}", '{"a": "b", "c": 1, "d": true, "e": false}'),
    *('{"a": null}', '{"a": 1.5}', '{"a": [1]}', '{"a": {}}', '{"2": "a", "1": "b"}'),
    *('{"a": 9007199254740991}', '{"a": 9007199254740992}', '{"a": "1", "b": "2", "a": "3"}'),
    *('{"a": "\\u05e9\\n<b>"}', '{"__proto__": "a"}', '{"": ""}', '{"a": NaN}', '{"a": 1.0}'),
)
NOW = datetime.fromisoformat("2026-03-30T00:30:00")
MOMENTS = (
    *("2026-03-31", "2026-03-30", "2026-03-29", "2026-03-28", "2026-03-23", "2026-03-22"),
    *("2026-02-28", "2025-12-31"),
)


def group_of(day, pinned):
    moment = datetime.fromisoformat(f"{day}T23:30:00")
    return view_models.describe_group(moment, NOW, pinned)


def label_cases():
    """What the server says, as `[kind, given, text]`."""
    cases: list[list[Any]] = [["step", part, view_models.describe_step(part)] for part in STEPS]
    for given in DECISIONS:
        text = view_models.describe_decision(given["decision"], given["by"], "ann")
        cases.append(["decision", given, text])
    for given in ENDINGS:
        ending = view_models.describe_ending(
            given["run_status"], given["reason"], given["error_code"]
        )
        cases.append(["ending", given, str(ending)])
    cases += [["blank", text, is_blank(text)] for text in BLANKS + SEEN]
    cases += [["usage", read_frame(one), view_models.describe_usage(one)] for one in SPENT]
    cases += [["pairs", text, [list(pair) for pair in read_pairs(text)]] for text in OBJECTS]
    cases += [
        ["group", {"moment": f"{moment}T23:30:00", "pinned": pinned}, group_of(moment, pinned)]
        for moment in MOMENTS
        for pinned in (False, True)
    ]
    cases += [["agent", name, get_label(name)] for name in ("tour", "a", "ÄGENT")]
    cases.append(
        ["place", {"place": 1, "count": 3}, str(view_models.VERSION).format(index=2, count=3)]
    )
    return cases


def read_texts(texts):
    """The same with all texts translated."""
    if isinstance(texts, dict):
        return {str(name): read_texts(text) for name, text in texts.items()}
    return str(texts)


def node(*arguments, cwd=ROOT, **environ):
    """What Node says to that."""
    return subprocess.run(
        [str(npm.node_of(VENV)), *arguments],
        cwd=cwd,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=scaled(300),
    )


def test_the_page_sends_no_blank_message_either():
    assert [is_blank(text) for text in BLANKS + SEEN] == [True] * len(BLANKS) + [False] * len(SEEN)


def test_the_modules_without_a_page(tmp_path):
    given = tmp_path / "labels.json"
    data = {
        "username": "ann",
        "notable_ms": view_models.NOTABLE_MS,
        "agent": {"label": "Tour"},
        "language": "en",
    }
    given.write_text(
        json.dumps({"data": data, "words": read_texts(view_models.SCRIPT), "cases": label_cases()})
    )
    files = sorted(str(path) for path in TESTS.glob("*.test.js") if path.stem != "markdown.test")
    done = node("--test", "--test-reporter=dot", *files, AGENTSITE_LABELS=str(given))
    assert done.returncode == 0, done.stdout + done.stderr


MARKDOWN = str(TESTS / "markdown.test.js")
READ_SPEC = "console.log(JSON.stringify(require(process.argv[1]).tests))"


MIXED = int(os.environ.get("AGENTSITE_MIXED", "200"))
"""Texts of random pieces; more of them take minutes."""
LINES = [
    line
    for text in (*PLAIN.values(), *REPLIES)
    if len(text) < 3_000
    for line in text.split("\n")
    if len(line) < 200
]
MARKS = (
    *("\n", "\n\n", "\n  ", "\n    ", "\n> ", "\n- ", "\n1. ", "\n```\n", "\n$$\n", "\n\\[\n"),
    *("$", "$$", "\\(", "\\)", "\\[", "\\]", "`", "**", "[", "](", "https://", "www.", "@", "|"),
    *("[^1]", "[^1]: ", "> [!NOTE]\n", "<br>", "- [x] ", "\U0001f600", "\t", "\r", "\\"),
)


def mix(random):
    """A text of pieces of others, cut anywhere, and of marks."""
    return "".join(
        random.choice(LINES)[: random.choice((5, 20, 80))]
        if random.random() < 0.5
        else random.choice(MARKS)
        for _ in range(random.randint(3, 25))
    )


def markdown_cases(tools):
    """Texts with the server's HTML: ours, and the examples of the specification of CommonMark."""
    texts = {**PLAIN, **{f"hostile {number}": text for number, text in enumerate(REPLIES)}}
    examples = json.loads(node("-e", READ_SPEC, str(tools / "commonmark-spec")).stdout)
    assert len(examples) == 652
    for example in examples:
        texts[f"example {example['number']}"] = example["markdown"].replace("→", "\t")
    texts |= {f"mix {number}": mix(Random(number)) for number in range(MIXED)}
    return [
        {"name": name, "text": text, "html": str(render_markdown(text))}
        for name, text in texts.items()
    ]


def test_the_page_and_the_server_render_the_same(tools, tmp_path):
    given = tmp_path / "markdown.json"
    given.write_text(json.dumps(markdown_cases(tools)))
    dom = str(tools / "linkedom" / "esm" / "index.js")
    done = node(
        "--test",
        "--test-reporter=dot",
        MARKDOWN,
        AGENTSITE_MARKDOWN=str(given),
        AGENTSITE_DOM=dom,
    )
    assert done.returncode == 0, done.stdout + done.stderr


PAGE_TYPES = str(page_checks.SOURCES / "page.d.ts")
BROKEN = """
import { RunCursor } from "ROOT/static/chat/conversation/run_cursor.js";
new RunCursor(null).end(1);
"""


@pytest.fixture
def tools():
    if not page_checks.are_there():
        pytest.skip("the tools are not here; `make test` brings them")
    return page_checks.HOME / "node_modules"


def test_a_wrong_type_is_found(tools, tmp_path):
    page_checks.write_protocol(VENV)
    broken = tmp_path / "broken.js"
    broken.write_text(BROKEN.replace("ROOT", str(ROOT)))
    project = {"extends": str(ROOT / "tsconfig.json"), "include": [str(broken), PAGE_TYPES]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(project))
    done = node(str(tools / page_checks.TYPES[0]), "--project", str(tmp_path))
    assert done.returncode != 0
    assert "is not assignable to parameter of type 'string'" in done.stdout, done.stdout


def test_a_fault_of_style_is_found(tools, tmp_path):
    biome, *arguments = page_checks.LINT
    shutil.copy(ROOT / "biome.json", tmp_path)
    broken = tmp_path / "static" / "chat" / "broken.js"
    broken.parent.mkdir(parents=True)
    broken.write_text("export function compare(a) {\n  debugger;\n  return a;\n}\n")
    done = node(str(tools / biome), *arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert "noDebugger" in done.stderr + done.stdout
