"""What is left behind is found: runs that nobody watches, runs that nobody started."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models.functions import Now

from conversations.models import EndReason, Run, RunEvent, RunStatus
from conversations.runs import lifecycle, states
from conversations.runs.events import FOLD_ROWS
from conversations.runs.states import Claim
from conversations.runs.usage import ChatLimits
from conversations.sessions import posting
from conversations.sessions.posting import NewChat
from realtime.process import Process, get_process
from tests.support.client import ChatClient
from tests.support.inprocess import make_user, open_chat_here
from tests.support.threads import in_thread
from tests.support.waiting import poll


@pytest.fixture(autouse=True)
def quick(settings: Any) -> None:
    settings.AGENTS = "tests.support.site_agents"
    settings.REALTIME = {
        **settings.REALTIME,
        "head_interval_s": 0.05,
        "sweep_s": 0.05,
        "pickup_s": 0.05,
        "disconnect_grace_s": 0.3,
    }


@pytest.fixture
def user(transactional_db: None) -> AbstractBaseUser:
    return make_user("ada")


async def begin(client: ChatClient) -> str:
    """A run that does not end by itself; its id, once it has spoken."""
    accepted = await client.chat("say something", agent="patient")
    await client.wait_text(accepted["run_id"], "well")
    run_id: str = accepted["run_id"]
    return run_id


def post(user: AbstractBaseUser, claim: Claim | None = None) -> UUID:
    """A chat that nobody here works on."""
    posted = posting.post_chat(
        user=user,
        chat=NewChat(content="anybody there"),
        limits=ChatLimits(),
        viewed_for=None,
        claim=claim,
    )
    return posted.run_id


def status_of(run_id: str) -> tuple[str, str]:
    run = Run.objects.get(pk=run_id)
    return run.status, run.reason


async def test_a_run_that_nobody_watches_is_cancelled(
    process: Process, user: AbstractBaseUser
) -> None:
    async with open_chat_here(user) as client:
        run_id = await begin(client)
    cancelled = (RunStatus.CANCELLED, EndReason.DISCONNECT)
    await in_thread(poll, lambda: status_of(run_id) == cancelled, "the cancel")
    reply = (await Run.objects.select_related("reply").aget(pk=run_id)).reply
    assert reply.text == "well "


async def test_a_run_that_is_watched_is_not(process: Process, user: AbstractBaseUser) -> None:
    async with open_chat_here(user) as client:
        run_id = await begin(client)
        last = (await Run.objects.select_related("session").aget(pk=run_id)).session.viewed_until

        def viewed_later() -> bool:
            viewed_until = Run.objects.select_related("session").get(pk=run_id).session.viewed_until
            return (viewed_until - last).total_seconds() > 1  # type: ignore[operator]

        await in_thread(poll, viewed_later, "the watch to be kept up")
        assert (await in_thread(status_of, run_id))[0] == RunStatus.RUNNING


async def test_it_may_be_told_to_go_on(
    user: AbstractBaseUser, settings: Any, transactional_db: None
) -> None:
    settings.REALTIME = {**settings.REALTIME, "on_disconnect": "continue"}
    process = get_process()
    async with open_chat_here(user) as client:
        run_id = await begin(client)
    await process.sweeper.sweep()
    assert (await in_thread(status_of, run_id))[0] == RunStatus.RUNNING
    await process.drain(0)
    await process.stop()
    assert await in_thread(status_of, run_id) == (
        RunStatus.INTERRUPTED,
        EndReason.WORKER_LOST,
    )


async def test_a_forgotten_run_is_started(process: Process, user: AbstractBaseUser) -> None:
    run_id = str(await in_thread(post, user))
    await in_thread(poll, lambda: status_of(run_id)[0] == RunStatus.COMPLETED, "the forgotten run")


async def test_a_run_at_work_here_is_not_taken_for_dead(
    process: Process, user: AbstractBaseUser
) -> None:
    async with open_chat_here(user) as client:
        run_id = await begin(client)
        await Run.objects.filter(pk=run_id).aupdate(lease_until=Now() - timedelta(seconds=1))
        await process.sweeper.sweep()
        run = await Run.objects.aget(pk=run_id)
    assert (run.status, run.claim) == (RunStatus.RUNNING, 1)


async def test_one_that_cannot_be_helped_is_no_hindrance(
    user: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = Claim(worker="gone", lease=timedelta(seconds=-1), agent="echo", model="m")
    for _ in range(2):
        await in_thread(post, user, gone)
    hopeless, other = await in_thread(states.list_orphans)
    recover = lifecycle.recover_run

    def recover_run(run_id: UUID, **options: Any) -> None:
        if run_id == hopeless:
            raise RuntimeError("a row that makes no sense")
        recover(run_id, **options)

    monkeypatch.setattr(lifecycle, "recover_run", recover_run)
    process = get_process()
    await in_thread(poll, lambda: status_of(str(other))[0] == RunStatus.COMPLETED, "the other one")
    assert (await in_thread(status_of, str(hopeless)))[0] == RunStatus.RUNNING
    await process.drain(0)
    await process.stop()


def write_long_reply(user: AbstractBaseUser, tokens: int) -> None:
    """One that has ended long ago, its text as it came."""
    run_id = post(user)
    poll(lambda: Run.objects.get(pk=run_id).is_ended, "the reply")
    ended = Run.objects.get(pk=run_id).created_at - timedelta(hours=1)
    told: Any = {"kind": "token", "payload": {"delta": "x"}, "created_at": ended}
    rows = [RunEvent(run_id=run_id, epoch=1, seq=seq, **told) for seq in range(100, 100 + tokens)]
    RunEvent.objects.bulk_create(rows)
    Run.objects.filter(pk=run_id).update(ended_at=ended)


async def test_long_replies_are_folded_as_fast_as_they_come(
    user: AbstractBaseUser, settings: Any
) -> None:
    settings.REALTIME = {**settings.REALTIME, "sweep_s": 3_600}
    process = get_process()
    await process.sweeper.sweep()
    for _ in range(3):
        await in_thread(write_long_reply, user, FOLD_ROWS + 1)
    await process.sweeper.sweep()
    assert not await RunEvent.objects.filter(kind="token").aexists()
    await process.drain(0)
    await process.stop()
