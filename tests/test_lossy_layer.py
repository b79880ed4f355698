"""The promise under a layer that loses, repeats and reorders: the text is the database's."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from channels.layers import get_channel_layer
from django.contrib.auth.base_user import AbstractBaseUser

from conversations.models import Message, Run, RunStatus
from realtime.process import Process
from tests.support.client import ChatClient
from tests.support.inprocess import make_user, open_chat_here
from tests.support.site_agents import echo_words
from tests.support.threads import in_thread
from tests.support.transcript import BaseClient

REPLIES = 1_000
SESSIONS = 20
HEAD_INTERVAL_S = 0.3


@pytest.fixture(autouse=True)
def lossy(settings: Any) -> None:
    settings.AGENTS = "tests.support.site_agents"
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "tests.support.layers.LossyLayer", "CONFIG": {"seed": 7}}
    }
    settings.REALTIME = {
        **settings.REALTIME,
        "head_interval_s": HEAD_INTERVAL_S,
        "flush_interval_ms": 1,
        "frames_per_minute": 100_000,
        "lease_s": 600,
        "sweep_s": 600,
    }


async def _talk(user: AbstractBaseUser, number: int) -> None:
    """A base client chats while a follower of the same session looks on."""
    async with open_chat_here(user) as client, open_chat_here(user) as follower:
        session_id = ""
        for turn in range(REPLIES // SESSIONS):
            accepted = await client.chat(f"session {number} turn {turn}", session_id)
            if not session_id:
                session_id = accepted["session_id"]
                await follower.resume(session_id, rev=0)
            await client.wait_end(accepted["run_id"], within=60)
        await _converged(follower, session_id)
        await _converged(client, session_id)
        base = BaseClient()
        for frame in client.frames:
            base.apply(frame)
        assert len(base.replies) == REPLIES // SESSIONS


async def _converged(client: ChatClient, session_id: str) -> None:
    """Everything that is shown is the database's, and every run that was begun has its end."""
    kept = {
        str(message.pk): message.text
        async for message in Message.objects.filter(session=UUID(session_id), role="assistant")
    }

    def differences() -> list[str]:
        shown = client.transcript.shown(session_id)
        runs = [run for run in client.transcript.runs.values() if run.session_id == session_id]
        unended = [f"run {run.number} has no end" for run in runs if not run.terminal]
        wrong = [
            f"{text!r} is {shown.get(key)!r}"
            for key, text in kept.items()
            if shown.get(key) != text
        ]
        return unended + wrong

    try:
        await client.wait_until(lambda: not differences(), within=HEAD_INTERVAL_S + 30)
    except TimeoutError:
        raise AssertionError("\n".join(differences())) from None


@pytest.mark.timeout(300)
async def test_1000_replies_over_a_lossy_layer(process: Process, transactional_db: None) -> None:
    users = [await in_thread(make_user, f"user{n}") for n in range(SESSIONS)]
    await asyncio.gather(*(_talk(user, number) for number, user in enumerate(users)))
    counts = get_channel_layer().counts
    assert min(counts[fault] for fault in ("dropped", "duplicated", "reordered", "last_lost")) > 100
    assert await Run.objects.filter(status=RunStatus.COMPLETED).acount() == REPLIES
    async for run in Run.objects.select_related("prompt", "reply"):
        assert run.reply.text == "".join(echo_words(run.prompt.text))
