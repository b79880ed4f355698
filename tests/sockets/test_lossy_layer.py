"""The promise under a layer that loses, repeats and reorders: the text is the database's."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import pytest
from channels.layers import get_channel_layer

from conversations.models import Message, Run, RunStatus
from realtime.process import Process
from tests.support.client import ChatClient
from tests.support.inprocess import make_user, open_chat_here
from tests.support.machine import crowd
from tests.support.site_agents import echo_words
from tests.support.threads import in_thread
from tests.support.transcript import BaseClient

SESSIONS = 20
TURNS = crowd(1_000) // SESSIONS
REPLIES = SESSIONS * TURNS


@pytest.fixture(autouse=True)
def lossy(settings: Any) -> None:
    settings.AGENTS = "tests.support.site_agents"
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "tests.support.layers.LossyLayer", "CONFIG": {"seed": 7}}
    }
    settings.REALTIME = {
        **settings.REALTIME,
        # The test compares heads itself, to know when.
        "head_interval_s": 86_400,
        "flush_interval_ms": 1,
        "frames_per_minute": 100_000,
        "lease_s": 600,
        "sweep_s": 600,
    }


class Pair:
    """Two sockets of one user: a base client that chats, and a follower of the same session."""

    def __init__(self, client: ChatClient, follower: ChatClient, number: int) -> None:
        self.client, self.follower, self.number = client, follower, number
        self.session_id = ""

    async def talk(self) -> None:
        for turn in range(TURNS):
            accepted = await self.client.chat(f"session {self.number} turn {turn}", self.session_id)
            if not self.session_id:
                self.session_id = accepted["session_id"]
                await self.follower.resume(self.session_id, rev=0)
            await self.client.wait_end(accepted["run_id"], within=120)

    async def check(self) -> None:
        """Everything that has been sent is the database's, and every begun run has its end."""
        kept = await self._read_kept()
        for reader in (self.client, self.follower):
            await reader.ping()
            assert self._differences(reader, kept) == []
        base = BaseClient()
        for frame in self.client.frames:
            base.apply(frame)
        assert len(base.replies) == TURNS

    async def _read_kept(self) -> dict[str, str]:
        replies = Message.objects.filter(session=UUID(self.session_id), role="assistant")
        return {str(message.pk): message.text async for message in replies}

    def _differences(self, reader: ChatClient, kept: dict[str, str]) -> list[str]:
        shown, runs = reader.transcript.shown(self.session_id), reader.transcript.runs.values()
        unended = [f"run {run.number} has no end" for run in runs if not run.terminal]
        return unended + [
            f"{text!r} is {shown.get(key)!r}"
            for key, text in kept.items()
            if shown.get(key) != text
        ]


async def _keep_polling(process: Process) -> None:
    """The heads that the process would compare at its intervals, one after another."""
    while True:
        await process.poller.poll()


@pytest.mark.timeout(300)
async def test_many_replies_over_a_lossy_layer(process: Process, transactional_db: None) -> None:
    async with AsyncExitStack() as sockets:
        pairs = []
        for number in range(SESSIONS):
            user = await in_thread(make_user, f"user{number}")
            client, follower = [
                await sockets.enter_async_context(open_chat_here(user)) for _ in range(2)
            ]
            pairs.append(Pair(client, follower, number))
        polling = asyncio.create_task(_keep_polling(process))
        await asyncio.gather(*(pair.talk() for pair in pairs))
        polling.cancel()
        await asyncio.wait([polling])
        # The fault ends here: one comparison of heads and a round trip must mend all that is left.
        await process.poller.poll()
        for pair in pairs:
            await pair.check()
    counts = get_channel_layer().counts
    faults = ("dropped", "duplicated", "reordered", "last_lost")
    assert min(counts[fault] for fault in faults) > REPLIES / 10
    assert await Run.objects.filter(status=RunStatus.COMPLETED).acount() == REPLIES
    async for run in Run.objects.select_related("prompt", "reply"):
        assert run.reply.text == "".join(echo_words(run.prompt.text))
