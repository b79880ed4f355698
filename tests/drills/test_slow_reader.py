"""Readers that do not read: they cost little, slow nobody, and are resynced or cut off."""

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.drills.conftest import drill_site
from tests.support.client import ChatClient, event, open_chat
from tests.support.kept import converge, differences, read_ended
from tests.support.machine import scaled
from tests.support.provider import Call, Provider, Reply, words
from tests.support.site import Site, User
from tests.support.transcript import Transcript
from tests.support.waiting import poll

SLEEPERS = 4
RECEIVE_BUFFER = 4_096
SEND_TIMEOUT_S = 5
PUSHED_BYTES = 20_000_000
MEMORY_BYTES = 40_000_000


SETTINGS = {
    # The model is not sent it all again each time: that would be the memory that is measured.
    "CONTEXT_MESSAGES": "1",
    # Nor does a limit stand in the way of so much text.
    "TOKENS_PER_DAY": "0",
    "OUTPUT_TOKENS": "1000000",
}


@pytest.fixture(scope="module")
def pushing_site(shared_provider: Provider) -> Iterator[Site]:
    """It gives up who does not read."""
    send_timeout = {"SEND_TIMEOUT_S": str(scaled(SEND_TIMEOUT_S))}
    with drill_site(shared_provider, **SETTINGS, **send_timeout) as site:
        yield site


@pytest.fixture(scope="module")
def patient_site(shared_provider: Provider) -> Iterator[Site]:
    """It waits for as long as a test may take."""
    with drill_site(shared_provider, **SETTINGS, SEND_TIMEOUT_S="3600") as site:
        yield site


def say_much(call: Call) -> Reply:
    """Some 200 kB, which are sent as tokens, as the whole text and as HTML."""
    return Reply(["".join(words(1_500)) + "\n\n"] * 26)


def memory_of(site: Site) -> int:
    """Resident bytes of the server."""
    status = Path(f"/proc/{site.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1_024


def received_bytes(client: ChatClient) -> int:
    return sum(len(str(frame)) for frame in client.frames)


def open_narrow(
    site: Site, user: User, transcript: Transcript | None = None
) -> AbstractAsyncContextManager[ChatClient]:
    """A client for which the kernel keeps little."""
    return open_chat(
        site.ws_url, bearer=user.token, transcript=transcript, receive_buffer=RECEIVE_BUFFER
    )


async def push(client: ChatClient, session_id: str) -> None:
    """One large reply; others are served meanwhile."""
    accepted = await client.chat("Much, please", session_id)
    await client.ping()
    await client.wait_end(accepted["run_id"])


@pytest.mark.crowd
async def test_sleepers_cost_little_and_are_cut_off(pushing_site: Site, provider: Provider) -> None:
    site, ann = pushing_site, pushing_site.users["ann"]
    provider.script = say_much
    async with contextlib.AsyncExitStack() as stack:
        desk = await stack.enter_async_context(site.chat(ann))
        session_id = (await desk.chat("Much, please"))["session_id"]
        await desk.resume(session_id)
        for _ in range(3):
            await push(desk, session_id)
        sleepers = [
            await stack.enter_async_context(open_narrow(site, ann)) for _ in range(SLEEPERS)
        ]
        for sleeper in sleepers:
            await sleeper.resume(session_id)
            sleeper.fall_asleep()
        memory, before = [memory_of(site)], received_bytes(desk)
        while received_bytes(desk) - before < PUSHED_BYTES:
            await push(desk, session_id)
            memory.append(memory_of(site))
        assert max(memory) - memory[0] < MEMORY_BYTES
        for sleeper in sleepers:
            await given_up(sleeper)
        await converge(site, ann, session_id, desk)
        again = await stack.enter_async_context(site.chat(ann, sleepers[0].transcript))
        # So much was missed that it is to be loaded as a page does.
        assert (await again.resume(session_id))["metadata"]["recovered"] is False


async def given_up(sleeper: ChatClient) -> None:
    """Wait until the server has cut it off."""
    await asyncio.to_thread(poll, lambda: sleeper.is_cut, "the cut")
    sleeper.wake_up()
    await sleeper.wait_closed()


@pytest.mark.parametrize("replies", [8, 16])
async def test_sleeper_that_wakes_is_caught_up(
    patient_site: Site, provider: Provider, replies: int
) -> None:
    """By frames, or by being told that so much is to be loaded."""
    site, ann = patient_site, patient_site.users["ann"]
    provider.script = say_much
    async with site.chat(ann) as desk, open_narrow(site, ann) as sleeper:
        session_id = (await desk.chat("Much, please"))["session_id"]
        await desk.resume(session_id)
        await sleeper.resume(session_id, rev=0)
        sleeper.fall_asleep()
        for _ in range(replies):
            await push(desk, session_id)
        kept = await read_ended(site, ann, session_id)
        sleeper.wake_up()
        await sleeper.wait_until(
            lambda: is_told_to_load(sleeper) or not differences(sleeper, session_id, kept)
        )
        await converge(site, ann, session_id, desk)


def is_told_to_load(client: ChatClient) -> bool:
    return any(event("resumed", recovered=False)(frame) for frame in client.frames)


async def test_one_reply_larger_than_an_outbox(patient_site: Site, provider: Provider) -> None:
    site, ann = patient_site, patient_site.users["ann"]
    reply = Reply([f"{'x' * 9_999} "] * 60)
    provider.queue(reply)
    transcript = Transcript()
    async with site.chat(ann) as base, site.chat(ann, transcript) as follower:
        accepted = await base.chat("More, please")
        await follower.resume(accepted["session_id"], rev=0)
        follower.drop()
        assert (await base.wait_end(accepted["run_id"]))["content"] == reply.text
    async with site.chat(ann, transcript) as follower:
        await follower.resume(accepted["session_id"])
        await converge(site, ann, accepted["session_id"], follower)
