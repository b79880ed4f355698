"""The services of a process when what is around them fails, above all at its end."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import OperationalError

from conversations.changes import Change
from conversations.models import Run, RunStatus
from conversations.runs import lifecycle
from conversations.runs.states import Claim, Claimed
from conversations.runs.usage import ChatLimits
from conversations.sessions import posting
from conversations.sessions.posting import NewChat
from realtime.channel_layer import Publisher
from realtime.process import Process
from realtime.sockets import announcer
from realtime.work import run
from tests.support.inprocess import make_user, open_chat_here
from tests.support.site_agents import echo_words
from tests.support.threads import in_thread
from tests.support.waiting import time_limit


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
