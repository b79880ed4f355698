"""Two tabs at once: whatever they do in whatever order, no run is left behind."""

import asyncio
import random
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.base_user import AbstractBaseUser

from conversations.models import ACTIVE, ChatSession, Run
from realtime.process import Process
from tests.support.client import ChatClient, frame_of
from tests.support.inprocess import make_user, open_chat_here
from tests.support.machine import crowd
from tests.support.threads import in_thread
from tests.support.transcript import Frame, event_of

INTERLEAVINGS = crowd(200)
AT_ONCE = 10
STEPS = 4


@pytest.fixture(autouse=True)
def quick(settings: Any) -> None:
    settings.AGENTS = "tests.support.site_agents"
    settings.REALTIME = {
        **settings.REALTIME,
        "head_interval_s": 0.3,
        "flush_interval_ms": 1,
        "frames_per_minute": 100_000,
        "lease_s": 600,
        "sweep_s": 600,
    }


async def _act(client: ChatClient, session_id: str, rng: random.Random) -> None:
    """One tab: a few chats and cancels, with pauses of the loop between them."""
    for step in range(STEPS):
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        if rng.random() < 0.3:
            await client.cancel(session_id)
            continue
        on_busy = rng.choice(["enqueue", "interrupt", "reject"])
        after = len(client.frames)
        client_message_id = str(uuid4())
        await client.send_chat(
            f"step {step}", session_id, client_message_id=client_message_id, on_busy=on_busy
        )
        answer = await client.wait_for(partial(_answers, client_message_id), after=after)
        assert answer["type"] != "error" or answer["metadata"]["code"] == "busy"


def _answers(client_message_id: str, frame: Frame) -> bool:
    is_answer = frame["type"] == "error" or event_of(frame) == "accepted"
    return is_answer and frame["metadata"].get("client_message_id") == client_message_id


async def _interleave(user: AbstractBaseUser, seed: int) -> None:
    rng = random.Random(seed)
    async with open_chat_here(user) as one, open_chat_here(user) as two:
        accepted = await one.chat("begin")
        session_id = accepted["session_id"]
        for tab in (one, two):
            # By its name: it may have ended by now.
            await tab.resume(session_id, rev=0, run_id=accepted["run_id"])
        await asyncio.gather(*(_act(tab, session_id, rng) for tab in (one, two)))
        for tab in (one, two):
            await _all_ended(tab, session_id, seed)
        assert one.transcript.shown(session_id) == two.transcript.shown(session_id)


async def _all_ended(tab: ChatClient, session_id: str, seed: int) -> None:
    """This tab has seen the end of every run that there is."""
    runs = {
        str(pk)
        async for pk in Run.objects.filter(session=UUID(session_id)).values_list("pk", flat=True)
    }

    def ended() -> set[str]:
        return {key for key, run in tab.transcript.runs.items() if run.terminal}

    try:
        await tab.wait_until(lambda: ended() >= runs)
    except TimeoutError:
        left = Run.objects.filter(pk__in=runs - ended()).values_list("number", "status")
        raise AssertionError(f"seed {seed}: no end of {[run async for run in left]}") from None


@pytest.mark.timeout(300)
async def test_interleavings_leave_no_run_behind(process: Process, transactional_db: None) -> None:
    user = await in_thread(make_user, "ada")
    for start in range(0, INTERLEAVINGS, AT_ONCE):
        seeds = range(start, start + AT_ONCE)
        await asyncio.gather(*(_interleave(user, seed) for seed in seeds))
    assert await Run.objects.filter(status__in=ACTIVE).acount() == 0
    async for session in ChatSession.objects.all():
        numbers = [
            n async for n in session.runs.order_by("number").values_list("number", flat=True)
        ]
        assert numbers == list(range(1, session.run_count + 1))
    assert await Run.objects.filter(status="cancelled").acount() > INTERLEAVINGS / 4


async def test_interrupt_goes_before_what_waits(process: Process, transactional_db: None) -> None:
    user = await in_thread(make_user, "ada")
    async with open_chat_here(user) as client:
        first = await client.chat("take your time", agent="patient")
        session_id = first["session_id"]
        waiting = await client.chat("waiting", session_id, agent="echo")
        urgent = await client.chat("urgent", session_id, agent="echo", on_busy="interrupt")
        assert [a["outcome"] for a in (first, waiting, urgent)] == [
            "started",
            "queued",
            "interrupting",
        ]
        ends = [await client.wait_end(a["run_id"]) for a in (first, urgent, waiting)]
    assert [end["metadata"]["finish_reason"] for end in ends] == [
        "cancelled",
        "completed",
        "completed",
    ]
    assert ends[0]["metadata"]["reason"] == "redirect"
    assert [end["metadata"]["run_number"] for end in ends] == [1, 2, 3]


async def test_the_queue_holds_so_many_and_reject_refuses(
    process: Process, transactional_db: None, settings: Any
) -> None:
    settings.REALTIME = {**settings.REALTIME, "queue_max": 1}
    user = await in_thread(make_user, "ada")
    async with open_chat_here(user) as client:
        first = await client.chat("take your time", agent="patient")
        await client.chat("waits", first["session_id"], agent="echo")
        for on_busy, code in (("enqueue", "queue_full"), ("reject", "busy")):
            after = len(client.frames)
            await client.send_chat("no room", first["session_id"], on_busy=on_busy)
            error = await client.wait_for(frame_of("error"), after=after)
            assert (error["metadata"]["code"], error["metadata"]["retryable"]) == (code, True)
        await client.cancel(first["session_id"], run_id=first["run_id"])
        await client.wait_end(first["run_id"])
