"""Every place where two actors can meet at a run is visited, and nothing is lost there.

The code is stopped at a place, another actor acts, and the code goes on (`tests.support.pauses`).
Pairs of a place and an actor are visited over a socket and over REST, on SQLite and on Postgres.
Those whose name, `operation / place / actor`, matches a pattern are visited everywhere by

    PYTEST_RACES="post / * / drain" python -m pytest -n 0 tests/record/test_races.py

All red pairs are reported, each with the invariant that is broken there.
"""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatch
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import User
from django.db import connection
from django.db.models.functions import Now
from django.test import AsyncClient

from agentsite.settings import Environment, database_from
from agentsite.settings import postgres as postgres_settings
from conversations.changes import RunLostError
from conversations.models import ACTIVE, EndReason, Message, Outcome, Run, RunEvent, RunStatus
from conversations.runs import lifecycle
from conversations.runs.usage import ChatLimits
from conversations.sessions import posting
from conversations.sessions.posting import NewChat
from realtime.api.turns import stream_turn
from realtime.channel_layer import Hub
from realtime.process import Process, get_process
from tests.support.chats import make_user
from tests.support.client import ChatClient, event
from tests.support.databases import every_thread_on, migrated
from tests.support.inprocess import open_chat_here
from tests.support.machine import crowd, scaled
from tests.support.pauses import Pauses
from tests.support.servers import Postgres
from tests.support.threads import in_thread
from tests.support.transcript import Frame, event_of
from tests.support.waiting import TIMEOUT_S, poll, time_limit

AS_FAR_AS_IT_GETS_S = 0.2
"""An actor that waits for who is stopped, such as a drain, goes on beside it after that."""

PLACES = {
    "post": (
        *("before post_chat", "inside post_chat", "after post_chat", "before join"),
        *("before read_state", "after read_state", "before read_missed", "after read_missed"),
    ),
    "claim": ("before claim_run", "after claim_run"),
    "follow": (
        *("before join", "before read_state", "after read_state"),
        *("before read_missed", "after read_missed"),
    ),
    "cancel": ("before cancel_run", "inside stop_run", "after cancel_run"),
    "decide": ("before decide", "inside decide", "after decide"),
    "finish": (
        *("before read_input", "after read_input", "before commit_batches"),
        *("after commit_batches", "before finish_run", "after finish_run"),
    ),
    "drain": ("before release_run", "after release_run"),
}
"""By what is going on when the code is stopped."""

Pair = tuple[str, str, str]
"""An operation, a place of it, and an actor."""

ACTORS = ("interrupt", "cancel", "approve", "drain", "lease expiry", "second send")

PAIRS = [
    (operation, place, actor)
    for operation, actor in product(PLACES, ACTORS)
    for place in PLACES[operation]
]


CHOSEN = os.environ.get("PYTEST_RACES")


def name_of(pair: Pair) -> str:
    return " / ".join(pair)


def pairs_for(database: str, kind: type[Any]) -> list[Pair]:
    """All of them on SQLite over a socket; otherwise as many, spread by chance, as a crowd has.

    `AGENTSITE_FULL_CROWDS=1` visits all everywhere, `PYTEST_RACES` those that it matches.
    """
    if CHOSEN is not None:
        return [pair for pair in PAIRS if fnmatch(name_of(pair), CHOSEN)]
    if (database, kind) == ("sqlite", SocketTab):
        return PAIRS
    chance = random.Random(f"{database} {kind.__name__}")
    return chance.sample(PAIRS, crowd(len(PAIRS)))


READS_IN_BETWEEN = PLACES["post"][4:]


def is_passed_by(pair: Pair, kind: type[Any]) -> bool:
    """Whether the place is not on the way of that pair."""
    match pair:
        case "post", place, "approve" if place in READS_IN_BETWEEN:
            # A run that awaits input ends at once: its successor is claimed by the chat.
            return True
        case "finish", "before read_input" | "after read_input", "approve":
            # A run that goes on has its input.
            return True
        case "decide", "before decide" | "after decide", _:
            # Over REST it is a view's own thread that decides.
            return kind is RestTab
    return False


AFTER_THE_POST = PLACES["post"][2:]
"""Here the new message may be at work already."""


@pytest.fixture(autouse=True)
def quick(settings: Any) -> None:
    settings.AGENTS = "tests.support.race_agents"
    settings.REALTIME = {
        **settings.REALTIME,
        "flush_interval_ms": 1,
        "head_interval_s": 0.1,
        "cancel_poll_s": 0.05,
        "frames_per_minute": 100_000,
        "runs_per_user": 1_000,
        "queue_max": 100,
        "lease_s": 600,
        "sweep_s": 0.1,
        "pickup_s": 0.1,
        "titles": "words",
    }
    settings.API_REQUESTS_PER_MINUTE = 1_000_000


@pytest.fixture(params=["sqlite", "postgres"])
def database(
    request: pytest.FixtureRequest, transactional_db: None, postgres: Postgres
) -> Iterator[str]:
    """All threads of this test use it; neither waits for a disk."""
    if request.param == "sqlite":
        with every_thread_on(connection.settings_dict):
            yield "sqlite"
        return
    with (
        migrated(postgres) as url,
        every_thread_on(
            postgres_settings(database_from(url), Environment(debug=True, db_threads=8))
        ),
    ):
        yield "postgres"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch, database: str) -> Callable[[], Pauses]:
    def make() -> Pauses:
        made = Pauses(monkeypatch)
        made.wrap_async(Hub, "join")
        made.wrap_sync(posting._Post, "write", "inside post_chat")
        made.wrap_sync(posting, "stop_run", "inside stop_run")
        made.wrap_sync(lifecycle, "locked_run", "inside decide")
        return made

    return make


class SocketTab:
    """What a person does in one tab, over its socket."""

    def __init__(self, client: ChatClient, user: AbstractBaseUser) -> None:
        self.client = client

    async def send(self, session_id: str, **metadata: Any) -> str:
        client_message_id: str = metadata.setdefault("client_message_id", uuid4().hex)
        await self.client.chat("something", session_id, **metadata)
        return client_message_id

    async def cancel(self, session_id: str, run_id: str) -> bool:
        """Whether the run had ended before."""
        after = len(self.client.frames)
        await self.client.cancel(session_id, run_id=run_id)
        events = ("run.head", "run.cancelling")

        def answers(frame: Frame) -> bool:
            named = frame["metadata"].get("run_id") == run_id
            return bool(event_of(frame) in events and named) or bool(frame["type"] == "error")

        try:
            answer = await self.client.wait_for(answers, after=after)
        except TimeoutError:
            raise AssertionError(f"a stop of run {run_id} is not answered") from None
        assert answer["type"] == "status", f"a stop is answered: {answer['metadata']}"
        return bool(event_of(answer) == "run.head")

    async def approve(self, session_id: str, request_id: str) -> None:
        after = len(self.client.frames)
        metadata = {"request_id": request_id, "decision": "approve"}
        frame = {"type": "respond", "session_id": session_id, "metadata": metadata}
        await self.client.send(frame)
        await self.client.wait_for(event("responded", request_id=request_id), after=after)

    async def follow(self, race: "Race") -> None:
        await self.client.resume(race.session_id, rev=0)


class RestTab:
    """The same over REST."""

    def __init__(self, client: ChatClient, user: AbstractBaseUser) -> None:
        self._api = AsyncClient(raise_request_exception=False)
        self._user: Any = user

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        await self._api.aforce_login(self._user)
        answer = await self._api.post(f"/api/{path}", body, "application/json")
        assert answer.status_code in (200, 202), f"{path} is answered: {answer.status_code}"
        return answer.json()

    async def send(self, session_id: str, **metadata: Any) -> str:
        client_message_id: str = metadata.setdefault("client_message_id", uuid4().hex)
        body = {"content": "something", "wait": False, **metadata}
        await self._post(f"sessions/{session_id}/chat/", body)
        return client_message_id

    async def cancel(self, session_id: str, run_id: str) -> bool:
        answer = await self._post(f"sessions/{session_id}/cancel/", {"run_id": run_id})
        ended_before: bool = answer["ended_before"]
        return ended_before

    async def approve(self, session_id: str, request_id: str) -> None:
        await self._post(f"approvals/{request_id}/", {"decision": "approve"})

    async def follow(self, race: "Race") -> None:
        """A reader that comes back by the name of its message."""
        again = NewChat("begin", race.session_id, client_message_id=race.chats[0])
        frames = stream_turn(self._user, again, watches=False)
        await anext(frames)
        await frames.aclose()


class OtherProcess:
    """The same in another process: nothing of this one is in its way."""

    def __init__(self, user: AbstractBaseUser) -> None:
        self._user: Any = user

    async def send(self, session_id: str, **metadata: Any) -> str:
        client_message_id: str = metadata.setdefault("client_message_id", uuid4().hex)
        await in_thread(
            posting.post_chat,
            user=self._user,
            chat=NewChat("something", session_id, **metadata),
            limits=ChatLimits(),
            viewed_for=None,
            claim=None,
        )
        return client_message_id

    async def cancel(self, session_id: str, run_id: str) -> bool:
        stopped = await in_thread(
            posting.cancel_run, user=self._user, session_id=session_id, run_id=run_id
        )
        return bool(stopped.ended_before)

    async def approve(self, session_id: str, request_id: str) -> None:
        await in_thread(
            lifecycle.decide,
            user=self._user,
            request_id=request_id,
            verdict="approve",
            viewed_for=None,
        )


@dataclass
class Race:
    """One session in which two actors meet."""

    process: Process
    user: User
    watcher: ChatClient
    asks: bool
    session_id: str = ""
    run_id: str = ""
    request_id: str = ""
    chats: list[str] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    drained: bool = False
    lost: bool = False

    async def begin(self) -> None:
        """A reply that goes on until it is stopped, or asks; everything is watched."""
        agent = "asking" if self.asks else "patient"
        accepted = await self.watcher.chat("begin", agent=agent)
        self.session_id, self.run_id = accepted["session_id"], accepted["run_id"]
        self.chats.append(accepted["client_message_id"])
        await self.watcher.resume(self.session_id, rev=0, run_id=self.run_id)
        if self.asks:
            self.request_id = await self._ask(self.run_id)
        else:
            await self.watcher.wait_text(self.run_id, "well")

    async def _ask(self, run_id: str) -> str:
        asked = await self.watcher.wait_for(event("input.requested", run_id=run_id))
        request_id: str = asked["metadata"]["request_id"]
        return request_id

    async def begin_aside(self) -> str:
        """A request in another session, for who answers while nothing asks in this one."""
        accepted = await self.watcher.chat("begin", agent="asking")
        await self.watcher.resume(accepted["session_id"], rev=0, run_id=accepted["run_id"])
        self.request_id = await self._ask(accepted["run_id"])
        session_id: str = accepted["session_id"]
        return session_id

    async def head(self) -> str:
        """The run that is to be cancelled: the active one, else the last."""

        def find() -> str:
            runs = Run.objects.filter(session_id=UUID(self.session_id))
            found = runs.filter(status__in=ACTIVE).order_by("number").first()
            return str((found or runs.latest("number")).pk)

        return await in_thread(find)

    async def send(self, tab: Any, **metadata: Any) -> None:
        self.chats.append(await tab.send(self.session_id, **metadata))

    async def cancel(self, tab: Any, run_id: str) -> None:
        self.cancelled.add(run_id)
        ended_before = await tab.cancel(self.session_id, run_id)
        run = await Run.objects.aget(pk=run_id)
        if ended_before:
            assert run.is_ended, f"a stop is told that {_end_of(run)} has ended"
        else:
            was_stopped = run.cancel_requested_at or run.status == RunStatus.CANCELLED
            assert was_stopped, f"a stop is not told that {_end_of(run)} had ended"

    async def drain(self) -> None:
        self.drained = self.lost = True
        await self.process.drain(0)

    async def expire(self) -> None:
        """Another process takes the worker of what runs here for dead."""
        self.lost = True
        runs = Run.objects.filter(session_id=UUID(self.session_id), status=RunStatus.RUNNING)
        await runs.aupdate(lease_until=Now() - timedelta(seconds=1))
        async for run_id in runs.values_list("pk", flat=True):
            with contextlib.suppress(RunLostError):
                await in_thread(lifecycle.recover_run, run_id, max_attempts=2)


async def operate(race: Race, name: str, tab: Any) -> None:
    """What is stopped at a place."""
    match name:
        case "post":
            await race.send(tab, agent="patient", on_busy="interrupt")
        case "claim" | "cancel":
            await race.cancel(tab, race.run_id)
        case "follow":
            await tab.follow(race)
        case "decide":
            await tab.approve(race.session_id, race.request_id)
        case "finish" if race.asks:
            await tab.approve(race.session_id, race.request_id)
        case "finish":
            await race.send(tab, agent="echo", on_busy="interrupt")
        case "drain":
            await race.drain()


async def act(race: Race, name: str, tab: Any, session_id: str) -> None:
    """What happens meanwhile."""
    match name:
        case "interrupt":
            await race.send(tab, agent="patient", on_busy="interrupt")
        case "cancel":
            await race.cancel(tab, await race.head())
        case "approve":
            await tab.approve(session_id, race.request_id)
        case "drain":
            await race.drain()
        case "lease expiry":
            await race.expire()
        case "second send":
            await race.send(tab, agent="echo", on_busy="enqueue")


@contextlib.asynccontextmanager
async def tabs_of(user: AbstractBaseUser, kind: type[Any]) -> AsyncIterator[tuple[Any, Any]]:
    async with open_chat_here(user) as one, open_chat_here(user) as two:
        yield kind(one, user), kind(two, user)


async def visit(pauses: Pauses, user: User, pair: Pair, kind: type[Any]) -> bool:
    """Visit one pair, and check the invariants; whether the place was reached."""
    operation, place, actor = pair
    process = get_process()
    asks = operation == "decide" or (actor == "approve" and operation != "drain")
    async with open_chat_here(user) as watcher, tabs_of(user, kind) as (tab, other):
        race = Race(process, user, watcher, asks)
        session_id = await race.begin_aside() if operation == "drain" and actor == "approve" else ""
        await race.begin()
        if operation == "claim":
            await race.send(SocketTab(watcher, user), agent="patient", on_busy="enqueue")
        is_inside = place.startswith("inside")
        by = OtherProcess(user) if is_inside else other
        with pauses.armed(place):
            acting = asyncio.create_task(operate(race, operation, tab))
            was_reached = await pauses.wait(acting, is_awaited=not is_passed_by(pair, kind))
            meanwhile = asyncio.create_task(act(race, actor, by, session_id or race.session_id))
            await asyncio.wait([meanwhile], timeout=AS_FAR_AS_IT_GETS_S)
            if operation == "post" and place in AFTER_THE_POST and not race.drained:
                await in_thread(poll, lambda: not is_running(race.run_id), "the interrupted run")
                await come_to_rest(race)
        _, late = await asyncio.wait([acting, meanwhile], timeout=scaled(TIMEOUT_S))
        assert not late, "an actor does not come to its end"
        await asyncio.gather(acting, meanwhile)
        # Over a socket a chat is answered before all that it leads to is done.
        await process.chats.settled()
    if race.drained:
        await stop(process)
    process = race.process = get_process()
    await end_all(race, session_id)
    async with open_chat_here(user, transcript=watcher.transcript) as again:
        race.watcher = again
        await check(race)
    return was_reached


def is_running(run_id: str) -> bool:
    return Run.objects.get(pk=run_id).status == RunStatus.RUNNING


async def stop(process: Process) -> None:
    """What is left behind by a process that was drained is nobody's."""
    worker = process.executor.worker  # type: ignore[attr-defined]
    await process.stop()
    left = Run.objects.filter(worker=worker, status=RunStatus.RUNNING)
    numbers = [n async for n in left.values_list("number", "last_seq")]
    assert numbers == [], "a drained process has left runs to their leases"


def is_told_to_stop(executor: Any, run_id: UUID) -> bool:
    """Whether a run that is at work here will end by itself, whoever has wanted that."""
    job = executor._jobs.get(run_id)
    return bool(job and job.work and job.work.journal.cancelled.is_set())


async def come_to_rest(race: Race) -> None:
    """Wait until nothing of the session goes on by itself, and what runs has an owner."""
    executor: Any = race.process.executor

    def rests() -> bool:
        active = Run.objects.filter(session_id=UUID(race.session_id), status__in=ACTIVE)
        head = active.order_by("number").first()
        if head is None or head.status == RunStatus.AWAITING_INPUT:
            return True
        patient = head.agent == "patient" and head.last_seq > 1
        return bool(
            head.status == RunStatus.RUNNING
            and patient
            and head.cancel_requested_at is None
            and head.worker == executor.worker
            and head.pk in executor.working
            and not is_told_to_stop(executor, head.pk)
        )

    try:
        await in_thread(poll, rests, "rest")
    except TimeoutError:
        active = Run.objects.filter(session_id=UUID(race.session_id), status__in=ACTIVE)
        head = await active.order_by("number").afirst()
        is_here = head is not None and head.pk in executor.working
        raise AssertionError(
            f"nobody goes on with {head and _end_of(head)}, worker {head and head.worker}, "
            f"at work here: {is_here}"
        ) from None


async def end_all(race: Race, aside: str) -> None:
    """Every reply is stopped by its name, the last first, as its user would."""
    outside = OtherProcess(race.user)
    await come_to_rest(race)
    for session_id in filter(None, (race.session_id, aside)):
        active = Run.objects.filter(session_id=UUID(session_id), status__in=ACTIVE)
        async for run_id in active.order_by("-number").values_list("pk", flat=True):
            race.cancelled.add(str(run_id))
            await outside.cancel(session_id, str(run_id))
        await in_thread(poll, lambda active=active: not active.exists(), "the end of all")  # type: ignore[misc]


async def check(race: Race) -> None:
    """The invariants."""
    runs = [
        run async for run in Run.objects.filter(session_id=UUID(race.session_id)).order_by("number")
    ]
    by_chat = sorted(run.client_message_id or "" for run in runs)
    assert by_chat == sorted(race.chats), "an acknowledged chat has one run"
    redirects = 0
    for run in runs:
        ends = RunEvent.objects.filter(run=run, kind__in=("complete", "error"))
        assert await ends.acount() == 1, f"run {run.number} has one end"
        redirects += run.reason == EndReason.REDIRECT
        assert _has_right_reason(run, race), f"nobody asked for this end of {_end_of(run)}"
    interruptions = sum(run.outcome == Outcome.INTERRUPTING for run in runs)
    assert redirects <= interruptions, "each interruption ends one run"
    await race.watcher.resume(race.session_id)
    await _shows_what_is_kept(race, runs)


def _end_of(run: Run) -> str:
    return f"run {run.number} ({run.outcome}): {run.status}, reason {run.reason or 'none'}"


def _has_right_reason(run: Run, race: Race) -> bool:
    match run.status, run.reason:
        case RunStatus.COMPLETED, "":
            return run.agent != "patient"
        case RunStatus.CANCELLED, EndReason.USER:
            return str(run.pk) in race.cancelled
        case RunStatus.CANCELLED, EndReason.REDIRECT:
            return True
        case RunStatus.INTERRUPTED, EndReason.WORKER_LOST:
            return race.lost
    return False


async def _shows_what_is_kept(race: Race, runs: list[Run]) -> None:
    """State and events, as they came to one reader, are the state as it is read anew."""
    messages = Message.objects.filter(session_id=UUID(race.session_id))
    kept = {str(message.pk): message.text async for message in messages}
    transcript = race.watcher.transcript

    def shows_all() -> bool:
        shown = transcript.shown(race.session_id)
        return {key: shown.get(key, "") for key in kept} == kept

    try:
        await race.watcher.wait_until(shows_all)
    except TimeoutError:
        assert transcript.shown(race.session_id) == kept
    assert all(run.is_ended for run in runs)


async def visit_all(places: Pauses, user: User, kind: type[Any], database: str) -> int:
    """How many pairs were reached; raises an `ExceptionGroup` of those that broke an invariant."""
    visited, broken, lines = 0, [], []
    for pair in pairs_for(database, kind):
        try:
            reached = await visit(places, user, pair, kind)
            assert reached != is_passed_by(pair, kind), "the place is not where it was"
        except Exception as exc:
            broken.append(exc)
            lines.append(f"{name_of(pair)}: {type(exc).__name__}: {str(exc).partition(chr(10))[0]}")
            # What a failed visit has left at work is not the next one's.
            await stop_anyhow()
        else:
            visited += reached
    if broken:
        where = f"over {kind.__name__} on {database}"
        raise ExceptionGroup("\n".join([f"{len(broken)} pairs are red {where}", *lines]), broken)
    return visited


async def stop_anyhow() -> None:
    process = get_process()
    with contextlib.suppress(TimeoutError):
        async with time_limit("the drain"):
            await process.drain(0)
    await process.stop()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", [SocketTab, RestTab], ids=["socket", "rest"])
async def test_every_pair_of_a_place_and_an_actor(
    database: str,
    pauses: Callable[[], Pauses],
    kind: type[Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    places, user = pauses(), await in_thread(make_user, "ada")
    try:
        visited = await visit_all(places, user, kind, database)
    finally:
        await stop_anyhow()
    with capsys.disabled():
        print(f"\n{visited} pairs visited over {kind.__name__} on {database}")  # noqa: T201
