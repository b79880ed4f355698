"""The services of a process when what is around them fails, above all at its end."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import OperationalError

from conversations.changes import Change
from conversations.models import Message, Run, RunStatus
from conversations.runs import lifecycle
from conversations.runs.states import Claim, Claimed
from conversations.runs.usage import ChatLimits
from conversations.sessions import posting
from conversations.sessions.posting import NewChat
from realtime.channel_layer import Publisher, send
from realtime.conf import get_conf
from realtime.process import BUSY_S, Process
from realtime.providers import provider
from realtime.sockets import announcer
from realtime.work import run
from realtime.work.executor import InlineExecutor
from tests.support.client import ChatClient, event, frame_of
from tests.support.inprocess import make_user, open_chat_here
from tests.support.pauses import Pauses
from tests.support.site_agents import echo_words
from tests.support.threads import in_thread
from tests.support.waiting import block_the_loop, time_limit


@pytest.fixture(autouse=True)
def quick(settings: Any) -> None:
    settings.AGENTS = "tests.support.site_agents"
    settings.REALTIME = {
        **settings.REALTIME,
        "lease_s": 1,
        "beat_s": 0.1,
        "sweep_s": 0.1,
        "head_interval_s": 0.1,
        "layer_timeout_s": 0.2,
    }


@pytest.fixture
def user(transactional_db: None) -> AbstractBaseUser:
    return make_user("ada")


async def test_what_cannot_be_told_is_done_all_the_same(
    process: Process, user: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(change: Change) -> None:
        raise ValueError("no frame")

    monkeypatch.setattr(announcer, "envelopes_of", fail)
    async with open_chat_here(user) as client:
        accepted = await client.chat("hello there")
        end = await client.wait_end(accepted["run_id"])
    assert end["content"] == "".join(echo_words("hello there"))


class HangingLayer:
    """Takes what is sent and never answers."""

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        await asyncio.Event().wait()


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    made = Publisher()
    made._layer = HangingLayer()
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    await asyncio.wait([running])


async def test_a_layer_that_hangs_does_not_hold_up_the_end(publisher: Publisher) -> None:
    publisher.put([("group", {"type": "x"})] * 1_000)
    async with time_limit("the end of the flush"):
        await publisher.flush()


async def test_nor_does_a_database_that_is_away(
    process: Process, user: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise OperationalError("the connection is gone")

    async with open_chat_here(user) as client:
        accepted = await client.chat("say something", agent="patient")
        await client.wait_text(accepted["run_id"], "well")
        monkeypatch.setattr(lifecycle, "release_run", fail)
        await process.drain(0)


async def test_a_run_that_is_just_being_claimed_is_given_up(
    process: Process, user: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed, go_on = threading.Event(), threading.Event()
    claim_run = lifecycle.claim_run

    def claim_slowly(run_id: Any, claim: Claim) -> Claimed | None:
        taken = claim_run(run_id, claim)
        claimed.set()
        go_on.wait(10)
        return taken

    monkeypatch.setattr(lifecycle, "claim_run", claim_slowly)
    posted = await in_thread(
        posting.post_chat,
        user=user,
        chat=NewChat(content="hi"),
        limits=ChatLimits(),
        viewed_for=None,
        claim=None,
    )
    process.executor.enqueue(posted.run_id)
    assert await in_thread(claimed.wait, 10)
    draining = asyncio.create_task(process.drain(0))
    await asyncio.sleep(0)
    go_on.set()
    await draining
    assert (await Run.objects.aget()).status == RunStatus.QUEUED


async def test_a_run_whose_end_cannot_be_made_is_ended_by_its_lease(
    process: Process, user: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("an item that makes no sense")

    monkeypatch.setattr(run, "stored_items", fail)
    async with open_chat_here(user) as client:
        accepted = await client.chat("hello")
        end = await client.wait_end(accepted["run_id"])
    assert (end["metadata"]["finish_reason"], end["metadata"]["reason"]) == (
        "interrupted",
        "worker_lost",
    )


@pytest.fixture
def little_room(settings: Any) -> None:
    settings.REALTIME = {**settings.REALTIME, "starts_waiting": 1}


async def refusal_of(client: ChatClient) -> dict[str, Any]:
    """The answer to a chat that is refused; its id is m1."""
    await client.send_chat("hello there", client_message_id="m1")
    error = await client.wait_for(frame_of("error"))
    assert BUSY_S <= error["metadata"].pop("retry_after") <= 2 * BUSY_S
    assert error["metadata"] == {
        "code": "unavailable",
        "retryable": True,
        "client_message_id": "m1",
    }
    return error


@pytest.mark.usefixtures("little_room")
async def test_a_chat_behind_too_many_is_refused_before_it_is_stored(
    process: Process, user: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = Pauses(monkeypatch)
    async with open_chat_here(user) as one, open_chat_here(user) as other:
        with pauses.armed("before post_chat"):
            await one.send_chat("first of all")
            await pauses.reached.wait()
            await refusal_of(other)
            assert not await Run.objects.aexists()
        await one.wait_for(event("accepted"))
        # The same again, as clients do.
        accepted = await other.chat("hello there", client_message_id="m1")
        assert not accepted["duplicate"]
        await other.wait_end(accepted["run_id"])


@pytest.mark.usefixtures("little_room")
async def test_what_was_sent_behind_a_refused_chat_does_not_go_before_it(
    process: Process, user: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are sent in one round trip; there is room again when the second one comes."""
    pauses = Pauses(monkeypatch)
    async with open_chat_here(user) as one, open_chat_here(user) as other:
        with pauses.armed("before post_chat"):
            begun = asyncio.create_task(one.chat("first of all"))
            await pauses.reached.wait()
            await refusal_of(other)
        session_id = (await begun)["session_id"]
        await other.send_chat("and another thing", session_id, client_message_id="m2")
        error = await other.wait_for(frame_of("error", client_message_id="m2"))
        assert error["metadata"]["retry_after"] > 0
        for content, name in (("hello there", "m1"), ("and another thing", "m2")):
            accepted = await other.chat(content, session_id, client_message_id=name)
            await other.wait_end(accepted["run_id"])
    asked = [prompt.text async for prompt in Message.objects.filter(role="user").order_by("number")]
    assert asked == ["first of all", "hello there", "and another thing"]


@pytest.mark.usefixtures("little_room")
async def test_runs_that_wait_to_be_set_up_count_too(
    process: Process, user: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "START_HOLD_S", 3_600)
    starts = cast(InlineExecutor, process.executor)._provider.starts
    places = [await starts.enter("another") for _ in range(get_conf().starts_at_once)]
    async with open_chat_here(user) as one, open_chat_here(user) as other:
        accepted = await one.chat("first of all")
        await refusal_of(other)
        for place in places:
            place.leave()
        await one.wait_end(accepted["run_id"])
        accepted = await other.chat("hello there", client_message_id="m1")
        await other.wait_end(accepted["run_id"])


class LateLayer:
    """Answers a few turns of the loop after that was blocked for longer than a send may take."""

    def __init__(self) -> None:
        self.is_told = False

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        block_the_loop(1.5 * get_conf().layer_timeout_s)
        for _ in range(5):
            await asyncio.sleep(0)
        self.is_told = True


async def test_a_blocked_loop_is_not_taken_for_a_layer_that_hangs() -> None:
    layer = LateLayer()
    await send(layer, ("group", {"type": "x"}))
    assert layer.is_told


async def test_a_layer_that_hangs_is_given_up() -> None:
    async with time_limit("the end of the send"):
        with pytest.raises(TimeoutError):
            await send(HangingLayer(), ("group", {"type": "x"}))
