"""Before the model is ready: what waits, who is told, and how it goes on."""

from typing import Any

import pytest
from agents import OpenAIChatCompletionsModel
from django.contrib.auth.base_user import AbstractBaseUser

from conversations.models import Run, RunStatus
from realtime.process import Process, model_status
from tests.support.client import event, frame_of
from tests.support.inprocess import make_user, open_chat_here
from tests.support.model_service import DOTTED_NAME, ToldModel
from tests.support.provider import Provider
from tests.support.transcript import BaseClient
from tests.support.waiting import time_limit


@pytest.fixture(autouse=True)
def own_model(settings: Any) -> None:
    settings.AGENTS = "tests.support.gated_agents"
    settings.MODEL_SERVICE = DOTTED_NAME


@pytest.fixture
def user(transactional_db: None) -> AbstractBaseUser:
    return make_user("ada")


async def status_of(run_id: str) -> str:
    return (await Run.objects.aget(pk=run_id)).status


async def test_a_chat_waits_and_is_answered_when_the_model_is_ready(
    process: Process, user: AbstractBaseUser, provider: Provider
) -> None:
    async with open_chat_here(user) as client:
        await client.wait_for(event("model.status", state="starting"))
        accepted = await client.chat("hello")
        assert accepted["outcome"] == "queued"
        ToldModel.current.tell("fetching", "a third", 1 / 3)
        told = await client.wait_for(event("model.status", state="fetching", fraction=1 / 3))
        assert told["content"] == "a third"
        await process.sweeper.sweep()
        assert await status_of(accepted["run_id"]) == RunStatus.QUEUED
        ToldModel.current.tell("ready", base_url=provider.base_url)
        end = await client.wait_end(accepted["run_id"])
    assert end["type"] == "complete"
    assert "hello" in end["content"]
    assert provider.calls[-1].headers["Authorization"] == "Bearer a-key"


async def test_the_queue_behind_it_is_answered_too(
    process: Process, user: AbstractBaseUser, provider: Provider
) -> None:
    async with open_chat_here(user) as client:
        first = await client.chat("one")
        second = await client.chat("two", first["session_id"])
        ToldModel.current.tell("ready", base_url=provider.base_url)
        for accepted in (first, second):
            assert (await client.wait_end(accepted["run_id"]))["type"] == "complete"


async def test_followers_hear_that_it_waits(process: Process, user: AbstractBaseUser) -> None:
    async with open_chat_here(user) as client:
        first = await client.chat("one", agent="echo")
        await client.wait_end(first["run_id"])
        await client.resume(first["session_id"])
        second = await client.chat("two", first["session_id"], agent="local")
        await client.wait_for(event("run.queued", run_id=second["run_id"], position=0))


async def test_an_agent_with_its_own_model_does_not_wait(
    process: Process, user: AbstractBaseUser
) -> None:
    async with open_chat_here(user) as client:
        accepted = await client.chat("hello", agent="echo")
        assert accepted["outcome"] == "started"
        assert (await client.wait_end(accepted["run_id"]))["type"] == "complete"


async def test_what_waits_can_be_edited(
    process: Process, user: AbstractBaseUser, provider: Provider
) -> None:
    async with open_chat_here(user) as client:
        accepted = await client.chat("hello")
        metadata = {"op": "edit", "run_id": accepted["run_id"]}
        frame = {"type": "queue", "session_id": accepted["session_id"], "metadata": metadata}
        await client.send({**frame, "content": "good morning"})
        await client.wait_for(event("queue.done", op="edit"))
        ToldModel.current.tell("ready", base_url=provider.base_url)
        end = await client.wait_end(accepted["run_id"])
    assert "good morning" in end["content"]


async def test_what_waits_does_not_hold_up_a_stop(process: Process, user: AbstractBaseUser) -> None:
    async with open_chat_here(user) as client:
        accepted = await client.chat("hello")
        async with time_limit("the drain"):
            await process.drain(3_600)
    assert await status_of(accepted["run_id"]) == RunStatus.QUEUED


async def test_what_waits_can_be_stopped(process: Process, user: AbstractBaseUser) -> None:
    async with open_chat_here(user) as client:
        accepted = await client.chat("hello")
        await client.cancel(accepted["session_id"], run_id=accepted["run_id"])
        end = await client.wait_end(accepted["run_id"])
    assert end["metadata"]["finish_reason"] == "cancelled"


async def test_what_waits_ends_when_the_model_does_not_come(
    process: Process, user: AbstractBaseUser
) -> None:
    base = BaseClient()
    async with open_chat_here(user) as client:
        first = await client.chat("one")
        second = await client.chat("two", first["session_id"])
        ToldModel.current.tell("failed", "no network")
        await client.wait_for(event("model.status", state="failed", detail="no network"))
        for accepted in (first, second):
            end = await client.wait_end(accepted["run_id"])
            assert end["type"] == "error"
            assert (end["metadata"]["code"], end["metadata"]["retryable"]) == (
                "model_not_ready",
                True,
            )
    for frame in client.frames:
        base.apply(frame)
    assert len(base.errors) == 2


async def test_a_chat_after_a_failure_has_it_tried_again(
    process: Process, user: AbstractBaseUser, provider: Provider
) -> None:
    async with open_chat_here(user) as client:
        ToldModel.current.tell("failed", "no network")
        await client.wait_for(event("model.status", state="failed"))
        ToldModel.current.tries_again = True
        after = len(client.frames)
        accepted = await client.chat("hello")
        await client.wait_for(event("model.status", state="starting"), after=after)
        await process.sweeper.sweep()
        ToldModel.current.tell("ready", base_url=provider.base_url)
        assert (await client.wait_end(accepted["run_id"]))["type"] == "complete"


async def test_a_run_of_another_process_has_it_tried_again(
    process: Process, user: AbstractBaseUser, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a worker does that gets the run as a job, or finds it by polling."""
    ToldModel.current.tell("failed", "no network")
    ToldModel.current.tries_again = True
    monkeypatch.setattr(process.executor, "offer_claim", lambda agent: None)
    async with open_chat_here(user) as client:
        after = len(client.frames)
        accepted = await client.chat("hello")
        await client.wait_for(event("model.status", state="starting"), after=after)
        ToldModel.current.tell("ready", base_url=provider.base_url)
        assert (await client.wait_end(accepted["run_id"]))["type"] == "complete"


async def test_who_comes_later_is_told_at_once(process: Process, user: AbstractBaseUser) -> None:
    ToldModel.current.tell("ready")
    async with open_chat_here(user) as client:
        told = await client.wait_for(event("model.status"))
        assert [f["metadata"]["event"] for f in client.frames[:2]] == ["connected", "model.status"]
    assert told["metadata"]["state"] == "ready"


async def test_a_model_that_went_away_again_is_no_error_of_ours(
    process: Process, user: AbstractBaseUser
) -> None:
    ToldModel.current.tell("ready")
    ToldModel.current.endpoint = None
    async with open_chat_here(user) as client:
        await client.chat("hello")
        end = await client.wait_for(frame_of("error"))
    assert end["metadata"]["code"] == "model_not_ready"


async def test_pages_know_it_too(process: Process) -> None:
    ToldModel.current.tell("fetching", "half", 0.5)
    status = model_status()
    assert status is not None
    assert (status.state, status.fraction) == ("fetching", 0.5)


async def test_the_client_of_a_server_that_is_gone_is_closed(
    process: Process, transactional_db: None
) -> None:
    """A model of the site's own comes up at another address each time."""
    executor: Any = process.executor
    models = executor._provider
    clients = []
    for number in range(3):
        ToldModel.current.tell("ready", base_url=f"http://127.0.0.1:{number + 1}/v1")
        model = models.get_model("any")
        assert isinstance(model, OpenAIChatCompletionsModel)
        clients.append(model._client)
    await models._closing.settled()
    assert [client.is_closed() for client in clients] == [True, True, False]
    await models.close()
    assert clients[-1].is_closed()
