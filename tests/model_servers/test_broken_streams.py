"""Streams that are cut, split, reordered and corrupted at random.

`PYTEST_STREAM_EXAMPLES` is how many of each kind are tried.
"""

import asyncio
import copy
import json
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import openai
import pytest
from agents import Agent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conversations.runs.lifecycle import Ending
from conversations.runs.usage import TOKEN_COLUMNS
from conversations.text import clean_text
from realtime import registry
from realtime.providers import event_stream
from realtime.providers.model_calls import ChatModel, ResponsesModel
from realtime.providers.provider import StartGate
from realtime.registry import AgentEntry
from realtime.work import run as run_module
from realtime.work.context import ModelInput
from realtime.work.journal import Journal
from realtime.work.run import RunWork
from realtime.work.tools import ToolServers
from tests.model_servers.case import Case, encode_piece, read_cases
from tests.model_servers.test_cases import make_agent
from tests.support.waiting import time_limit

EXAMPLES = int(os.environ.get("PYTEST_STREAM_EXAMPLES", "40"))

RECORDED = [
    case
    for case in read_cases()
    if case.expect["end"] == "complete"
    and not case.title
    and case.name.startswith(("b-whole-octet", "e-refusal", "f-tool-stop", "f-reasoning-two", "g-"))
]
ODD: list[Any] = [None, -1, 5.5, 10**30, True, "", [], {}, [None], {"text": None}, "\ud83d"]
"""In place of a field; nothing of it is text that can be read."""

MAX_TURNS = 10

End = Callable[[], Awaitable[None]]

pytestmark = pytest.mark.timeout(120 + EXAMPLES / 2)

many = settings(
    max_examples=EXAMPLES,
    derandomize=EXAMPLES <= 40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pauses that only spare work."""
    monkeypatch.setattr(event_stream, "GRACE_S", 0.05)


class Body(httpx2.AsyncByteStream):
    """Sends `pieces`, and then whatever `end` does."""

    def __init__(self, pieces: list[bytes], end: End | None = None) -> None:
        self.pieces = pieces
        self.end = end

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
        if self.end is not None:
            await self.end()


class StandInProvider:
    """What a run needs of a provider; the bodies are answers, the last of them again and again."""

    def __init__(self, api: str, bodies: list[list[bytes]], end: End | None = None) -> None:
        self.starts = StartGate(1)
        self._end = end
        self._api = api
        self._bodies = bodies
        http = httpx2.AsyncClient(
            transport=httpx2.MockTransport(self._answer),
            event_hooks={"response": [event_stream.gather]},
        )
        self._client = openai.AsyncOpenAI(
            api_key="x", base_url="http://model.test/v1", http_client=http, max_retries=0
        )

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        pieces = self._bodies.pop(0) if len(self._bodies) > 1 else self._bodies[0]
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, stream=Body(pieces, self._end))

    def get_model(self, name: str | None) -> ChatModel | ResponsesModel:
        kind = ResponsesModel if self._api == "responses" else ChatModel
        return kind("odd", self._client)


class NoBudget:
    """Of a run that may spend what it likes."""

    def __init__(self, run: Any) -> None: ...

    async def check(self, spent: int) -> None: ...


class Work(RunWork):
    """A run without a database: what it tells is settled at once."""

    def __init__(self, agent: Agent[Any], provider: StandInProvider) -> None:
        run = SimpleNamespace(
            pk=1, owner_id=1, session_id=1, agent=agent.name, model="odd", retries=0,
            first_token_at=None, last_token_at=None,
        )  # fmt: skip
        claimed: Any = SimpleNamespace(run=run, resumption=None, last_seq=0)
        run.claim = run.epoch = 1
        flusher: Any = SimpleNamespace(open=lambda claimed: Journal(claimed, settle))
        super().__init__(claimed, flusher, cast(Any, provider), ToolServers())

    async def _input(self, agent: Agent[Any], context: Any) -> Any:
        self._given = ModelInput([{"role": "user", "content": "How many?"}], 5)
        return self._given.items, ""


def settle(journal: Journal, urgent: bool) -> None:
    if journal.in_doubt is None:
        journal.take()
        journal.settle()


async def run_once(case: Case, bodies: list[list[bytes]]) -> Ending:
    agent = make_agent(case.agent)
    work = Work(agent, StandInProvider(case.api, bodies))
    async with time_limit("the end of a reply"):
        outcome = await work._reach_end()
    assert isinstance(outcome, Ending)
    return outcome


@pytest.fixture(autouse=True)
def agent_of_the_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry's agents are those of the cases."""
    entry = AgentEntry(make_agent("desk"))
    monkeypatch.setattr(registry, "get_agent", lambda name: make_agent(name or entry.agent.name))
    monkeypatch.setattr("realtime.work.run_errors.FIRST_PAUSE_S", 0)
    monkeypatch.setattr(run_module, "describe", lambda exc: "")
    monkeypatch.setattr(run_module, "Budget", NoBudget)


def chunk(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def delta(text: str) -> dict[str, Any]:
    where = {"item_id": "m", "output_index": 0, "content_index": 0}
    return {"type": "response.output_text.delta", "delta": text, **where}


HELD: list[tuple[list[str], str, str]] = [
    (["<thi"], "<thi", ""),
    (["One.", "<think>"], "One.<think>", ""),
    (["<think>Hm", "m.</th"], "", "Hmm.</th"),
    (["<think>Hm.</think>", "One"], "One", "Hm."),
    (["One \ud83d"], "One ", ""),
    (["One", "One, two"], "One", ""),
    (["na", "nana"], "nana", ""),
    (["One", " two"], "One two", ""),
]
"""Texts of deltas before a cut, and the text and the reasoning that are shown after it."""


@pytest.mark.parametrize("cut", ["end", "lost", "error", "stop", "late"])
@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize("held", HELD, ids=str)
def test_what_is_held_back_is_shown_after_a_cut(
    held: tuple[list[str], str, str], api: str, cut: str, settings: Any
) -> None:
    texts, shown, thoughts = held
    events = [delta(text) if api == "responses" else chunk(content=text) for text in texts]
    parts = asyncio.run(cut_off(events, api, cut, settings)).parts
    assert "".join(part["text"] for part in parts if part["type"] == "text") == shown
    assert "".join(part["text"] for part in parts if part["type"] == "reasoning") == thoughts


@pytest.mark.parametrize("cut", ["end", "lost", "error", "stop", "late"])
def test_reasoning_that_is_held_back_is_shown_after_a_cut(cut: str, settings: Any) -> None:
    events = [chunk(reasoning_content="Hm"), chunk(reasoning="Hmm", reasoning_content="Hmm")]
    parts = asyncio.run(cut_off(events, "chat", cut, settings)).parts
    assert [(part["type"], part["text"]) for part in parts] == [("reasoning", "Hm")]


async def test_text_of_an_agent_that_is_a_tool_is_not_the_replys() -> None:
    """Its stream writes to the same verdict; the reply is stopped while the tool runs."""
    work = Work(make_agent("desk"), StandInProvider("chat", [[b""]]))
    work.journal.append("tool.started", {"tool_call_id": "a", "name": "ask", "arguments": "{}"})
    work._verdict.cut = lambda: ("", "said inside")
    work._keep_cut_text()
    assert [part["type"] for part in work.journal.folder.parts] == ["tool"]


async def cut_off(events: list[Any], api: str, cut: str, settings: Any) -> Ending:
    """The end of a reply whose stream has these events and no end."""
    if cut == "error":
        events = [*events, {"error": {"message": "overloaded"}}]
    if cut == "late":
        settings.REALTIME = {**settings.REALTIME, "run_max_s": 0.2}
    is_read = asyncio.Event()

    async def end() -> None:
        is_read.set()
        if cut == "lost":
            raise httpx2.ReadError("lost")
        if cut in ("stop", "late"):
            await asyncio.Event().wait()

    work = Work(make_agent("desk"), StandInProvider(api, [[encode(events)]], end))
    ending = asyncio.create_task(work._reach_end())
    async with time_limit("the end of a reply"):
        if cut == "stop":
            await is_read.wait()
            work.journal.cancelled.set()
        outcome = await ending
    assert isinstance(outcome, Ending)
    return outcome


def events_of(case: Case) -> list[list[Any]]:
    """The events of each answer; pauses are left out."""
    return [
        [piece for piece in answer["body"] if not isinstance(piece, float)]
        for answer in case.answers
    ]


def encode(events: list[Any]) -> bytes:
    return b"".join(map(encode_piece, events))


def split(body: bytes, random_: random.Random) -> list[bytes]:
    places = sorted(random_.randrange(len(body) + 1) for _ in range(random_.randrange(5)))
    bounds = [0, *places, len(body)]
    return [body[a:b] for a, b in pairwise(bounds)]


def check(case: Case, ending: Ending) -> str:
    """Whatever was done to its stream; the text that was shown."""
    assert ending.error_code != "internal"
    assert ending.status in ("completed", "failed")
    assert bool(ending.error_code) == (ending.status == "failed")
    for name in TOKEN_COLUMNS:
        assert 0 <= (getattr(ending.usage, name) or 0) < 2**31
    shown = "".join(part["text"] for part in ending.parts if part["type"] == "text")
    assert shown == clean_text(shown)
    json.dumps([ending.parts, ending.items], allow_nan=False).encode()
    return without_breaks(shown)


def without_breaks(text: str) -> str:
    """What is set between the texts of two model calls is ours."""
    return text.replace("\n", "")


def whole_text(case: Case) -> str:
    return without_breaks(case.expect["text"])


cases = st.sampled_from(RECORDED)
randoms = st.randoms(use_true_random=False)


@many
@given(cases, randoms)
def test_a_stream_in_any_pieces_is_the_same_reply(case: Case, random_: random.Random) -> None:
    bodies = [split(encode(shuffled(events, random_)), random_) for events in events_of(case)]
    ending = asyncio.run(run_once(case, bodies))
    assert check(case, ending) == whole_text(case)
    assert ending.error_code == ""


def shuffled(value: Any, random_: random.Random) -> Any:
    """With the fields of all objects in any order."""
    if isinstance(value, list):
        return [shuffled(each, random_) for each in value]
    if not isinstance(value, dict):
        return value
    names = list(value)
    random_.shuffle(names)
    return {name: shuffled(value[name], random_) for name in names}


@many
@given(cases, randoms)
def test_a_stream_that_is_cut_shows_a_beginning(case: Case, random_: random.Random) -> None:
    bodies = [encode(events) for events in events_of(case)]
    place = random_.randrange(len(bodies))
    bodies[place] = bodies[place][: random_.randrange(len(bodies[place]) + 1)]
    ending = asyncio.run(run_once(case, [split(body, random_) for body in bodies]))
    assert (whole_text(case) * MAX_TURNS).startswith(check(case, ending))


@many
@given(cases.filter(lambda case: case.agent != "direct"), randoms)
def test_odd_fields_add_no_text(case: Case, random_: random.Random) -> None:
    answers = copy.deepcopy(events_of(case))
    for _ in range(random_.randrange(1, 4)):
        events = [each for each in random_.choice(answers) if isinstance(each, dict)]
        corrupt(random_.choice(events), random_)
    bodies = [split(encode(events), random_) for events in answers]
    shown = check(case, asyncio.run(run_once(case, bodies))).replace("\ufffd", "")
    # A call that cannot be made is told to the model, which answers once more.
    whole = iter(whole_text(case) * MAX_TURNS)
    assert all(sign in whole for sign in shown), f"{shown}: {answers}"


def corrupt(value: Any, random_: random.Random) -> None:
    """Leave a field out somewhere in it, or put something odd there."""
    if not value:
        # An earlier fault has left nothing of it.
        return
    inner = [each for each in iterate(value) if isinstance(each, dict | list) and each]
    if inner and random_.random() < 0.8:
        corrupt(random_.choice(inner), random_)
        return
    key: Any = random_.choice(list(value)) if isinstance(value, dict) else None
    if key is None:
        key = random_.randrange(len(value))
        if isinstance(value[key], str):
            return
    if random_.random() < 0.3:
        del value[key]
    else:
        # A copy: a later fault may be put into it.
        value[key] = copy.deepcopy(random_.choice(ODD))


def iterate(value: Any) -> list[Any]:
    return list(value.values() if isinstance(value, dict) else value)


@many
@given(cases, randoms)
def test_broken_bytes_end_a_reply_all_the_same(case: Case, random_: random.Random) -> None:
    bodies = [bytearray(encode(events)) for events in events_of(case)]
    for _ in range(random_.randrange(1, 4)):
        body = random_.choice(bodies)
        start = random_.randrange(len(body) + 1)
        garbage = random_.choice([b"\xff\xfe", b"\0", b"}", b'"', b"\n\n", b"\r", b"data: ", b"<"])
        body[start : start + random_.randrange(4)] = garbage
    check(case, asyncio.run(run_once(case, [split(bytes(body), random_) for body in bodies])))
