"""Readers that do not read: they cost little, slow nobody, and are resynced or cut off."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drills.conftest import drill_site
from tests.support.client import ChatClient, open_chat
from tests.support.kept import converge
from tests.support.provider import Provider, Reply, words
from tests.support.site import Site

LARGE = "".join(words(1_500)) + "\n\n"
REPLY = [LARGE] * 24
PUSHED_BYTES = 20_000_000
SLEEPERS = 4
RECEIVE_BUFFER = 4_096
MEMORY_BYTES = 40_000_000
SEND_TIMEOUT_S = 8
SLOWEST_PONG_S = 1.0


@pytest.fixture(scope="module")
def pushing_site(shared_provider: Provider) -> Iterator[Site]:
    changes = {"SEND_TIMEOUT_S": str(SEND_TIMEOUT_S), "CONTEXT_MESSAGES": "1"}
    with drill_site(shared_provider, **changes) as site:
        yield site


def memory_of(site: Site) -> int:
    """Resident bytes of the server."""
    status = Path(f"/proc/{site.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1_024


def received_bytes(client: ChatClient) -> int:
    return sum(len(str(frame)) for frame in client.frames)


async def push(client: ChatClient, session_id: str) -> None:
    """One large reply; others are served meanwhile."""
    accepted = await client.chat("Much, please", session_id)
    asked_at = time.monotonic()
    await client.ping()
    assert time.monotonic() - asked_at < SLOWEST_PONG_S
    await client.wait_end(accepted["run_id"])


async def test_sleepers_cost_little_and_are_cut_off(
    pushing_site: Site, provider: Provider
) -> None:
    site, ann = pushing_site, pushing_site.users["ann"]
    provider.script = lambda call: Reply(REPLY)
    async with contextlib.AsyncExitStack() as stack:
        desk = await stack.enter_async_context(site.chat(ann))
        session_id = (await desk.chat("Much, please"))["session_id"]
        await desk.resume(session_id)
        for _ in range(3):
            await push(desk, session_id)
        before, pushed = memory_of(site), received_bytes(desk)
        sleepers = []
        for _ in range(SLEEPERS):
            chat = open_chat(site.ws_url, bearer=ann.token, receive_buffer=RECEIVE_BUFFER)
            sleepers.append(await stack.enter_async_context(chat))
            await sleepers[-1].resume(session_id)
            sleepers[-1].fall_asleep()
        most = before
        while received_bytes(desk) - pushed < PUSHED_BYTES:
            await push(desk, session_id)
            most = max(most, memory_of(site))
        print("RSS", before, most, most-before)
        assert most - before < MEMORY_BYTES
        for sleeper in sleepers:
            await desk.ping()
            # It reads again only once the server has given it up: nothing is there to be read.
        await converge(site, ann, session_id, desk)
