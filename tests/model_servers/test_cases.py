"""Whatever model server stands behind it, a reply ends as it should: one file for each case."""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from agents import Agent, Tool, ToolOutputImage, function_tool
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from pydantic import BaseModel

from conversations.models import ChatSession, Message, Run
from conversations.sessions.rendering import render_texts
from conversations.sessions.search import find_entries
from realtime.process import Process
from realtime.providers import event_stream
from realtime.work import run_errors
from tests.model_servers.case import FOLDER, Case, RawServer, read_cases, run_raw_server
from tests.support.agent_site import Serve
from tests.support.client import ChatClient, event
from tests.support.inprocess import open_chat_here
from tests.support.machine import scaled
from tests.support.site import ROOT
from tests.support.transcript import is_terminal

CASES = read_cases()


class Book(BaseModel):
    title: str
    year: int


@function_tool
async def clock() -> str:
    """Tell the time."""
    return "It is noon."


@function_tool
async def echo(text: str) -> str:
    """Say it again."""
    return f"echo: {text}"


@function_tool
async def photo() -> ToolOutputImage:
    """Take a picture."""
    return ToolOutputImage(image_url="data:image/png;base64," + "iVBORw0KGgo" * 400)


@function_tool
async def board() -> list[dict[str, str]]:
    """Read a notice, in the parts that tool servers return."""
    return [{"type": "text", "text": "Closed"}, {"type": "text", "text": "on Monday"}]


@function_tool
async def broken() -> str:
    """Fails."""
    raise ValueError("stuck")


@function_tool
async def catalogue() -> Book:
    """Find a book."""
    return Book(title="Herons", year=1987)


def make_agent(name: str) -> Agent[Any]:
    """The agent of a case."""
    tools: list[Tool] = [clock, echo, catalogue, photo, board, broken]
    if name == "direct":
        return Agent(name=name, tools=tools, tool_use_behavior="stop_on_first_tool")
    if name == "shaped":
        return Agent(name=name, output_type=Book)
    if name == "team":
        return Agent(name=name, tools=tools, handoffs=[Agent(name="writer")])
    return Agent(name=name, tools=tools)


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
def server(
    case: Case, settings: Any, serve_agents: Serve, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RawServer]:
    """The case's server, and a site that asks it."""
    monkeypatch.setattr(run_errors, "FIRST_PAUSE_S", 0)
    monkeypatch.setattr(event_stream, "GRACE_S", scaled(0.5))
    titles = "model" if case.title else "words"
    settings.REALTIME = {**settings.REALTIME, "titles": titles, "source_window_ms": 1}
    settings.AGENT_MODEL, settings.AGENT_API = "odd", case.api
    serve_agents(make_agent(case.agent))
    with run_raw_server(case) as running:
        settings.OPENAI_BASE_URL = running.base_url
        yield running


async def test_a_reply_ends_as_it_should(
    case: Case, server: RawServer, process: Process, ada: User, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with open_chat_here(ada) as client:
            session_id = ""
            for message in case.said:
                accepted = await client.chat(message, session_id)
                session_id = accepted["session_id"]
                end = await client.wait_end(accepted["run_id"])
            if case.title:
                await client.wait_for(event("session.updated", title=case.expect["title"]))
    run = await Run.objects.aget(pk=accepted["run_id"])
    reply = await Message.objects.aget(pk=run.reply_id)
    assert sum(map(is_terminal, client.frames)) == len(case.said)
    assert server.refusals == []
    check_end(case, end, run)
    check_reply(case, client, reply, run)
    await check_shown(case, reply, ada)
    if "given" in case.expect:
        given = [item.payload async for item in run.items.order_by("position")]
        said = [item["content"] for item in given if item.get("role") == "assistant"]
        assert "\n\n".join(said) == case.expect["given"], "what later runs are given"
    if "requests" in case.expect:
        assert len(server.requests) == case.expect["requests"]
    assert "retrying to write its end" not in caplog.text
    if case.title:
        assert (await ChatSession.objects.aget()).title == case.expect["title"]


def check_end(case: Case, end: dict[str, Any], run: Run) -> None:
    """How the reply ends, and what it has cost."""
    expect = case.expect
    told = end["metadata"]
    found = {"end": "complete"} if end["type"] == "complete" else {"end": told["code"]}
    assert found == {"end": expect["end"]}
    assert run.error_code == ("" if expect["end"] == "complete" else expect["end"])
    if "retryable" in expect:
        assert told["retryable"] is expect["retryable"]
    if "usage" in expect:
        assert [run.input_tokens, run.output_tokens, run.usage_source] == expect["usage"]


def check_reply(case: Case, client: ChatClient, reply: Message, run: Run) -> None:
    """What is shown is what is kept."""
    expect = case.expect
    assert client.transcript.text(str(run.pk)) == expect["text"]
    assert reply.text == expect["text"]
    thoughts = "".join(part["text"] for part in reply.parts if part["type"] == "reasoning")
    assert thoughts == expect.get("reasoning", "")
    tools = [[p["name"], p["status"]] for p in reply.parts if p["type"] == "tool"]
    assert tools == expect.get("tools", [])
    if "outputs" in expect:
        assert [part["output"] for part in reply.parts if part["type"] == "tool"] == expect[
            "outputs"
        ]


async def check_shown(case: Case, reply: Message, reader: User) -> None:
    """The HTML of the reply, and words by which it is found."""
    if "html" in case.expect:
        assert "".join(render_texts(reply.parts)) == case.expect["html"]
    for words in case.expect.get("found_by", []):
        found = await sync_to_async(find_entries)(reader, words, 10)
        assert [entry.text for entry in found] == [reply.text], words


def read_tables() -> tuple[dict[str, int], list[tuple[str, str, list[str]]]]:
    """The files of each kind, and what was seen with its kind and cases, from the README."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (FOLDER.parent / "README.md").read_text().splitlines()
        if re.match(r"\| [A-N] \|", line)
    ]
    kinds = {kind: int(last) for kind, _, last in rows if last.isdecimal()}
    seen = [(kind, what, re.findall("`(.+?)`", last)) for kind, what, last in rows]
    return kinds, [row for row in seen if row[2]]


def test_each_kind_has_the_files_that_are_said() -> None:
    counted = Counter(case.name[0].upper() for case in CASES)
    assert read_tables()[0] == dict(sorted(counted.items()))


def test_what_was_seen_has_three_cases_that_are_there() -> None:
    kinds, seen = read_tables()
    names = {case.name for case in CASES}
    for _, what, cases in seen:
        assert len({re.sub("-(chat|responses)$", "", name) for name in cases}) >= 3, what
        for name in cases:
            path, _, test = name.partition("::")
            is_there = f"def {test}(" in (ROOT / path).read_text() if test else name in names
            assert is_there, f"{what}: {name}"
    assert {kind for kind, _, _ in seen} == set(kinds)
