"""The round that finds what the channel layer has lost."""

import time
from contextlib import ExitStack
from typing import Any

import pytest
from channels.layers import get_channel_layer
from django.contrib.auth.base_user import AbstractBaseUser

from realtime.channel_layer import Hub
from realtime.conf import get_conf
from realtime.process import Process
from realtime.sockets.poller import Poller, Socket
from realtime.sockets.reader import Outbox
from tests.support.inprocess import make_user, open_chat_here
from tests.support.waiting import time_limit


@pytest.fixture(autouse=True)
def seldom(settings: Any) -> None:
    """The test polls by itself."""
    settings.AGENTS = "tests.support.site_agents"
    settings.REALTIME = {**settings.REALTIME, "head_interval_s": 3_600}


@pytest.fixture
def user(transactional_db: None) -> AbstractBaseUser:
    return make_user("ada")


async def lose(*args: Any) -> None:
    """In the place of the layer's `group_send`."""


async def test_a_reader_that_is_stuck_holds_up_no_other(
    process: Process, user: AbstractBaseUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One waits for the database, as for a row that is locked; both have missed the end."""
    async with open_chat_here(user) as one, open_chat_here(user) as two:
        accepted = await one.chat("hello there", agent="patient")
        await one.wait_text(accepted["run_id"], "well")
        await one.resume(accepted["session_id"])
        await two.resume(accepted["session_id"])
        monkeypatch.setattr(get_channel_layer(), "group_send", lose)
        await one.cancel(accepted["session_id"], run_id=accepted["run_id"])
        await process.executor.settled()
        sockets: list[Socket] = []
        process.poller.each(sockets.append)
        stuck, other = sockets
        async with stuck.viewer.lock, time_limit("two polls"):
            await process.poller.poll()
            await process.poller.poll()
            assert other.viewer.open_runs == []
        for tab in (one, two):
            await tab.wait_end(accepted["run_id"])


class Pinged(Outbox):
    """Counts the frames that it is given."""

    def __init__(self) -> None:
        super().__init__(max_frames=100, max_bytes=100_000)
        self.count = 0

    def put(self, *args: Any, **options: Any) -> None:
        self.count += 1
        return super().put(*args, **options)


def test_each_socket_is_pinged_when_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    now, every = 1_000.0, get_conf().heartbeat_s
    monkeypatch.setattr(time, "monotonic", lambda: now)
    poller, boxes = Poller(Hub(None)), [Pinged(), Pinged(), Pinged()]
    nothing: Any = None
    with ExitStack() as stack:
        for box in boxes[:2]:
            stack.enter_context(poller.watch(Socket(nothing, box, nothing)))
            now += every / 2
        with poller.watch(Socket(nothing, boxes[2], nothing)):
            poller.ping(now)
            assert [box.count for box in boxes] == [1, 0, 0]
        poller.ping(now + every / 2)
        poller.ping(now + every / 2)
        assert [box.count for box in boxes] == [1, 1, 0]
        poller.ping(now + every)
        assert [box.count for box in boxes] == [2, 1, 0]
    poller.ping(now + 10 * every)
    assert [box.count for box in boxes] == [2, 1, 0]
