"""Units of work: what goes first, what a fault or a cancelled caller leaves."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import AsyncClient

from realtime import dbpool
from realtime.dbpool import Rank
from tests.support.inprocess import make_user
from tests.support.machine import scaled
from tests.support.threads import in_thread
from tests.support.waiting import Noticeboard, time_limit


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


async def test_units_wait_in_the_order_of_their_ranks(held_writer: threading.Event) -> None:
    order: list[str] = []
    waiting = [
        asyncio.create_task(work)
        for work in (
            dbpool.write(order.append, "a list"),
            dbpool.write_chat("ada", order.append, "a chat"),
            dbpool.write_soon(order.append, "a cancel"),
            dbpool.write_first(order.append, "a reply"),
        )
    ]
    await asyncio.sleep(0)
    held_writer.set()
    await asyncio.gather(*waiting)
    assert order == ["a reply", "a cancel", "a chat", "a list"]


async def test_users_take_turns_at_chatting(held_writer: threading.Event) -> None:
    order: list[str] = []
    asked = ["ada 1", "ada 2", "ada 3", "bob 1", "bob 2", "cid 1"]
    chats = [asyncio.create_task(dbpool.write_chat(name[:3], order.append, name)) for name in asked]
    await asyncio.sleep(0)
    held_writer.set()
    await asyncio.gather(*chats)
    assert order == ["ada 1", "bob 1", "cid 1", "ada 2", "bob 2", "ada 3"]


class Held:
    """Units that note their names when they begin, and run until `release` is called."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._released = threading.Event()
        self._board = Noticeboard()

    def unit(self, name: str) -> None:
        self.begun.append(name)
        self._board.post()
        self._released.wait(scaled(60))

    async def until(self, count: int) -> None:
        """Wait until so many have begun."""
        await in_thread(self._board.wait, lambda: len(self.begun) >= count, "units")

    def release(self) -> None:
        self._released.set()


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.release()


@pytest.fixture
async def pool(held: Held) -> AsyncIterator[Any]:
    """Eight threads, as those that Postgres is read and written by."""
    pool = dbpool._Pool(8, "test")
    yield pool
    held.release()
    assert await in_thread(pool.close, time.monotonic() + scaled(30)) == 0


async def test_a_crowd_of_chats_leaves_threads_to_replies(pool: Any, held: Held) -> None:
    def start(name: str, *where: Any) -> asyncio.Task[None]:
        return asyncio.create_task(pool.run(partial(held.unit, name), *where))

    units = [start("chat", Rank.CHAT, f"user {number}") for number in range(20)]
    units += [start("list", Rank.REST) for _ in range(20)]
    await held.until(2)
    units += [start("soon", Rank.SOON) for _ in range(20)]
    await held.until(4)
    units += [start("reply", Rank.REPLY) for _ in range(4)]
    await held.until(8)
    assert held.begun == ["chat"] * 2 + ["soon"] * 2 + ["reply"] * 4
    held.release()
    await asyncio.gather(*units)


async def test_one_users_chats_that_hang_leave_a_thread_to_others(pool: Any, held: Held) -> None:
    hung = [
        asyncio.create_task(pool.run(partial(held.unit, "ada"), Rank.CHAT, "ada")) for _ in range(3)
    ]
    await held.until(1)
    assert await pool.run(lambda: 3, Rank.CHAT, "bob") == 3
    assert held.begun == ["ada"]
    held.release()
    await asyncio.gather(*hung)


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
