"""How a run ends when its stream does not, when its end cannot be written, and when it is late."""

import asyncio
import logging
from typing import Any

import pytest
from agents import Agent
from agents.testing import ScriptedModel, assistant_message
from django.contrib.auth.models import User
from django.db import IntegrityError, OperationalError

from conversations.changes import RunLostError
from conversations.models import Message, Run
from conversations.runs import lifecycle
from realtime.process import Process
from realtime.work import run as run_module
from realtime.work.journal import Journal
from tests.support.agent_site import Serve
from tests.support.chats import ask, begin, make_user
from tests.support.client import ChatClient
from tests.support.inprocess import open_chat_here
from tests.support.threads import in_thread

SECRET = "heron"
FINISH = lifecycle.finish_run


def serve_echo(serve_agents: Serve) -> None:
    model = ScriptedModel([[assistant_message(SECRET)]])
    serve_agents(Agent(name="desk", model=model))


async def test_a_stream_that_outlives_its_run_begins_nothing_more(transactional_db: None) -> None:
    """A tool begins when its start is committed, which a closed journal never does."""
    claimed = await in_thread(lambda: begin(ask(make_user("ann"), "hi")))
    journal = Journal(claimed, lambda journal, urgent: None)
    journal.append("token", {"delta": "a"})
    waiting = asyncio.create_task(journal.commit())
    await asyncio.sleep(0)
    journal.close()
    with pytest.raises(RunLostError):
        await waiting
    journal.append("token", {"delta": "b"})
    with pytest.raises(RunLostError):
        await journal.commit()
    assert [payload for _, _, payload in journal.take_rest()] == [{"delta": "a"}]
    assert journal.folder.parts[0]["text"] == "a"


class Finish:
    """In the place of `finish_run`: raises `errors`, one a call, and then does its work."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return FINISH(*args, **kwargs)


async def chat(client: ChatClient) -> str:
    accepted = await client.chat("How many?")
    await client.wait_end(accepted["run_id"])
    return str(accepted["run_id"])


@pytest.mark.parametrize("error", [TypeError(SECRET), IntegrityError(SECRET)])
async def test_an_end_that_cannot_be_written_is_a_failure_at_once(
    process: Process,
    serve_agents: Serve,
    ada: User,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    finish = Finish(error)
    monkeypatch.setattr(lifecycle, "finish_run", finish)
    serve_echo(serve_agents)
    with caplog.at_level(logging.ERROR, run_module.__name__):
        async with open_chat_here(ada) as client:
            run_id = await chat(client)
    run = await Run.objects.aget()
    assert (run.status, run.error_code, finish.calls) == ("failed", "internal", 2)
    assert f"run {run_id}: writing its end failed: {type(error).__name__}" in caplog.text
    assert "test_run_ends.py" in caplog.text, "the traceback"
    assert SECRET not in caplog.text


async def test_an_end_is_written_again_while_the_database_is_away(
    process: Process, serve_agents: Serve, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "RETRY_PAUSE_S", 0)
    finish = Finish(OperationalError(), OperationalError())
    monkeypatch.setattr(lifecycle, "finish_run", finish)
    serve_echo(serve_agents)
    async with open_chat_here(ada) as client:
        await chat(client)
    run = await Run.objects.aget()
    assert (run.status, finish.calls) == ("completed", 3)
    reply = await Message.objects.aget(role="assistant")
    assert reply.text == SECRET


async def test_waiting_for_a_place_is_no_work(
    process: Process, serve_agents: Serve, ada: User, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_echo(serve_agents)
    executor: Any = process.executor
    starts = executor._provider.starts
    enter, asked, free = starts.enter, asyncio.Event(), asyncio.Event()

    async def wait_long(*args: Any, **kwargs: Any) -> Any:
        asked.set()
        await free.wait()
        return await enter(*args, **kwargs)

    monkeypatch.setattr(starts, "enter", wait_long)
    settings.REALTIME = {**settings.REALTIME, "run_max_s": 0.01}
    async with open_chat_here(ada) as client:
        accepted = await client.chat("How many?")
        await asked.wait()
        # More than the run may take; nothing ends it meanwhile.
        await asyncio.sleep(0.1)
        settings.REALTIME = {**settings.REALTIME, "run_max_s": 600}
        free.set()
        await client.wait_end(accepted["run_id"])
    run = await Run.objects.aget()
    assert (run.status, run.error_code) == ("completed", "")


async def test_work_that_takes_too_long_ends(
    process: Process, serve_agents: Serve, ada: User, settings: Any
) -> None:
    class Silent(ScriptedModel):
        async def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            await asyncio.Event().wait()
            yield None

    settings.REALTIME = {**settings.REALTIME, "run_max_s": 0.05}
    serve_agents(Agent(name="desk", model=Silent([])))
    async with open_chat_here(ada) as client:
        await chat(client)
    assert (await Run.objects.aget()).error_code == "limit_time"
