"""A deploy: one server after the other is started anew while many replies are written."""

import asyncio
from itertools import cycle
from uuid import uuid4

import pytest

from tests.drills.conftest import Cluster
from tests.support.client import ChatClient
from tests.support.kept import Kept, differences, read_ended
from tests.support.machine import crowd
from tests.support.provider import Gate, Provider, Reply, words
from tests.support.site import Site, User
from tests.support.transcript import Transcript
from tests.support.waiting import Noticeboard

STREAMS = crowd(200)
SENT_AT_ONCE = 20
PATIENCE_S = 90
WORDS = words(30)
SHOWN = 3


class Reader:
    """A page: it writes one message, and goes wherever a server is until the reply has ended."""

    def __init__(self, user: User, number: int, board: Noticeboard) -> None:
        self.user = user
        self.text = f"Chat {number}"
        self.client_message_id = uuid4().hex
        self.transcript = Transcript()
        self.session_id = self.run_id = ""
        self.client: ChatClient | None = None
        self._board = board

    @property
    def has_begun(self) -> bool:
        run = self.transcript.runs.get(self.run_id)
        return run is not None and bool(run.text)

    @property
    def has_ended(self) -> bool:
        run = self.transcript.runs.get(self.run_id)
        return run is not None and run.terminal is not None

    async def read(self, sites: list[Site], sending: asyncio.Semaphore) -> None:
        """To the end."""
        for site in cycle(sites):
            try:
                async with site.chat(self.user, self.transcript) as self.client:
                    await self._send(self.client, sending)
                    await self.client.wait_until(lambda: self.has_ended, within=PATIENCE_S)
                    return
            except (ConnectionError, OSError):
                continue

    async def _send(self, client: ChatClient, sending: asyncio.Semaphore) -> None:
        if not self.session_id:
            async with sending:
                accepted = await client.chat(self.text, client_message_id=self.client_message_id)
            self.session_id, self.run_id = accepted["session_id"], accepted["run_id"]
        await client.resume(self.session_id)
        await client.wait_until(lambda: self.has_begun or self.has_ended, within=PATIENCE_S)
        self._board.post()


@pytest.mark.crowd
async def test_no_chat_is_lost(cluster: Cluster, provider: Provider) -> None:
    gate = Gate(SHOWN)
    provider.script = lambda call: Reply(WORDS, delay_s=0.2, gate=gate)
    board, sending = Noticeboard(), asyncio.Semaphore(SENT_AT_ONCE)
    people = (cluster.ann, cluster.ben)
    readers = [Reader(people[number % 2], number, board) for number in range(STREAMS)]
    sites = [cluster.one, cluster.two]
    reading = [
        asyncio.create_task(reader.read(sites[number // 2 % 2 :] + sites, sending))
        for number, reader in enumerate(readers)
    ]
    await board.until(lambda: all(reader.has_begun for reader in readers), within=PATIENCE_S)
    gate.open()
    for site in sites:
        assert await asyncio.to_thread(site.terminate) == 0
        await site.start_aside()
    await asyncio.gather(*reading)
    ends = {str(await look_at(cluster.one, reader)) for reader in readers}
    assert ends <= {"completed", "interrupted"}


async def look_at(site: Site, reader: Reader) -> str:
    """What is shown is what is kept: one message and one reply; how that ended."""
    kept: Kept = await read_ended(site, reader.user, reader.session_id)
    assert kept.prompts == [reader.text]
    assert reader.client
    assert differences(reader.client, reader.session_id, kept) == []
    [reply] = kept.replies
    assert reply["run_status"] == "completed" or "".join(WORDS).startswith(reply["text"])
    return str(reply["run_status"])
