"""Units of work: what goes first, what a fault or a cancelled caller leaves."""

import asyncio
import threading
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from django.db import connection
from django.test import AsyncClient

from realtime import dbpool
from tests.support.inprocess import make_user
from tests.support.machine import scaled
from tests.support.threads import in_thread
from tests.support.waiting import time_limit


@pytest.fixture
async def held_writer(transactional_db: None) -> AsyncIterator[threading.Event]:
    """The one thread that writes is at work until the event is set."""
    began, release = threading.Event(), threading.Event()

    def hold() -> None:
        began.set()
        release.wait(scaled(60))

    holding = asyncio.create_task(dbpool.write(hold))
    await in_thread(began.wait, scaled(60))
    yield release
    release.set()
    await holding
    await in_thread(dbpool.shutdown)


@pytest.mark.in_process("elsewhere several threads write")
async def test_a_reply_at_work_goes_before_a_crowd(held_writer: threading.Event) -> None:
    order: list[str] = []
    crowd = [asyncio.create_task(dbpool.write(order.append, f"new {n}")) for n in range(3)]
    at_work = asyncio.create_task(dbpool.write_first(order.append, "at work"))
    # The tasks have run as far as they can: each waits for the thread.
    await asyncio.sleep(0)
    held_writer.set()
    await asyncio.gather(*crowd, at_work)
    assert order == ["at work", "new 0", "new 1", "new 2"]


async def test_a_unit_is_done_also_when_its_caller_is_cancelled(
    held_writer: threading.Event,
) -> None:
    done: list[str] = []
    caller = asyncio.create_task(dbpool.write(done.append, "of a cancelled caller"))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    held_writer.set()
    await dbpool.write(done.append, "the next")
    assert done == ["of a cancelled caller", "the next"]


async def test_a_fault_is_its_callers_alone(held_writer: threading.Event) -> None:
    faulty = asyncio.create_task(dbpool.write(int, "no number"))
    after = asyncio.create_task(dbpool.write(int, "3"))
    held_writer.set()
    with pytest.raises(ValueError, match="no number"):
        await faulty
    assert await after == 3


async def test_shutdown_leaves_a_thread_that_hangs(
    held_writer: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    await in_thread(dbpool.shutdown, 0.05)
    assert "1 database threads did not end" in caplog.text
    assert await dbpool.write(int, "3") == 3


async def test_shutdown_finishes_what_was_handed_in(held_writer: threading.Event) -> None:
    last = asyncio.create_task(dbpool.write(int, "3"))
    await asyncio.sleep(0)
    stopping = asyncio.create_task(in_thread(dbpool.shutdown))
    held_writer.set()
    await stopping
    assert await last == 3


@pytest.mark.django_db(transaction=True)
async def test_a_caller_is_found_out_while_others_write(held_writer: threading.Event) -> None:
    """Behind the writer a crowd's chats would keep everybody from being told who they are."""
    if connection.vendor != "sqlite":
        pytest.skip("elsewhere readers write too")
    client = AsyncClient()
    user = await in_thread(make_user, "ada")
    await in_thread(client.force_login, user)
    async with time_limit("what is tested", within=30):
        answer = await client.get(f"/api/sessions/{uuid4()}/transcript/")
    assert answer.status_code == 404
