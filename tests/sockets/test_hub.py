"""Messages of the channel layer reach all readers of a process over one channel."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer

from realtime.channel_layer import LIST_SENDS_PER_S, Hub, UserFeed, send
from realtime.dbpool import SharedReads
from realtime.tasks import Supervisor
from tests.support.waiting import time_limit


class Layer(InMemoryChannelLayer):
    """Counts what it is asked for, and fails to receive when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.fails = asyncio.Event()
        self.added_again = asyncio.Event()
        self.discarding = asyncio.Event()
        self.may_discard = asyncio.Event()
        self.may_discard.set()

    async def group_add(self, group: str, channel: str) -> None:
        self.calls.append(f"add {group}")
        await super().group_add(group, channel)
        if self.calls.count(f"add {group}") == 2:
            self.added_again.set()

    async def group_discard(self, group: str, channel: str) -> None:
        self.calls.append(f"discard {group}")
        self.discarding.set()
        await self.may_discard.wait()
        await super().group_discard(group, channel)

    async def receive(self, channel: str) -> Any:
        failure = asyncio.create_task(self.fails.wait())
        message = asyncio.create_task(super().receive(channel))
        try:
            await asyncio.wait((failure, message), return_when=asyncio.FIRST_COMPLETED)
            if failure.done():
                self.fails.clear()
                raise OSError("the connection is lost")
            return message.result()
        finally:
            failure.cancel()
            message.cancel()


class Reader:
    def __init__(self) -> None:
        self.got: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()

    def deliver(self, message: Mapping[str, Any]) -> None:
        self.got.put_nowait(message)

    async def next(self) -> Mapping[str, Any]:
        async with time_limit("a message"):
            return await self.got.get()


@pytest.fixture
def layer() -> Layer:
    return Layer()


@pytest.fixture
async def hub(layer: Layer) -> AsyncIterator[Hub]:
    hub, tasks = Hub(layer), Supervisor()
    tasks.start(hub.run(), "hub")
    yield hub
    await tasks.stop()


async def test_readers_share_one_membership(layer: Layer, hub: Hub) -> None:
    one, two, other = Reader(), Reader(), Reader()
    await asyncio.gather(hub.join("a", one), hub.join("a", two), hub.join("b", other))
    assert sorted(layer.calls) == ["add a", "add b"]
    await send(layer, ("a", {"type": "x", "n": 1}))
    assert await one.next() is await two.next()
    await hub.leave(["a"], one)
    await send(layer, ("a", {"type": "x", "n": 2}))
    assert (await two.next())["n"] == 2
    assert one.got.empty()
    assert other.got.empty()
    await hub.leave(["a"], two)
    assert layer.calls[-1] == "discard a"


async def test_after_a_failure_all_groups_are_joined_again(layer: Layer, hub: Hub) -> None:
    reader = Reader()
    await hub.join("a", reader)
    layer.fails.set()
    async with time_limit("the second join"):
        await layer.added_again.wait()
    await send(layer, ("a", {"type": "x"}))
    await reader.next()


async def test_of_two_that_come_and_go_at_once_the_last_counts(layer: Layer, hub: Hub) -> None:
    one, two = Reader(), Reader()
    await hub.join("a", one)
    await asyncio.gather(hub.leave(["a"], one), hub.join("a", two))
    await send(layer, ("a", {"type": "x"}))
    await two.next()


async def test_a_leave_that_is_cancelled_keeps_no_reader(layer: Layer, hub: Hub) -> None:
    """As of a socket that is closed while the layer hangs."""
    gone, stays = Reader(), Reader()
    await asyncio.gather(*(hub.join(name, gone) for name in "abc"), hub.join("b", stays))
    layer.may_discard.clear()
    leaving = asyncio.create_task(hub.leave("abc", gone))
    async with time_limit("the discard"):
        await layer.discarding.wait()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await send(layer, ("b", {"type": "x"}))
    await stays.next()
    assert gone.got.empty()
    layer.may_discard.set()
    assert await hub.rejoin()
    assert sorted(layer.groups) == ["b"]


async def test_a_message_without_its_group_is_ignored(layer: Layer, hub: Hub) -> None:
    """As one of a process that runs an earlier version."""
    reader = Reader()
    await hub.join("a", reader)
    await layer.group_send("a", {"type": "x", "n": 1})
    await send(layer, ("a", {"type": "x", "n": 2}))
    assert (await reader.next())["n"] == 2


class TestUserFeed:
    """Frames about the list of one user's sessions."""

    async def test_a_few_sockets_get_each_frame_at_once(self) -> None:
        one, two = Reader(), Reader()
        UserFeed({one, two}).put({"type": "user.frames", "keys": ["a", "b"], "frames": ["1", "2"]})
        for reader in (one, two):
            assert [reader.got.get_nowait()["frames"] for _ in range(2)] == [["1"], ["2"]]

    async def test_of_what_waits_the_last_is_sent(self) -> None:
        """Each frame costs more sends than a second allows, so the first one uses them up."""
        readers: set[Any] = {Reader() for _ in range(LIST_SENDS_PER_S // 50)}
        feed, reader = UserFeed(readers), next(iter(readers))
        for number in range(1_000):
            feed.put({"type": "user.frames", "keys": ["a"], "frames": [str(number)]})
        feed.put({"type": "user.frames", "keys": ["b"], "frames": ["b"]})
        told: list[str] = []
        while not told or told[-1] != "b":
            told += (await reader.next())["frames"]
        assert len(told) < 200
        assert told[-2] == "999"
        feed.close()


async def test_a_read_is_shared_by_those_who_ask_before_it_begins() -> None:
    begun, gate, results = asyncio.Event(), asyncio.Event(), iter("ab")
    loop, reads = asyncio.get_running_loop(), SharedReads()

    def read() -> str:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
        return next(results)

    async with time_limit("the reads"), asyncio.TaskGroup() as tasks:
        first = [tasks.create_task(reads.read(read)) for _ in range(3)]
        await begun.wait()
        late = [tasks.create_task(reads.read(read)) for _ in range(3)]
        await asyncio.sleep(0)
        gate.set()
    assert {task.result() for task in first} == {"a"}
    assert {task.result() for task in late} == {"b"}


async def test_a_shared_read_that_fails_does_for_all_and_for_no_later_one() -> None:
    reads = SharedReads()

    def fail() -> str:
        raise LookupError("gone")

    both = await asyncio.gather(*(reads.read(fail) for _ in range(2)), return_exceptions=True)
    assert [type(each) for each in both] == [LookupError, LookupError]
    assert await reads.read(lambda: "there") == "there"
