"""How many sockets there are of whom, counted by several processes in one Redis."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from realtime.channel_layer import open_redis
from realtime.sockets import limits as limits_module
from realtime.sockets.limits import FrameLimit, Places, UserFrames
from tests.support.servers import Valkey
from tests.support.waiting import time_limit

ANN: dict[Hashable, int] = {("user", 1): 2}


@pytest.fixture
def fast(settings: Any, valkey: Valkey) -> None:
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [valkey.url]},
        }
    }
    settings.REALTIME = {**settings.REALTIME, "lease_s": 60, "beat_s": 0.05}


@asynccontextmanager
async def running(places: Places) -> AsyncIterator[Places]:
    """Those of a process; it dies without a word if `run` is cancelled within."""
    task = asyncio.create_task(places.run())
    try:
        await until(lambda: places._is_joined)
        yield places
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def eventually(take: Callable[[], Awaitable[Any]]) -> Any:
    """What `take` gives as soon as it gives something."""
    async with time_limit("a place"):
        while (taken := await take()) is None:  # noqa: ASYNC110 (what changes is in Redis)
            await asyncio.sleep(0.01)
    return taken


async def until(met: Callable[[], object]) -> None:
    async with time_limit("the count"):
        while not met():  # noqa: ASYNC110 (what changes is in Redis)
            await asyncio.sleep(0.01)


async def test_two_processes_count_together(fast: None) -> None:
    async with running(Places(open_redis())) as one, running(Places(open_redis())) as two:
        taken = [await places.take(ANN) for places in (one, two, one, two)]
        assert [bool(it) for it in taken] == [True, True, False, False]
        assert taken[0] is not None
        taken[0]()
        assert await eventually(lambda: two.take(ANN)) is not None
        assert await one.take(ANN) is None
        # Who is refused for one limit takes no place of the other.
        both: dict[Hashable, int] = {("user", 1): 9, ("address", "a"): 2}
        assert await one.take({("address", "a"): 1}) is not None
        assert await two.take({("address", "a"): 1}) is None
        assert await two.take(both) is not None
        assert await one.take(both) is None


async def test_the_first_of_many_at_once_stay(fast: None) -> None:
    """In the order in which they came, also where the others are counted elsewhere."""
    async with running(Places(open_redis())) as one, running(Places(open_redis())) as two:
        assert await two.take({("user", 1): 4}) is not None
        taken = await asyncio.gather(*(one.take({("user", 1): 4}) for _ in range(8)))
        assert [bool(it) for it in taken] == [True] * 3 + [False] * 5


async def test_the_counts_of_a_process_that_stops_end(fast: None) -> None:
    async with running(Places(open_redis())) as one:
        async with running(Places(open_redis())) as two:
            assert await two.take(ANN) is not None
            assert await two.take(ANN) is not None
            assert await one.take(ANN) is None
        assert await eventually(lambda: one.take(ANN)) is not None


async def test_a_redis_that_comes_back_empty_is_told_again(fast: None, valkey: Valkey) -> None:
    async with running(Places(open_redis())) as one, running(Places(open_redis())) as two:
        for _ in range(2):
            assert await one.take(ANN) is not None
        valkey.flush()

        async def refused() -> bool | None:
            if (taken := await two.take(ANN)) is None:
                return True
            taken()
            return None

        assert await eventually(refused)


async def test_while_redis_is_away_a_process_counts_alone(
    fast: None, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(Places(open_redis())) as one, running(Places(open_redis())) as two:
        given = [await one.take(ANN), await one.take(ANN)]
        valkey.kill()
        taken = [await two.take(ANN) for _ in range(3)]
        assert [bool(it) for it in taken] == [True, True, False]
        for give_back in given:
            assert give_back is not None
            give_back()
        valkey.start()
        await until(lambda: one._is_joined and two._is_joined and not one._changed)
        assert await one.take(ANN) is None
        assert caplog.text.count("in this process alone") <= 2


def test_sockets_of_one_user_share_a_limit(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.REALTIME = {**settings.REALTIME, "frames_per_minute": 5}
    monkeypatch.setattr(limits_module, "SOCKETS_AT_FULL_RATE", 2)
    users = UserFrames()
    sockets = [FrameLimit(5) for _ in range(3)]
    sent = [[it.take(users.of("ann")) for _ in range(4)] for it in sockets]
    assert [row.count(True) for row in sent] == [4, 4, 2]
    assert sockets[2].excess == 2
    # A new socket does not begin anew, and others are not held up.
    assert not FrameLimit(5).take(users.of("ann"))
    assert FrameLimit(5).take(users.of("ben"))


def test_limits_of_users_who_are_gone_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "USERS_KEPT", 2)
    users = UserFrames()
    users._tidy_at = 2
    assert users.of("ann").take()
    for name in ("ben", "cem", "dan"):
        users.of(name)
    assert "ann" in users._limits
    assert "ben" not in users._limits
