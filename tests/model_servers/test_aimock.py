"""Replies of a stand-in that others have made, which fails at random.

`PYTEST_CHAOS_REPLIES=500` asks for as many of them.
"""

import asyncio
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import npm
import pytest
from agents import Agent
from django.contrib.auth.models import User
from venvs import Venv

from conversations.models import Message, Run
from realtime.process import Process
from realtime.work import run_errors
from tests.model_servers.test_cases import clock
from tests.support.agent_site import Serve
from tests.support.client import ChatClient
from tests.support.inprocess import open_chat_here
from tests.support.processes import Child, answers, free_port
from tests.support.transcript import is_terminal

REPLIES = int(os.environ.get("PYTEST_CHAOS_REPLIES", "60"))
AT_ONCE = 8

WHOLE = "Rivers carry sediment to the sea, and the sea gives it back to the shore."
NOON = "It is noon on the clock of the harbour, and the ferry leaves in an hour."
FAULTS = ("drop", "malformed", "disconnect", "ratelimit")
RATE = 0.12

TYPED = {"provider_unavailable", "provider_cut", "provider_rate_limited"}


def fixture(match: dict[str, Any], response: dict[str, Any], **options: int) -> dict[str, Any]:
    return {"match": match, "response": response, "chunkSize": 4} | options


FIXTURES = [
    fixture({"userMessage": "clock", "hasToolResult": True}, {"content": NOON}),
    fixture(
        {"userMessage": "clock"},
        {"toolCalls": [{"name": "clock", "arguments": "{}"}], "reasoning": "A clock."},
    ),
    fixture({"userMessage": "cut"}, {"content": WHOLE}, truncateAfterChunks=6),
    fixture({"userMessage": "lost"}, {"content": WHOLE}, disconnectAfterMs=8, latency=2),
    fixture({"userMessage": "think"}, {"content": WHOLE, "reasoning": "Of rivers."}),
    fixture({"userMessage": "river"}, {"content": WHOLE}),
]
PROMPTS = ("river", "clock", "cut", "think", "river", "lost", "clock", "river")


@pytest.fixture(scope="module")
def aimock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the stand-in."""
    home = os.environ.get("AGENTSITE_AIMOCK") or pytest.skip("no aimock; `make test` brings it")
    folder, port = tmp_path_factory.mktemp("aimock"), free_port()
    (folder / "fixtures.json").write_text(json.dumps({"fixtures": FIXTURES}))
    program = Path(home) / "node_modules/@copilotkit/aimock/dist/cli.js"
    faults = [word for fault in FAULTS for word in (f"--chaos-{fault}", str(RATE))]
    options = ["--port", str(port), "--fixtures", str(folder / "fixtures.json"), *faults]
    node = npm.node_of(Venv(Path(sys.prefix)))
    child = Child([str(node), str(program), *options], folder / "aimock.log")
    child.start(lambda: answers(f"http://127.0.0.1:{port}/health"))
    yield f"http://127.0.0.1:{port}/v1"
    child.kill()


@pytest.fixture
def site(settings: Any, serve_agents: Serve, monkeypatch: pytest.MonkeyPatch, aimock: str) -> None:
    """A site that asks it."""
    monkeypatch.setattr(run_errors, "FIRST_PAUSE_S", 0)
    limits = {"titles": "words", "frames_per_minute": 100_000, "runs_per_user": 100}
    settings.REALTIME = {**settings.REALTIME, **limits, "source_window_ms": 1, "tokens_per_day": 0}
    settings.OPENAI_BASE_URL, settings.AGENT_MODEL = aimock, "gpt-4o"
    serve_agents(Agent(name="desk", tools=[clock]))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_each_reply_ends_once_and_whole_or_with_its_error(
    api: str,
    settings: Any,
    process: Process,
    site: None,
    ada: User,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings.AGENT_API = api
    asked = [PROMPTS[number % len(PROMPTS)] for number in range(REPLIES // 2)]
    ends: Counter[str] = Counter()
    with caplog.at_level(logging.WARNING):
        for start in range(0, len(asked), AT_ONCE):
            words = asked[start : start + AT_ONCE]
            async with open_chat_here(ada) as client:
                ends.update(await asyncio.gather(*(have_reply(client, word) for word in words)))
            assert sum(map(is_terminal, client.frames)) == len(words)
    assert ends.keys() <= {"complete", *TYPED}, ends
    assert await Run.objects.filter(status__in=["completed", "failed"]).acount() == len(asked)
    assert not [record for record in caplog.records if "Traceback" in record.getMessage()]
    assert "internal" not in caplog.text
    print(api, dict(ends))  # noqa: T201  (for those who ask for many)


async def have_reply(client: ChatClient, word: str) -> str:
    """One message in a conversation of its own; how its reply ends."""
    accepted = await client.chat(word)
    end = await client.wait_end(accepted["run_id"])
    shown = client.transcript.text(accepted["run_id"])
    kept = await Message.objects.aget(role="assistant", run=accepted["run_id"])
    assert kept.text == shown
    whole = NOON if word == "clock" else WHOLE
    if end["type"] == "complete":
        assert shown == whole
        return "complete"
    assert whole.startswith(shown)
    code: str = end["metadata"]["code"]
    return code
