"""`manage.py local_model`, and what the terminal shows."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from agentsite.local_model import supervisor, weights
from agentsite.local_model.supervisor import Terminal
from agentsite.local_model.weights import Fault
from tests.support.weights_source import WeightsSource, run_weights_source

CONTENT = b"GGUF" * 50_000


@pytest.fixture
def source(settings: Any, tmp_path: Path) -> Iterator[WeightsSource]:
    with run_weights_source(CONTENT, 2 * len(CONTENT)) as running:
        settings.LOCAL_MODEL_WEIGHTS = running.weights()
        settings.LOCAL_MODEL_CACHE = tmp_path / "cache"
        settings.LOCAL_MODEL_MIRROR = False
        yield running


def said(action: str) -> str:
    out = io.StringIO()
    call_command("local_model", action, stdout=out)
    return out.getvalue()


@pytest.mark.usefixtures("source")
def test_fetched_and_removed(settings: Any) -> None:
    assert "not downloaded" in said("status")
    assert "agentsite: model file: " in said("fetch")
    assert "gguf: present\n" in said("status")
    assert said("remove").startswith("agentsite: deleted")
    assert said("remove") == "agentsite: nothing to delete\n"
    assert not list(settings.LOCAL_MODEL_CACHE.glob("*.gguf"))


def test_a_fetch_that_fails_is_one_line(source: WeightsSource) -> None:
    source.has_official = False
    with pytest.raises(CommandError, match="the mirror is switched off"):
        said("fetch")


def test_the_status_says_what_answers(source: WeightsSource) -> None:
    assert "no: answers come from tour" in said("status")
    assert "MB needed" in said("status")


def test_a_file_of_ones_own_stays(settings: Any, tmp_path: Path) -> None:
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(CONTENT)
    settings.LOCAL_MODEL_WEIGHTS = weights.of_file(mine)
    with pytest.raises(CommandError, match="your own"):
        said("remove")
    assert said("fetch") == f"agentsite: model file: {mine}\n"
    assert mine.exists()


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("kind", [io.StringIO, Screen])
def test_the_terminal(kind: type[io.StringIO]) -> None:
    out = kind()
    terminal = Terminal(weights.QWEN, out)
    for done in range(0, weights.QWEN.size, 100_000):
        terminal.tell(supervisor.fetching(weights.QWEN, done))
    terminal.tell(supervisor.loading(weights.QWEN))
    terminal.tell(supervisor.ready(weights.QWEN))
    terminal.tell(supervisor.failed(weights.QWEN, Fault.NO_ROOM, {"needed": 9e9, "free": 10**9}))
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("agentsite: fetching Qwen2.5-Coder 1.5B Instruct, 1.1 GB")
    assert "agentsite: loading the model" in lines
    assert any("makes mistakes" in line for line in lines)
    assert "AGENT_MODEL=tour" in lines[-1]
    if kind is Screen:
        assert "[###############...............]  50%  559 of 1,117 MB" in out.getvalue()
    else:
        assert len(lines) < 20


def test_every_fault_has_its_line() -> None:
    assert set(supervisor.FAULTS) == set(Fault)
    assert "9000 MB are needed, 1000 MB are free" in supervisor.describe_fault(
        Fault.NO_ROOM, {"needed": 9 * 10**9, "free": 10**9}
    )
