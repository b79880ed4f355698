"""Units of work: what goes first, what a fault or a cancelled caller leaves."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from realtime import dbpool
from tests.support.machine import scaled
from tests.support.threads import in_thread


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
