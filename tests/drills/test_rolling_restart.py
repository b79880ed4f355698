"""A deploy: one server after the other is started anew while many replies are written."""

import asyncio

import pytest

from tests.drills.conftest import Cluster
from tests.support.machine import crowd
from tests.support.provider import Gate, Provider, Reply, words
from tests.support.readers import PATIENCE_S, Reader, read_status
from tests.support.waiting import Noticeboard

STREAMS = crowd(200)
SENT_AT_ONCE = 20
WORDS = words(30)
SHOWN = 3


@pytest.mark.crowd
async def test_no_chat_is_lost(cluster: Cluster, provider: Provider) -> None:
    gate = Gate(SHOWN)
    provider.script = lambda call: Reply(WORDS, delay_s=0.2, gate=gate)
    board, sending = Noticeboard(), asyncio.Semaphore(SENT_AT_ONCE)
    people = (cluster.ann, cluster.ben)
    readers = [Reader(people[number % 2], f"Chat {number}", board) for number in range(STREAMS)]
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
    ends = {str(await read_status(cluster.one, reader, WORDS)) for reader in readers}
    assert ends <= {"completed", "interrupted"}
