"""A reader that does not keep up is taken back to what it was sent, and cut in the end."""

import asyncio
from functools import partial

from realtime.sockets.reader import Outbox, Sender
from tests.support.waiting import time_limit


class Reader:
    """Keeps what it is sent, and knows when that was all."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.closed: int | None = None
        self._idle = asyncio.Event()

    async def _send(self, text: str) -> None:
        self.read.append(text)

    async def _close(self, code: int) -> None:
        self.closed = code

    async def _drained(self) -> None:
        self._idle.set()

    async def read_all(self, outbox: Outbox) -> None:
        """Until everything has been sent, or the outbox has closed."""
        sending = asyncio.create_task(outbox.run(self._send, self._close, self._drained))
        idle = asyncio.create_task(self._idle.wait())
        async with time_limit("an idle outbox"):
            await asyncio.wait([sending, idle], return_when=asyncio.FIRST_COMPLETED)
        for task in (sending, idle):
            task.cancel()
        await asyncio.gather(sending, idle, return_exceptions=True)


async def test_frames_go_out_in_order() -> None:
    outbox, reader = Outbox(max_frames=3, max_bytes=100), Reader()
    for text in "abc":
        outbox.put(text)
    await reader.read_all(outbox)
    assert reader.read == ["a", "b", "c"]


async def test_overflow_takes_back_from_the_newest() -> None:
    outbox, reader = Outbox(max_frames=3, max_bytes=100), Reader()
    undone: list[str] = []
    outbox.put("keep")
    for text in "abc":
        assert not outbox.behind
        outbox.put(text, partial(undone.append, text))
    assert outbox.behind
    assert undone == ["c", "b", "a"]
    await reader.read_all(outbox)
    assert reader.read == ["keep"]


async def test_an_answer_that_makes_it_overflow_lets_the_reader_catch_up() -> None:
    outbox = Outbox(max_frames=2, max_bytes=100)
    sender = Sender(outbox)
    for text in "ab":
        sender.put_text(text, lambda: None)
    outbox.put("an answer, which no cursor is moved for")
    assert not outbox.caught_up()


async def test_one_large_frame_may_pass_the_bound() -> None:
    outbox = Outbox(max_frames=3, max_bytes=10)
    outbox.put("x" * 1_000)
    assert not outbox.behind
    outbox.put("y", lambda: None)
    assert outbox.behind


async def test_what_cannot_be_taken_back_cuts() -> None:
    outbox, reader = Outbox(max_frames=2, max_bytes=100), Reader()
    for text in "abc":
        outbox.put(text)
    await reader.read_all(outbox)
    assert (reader.closed, reader.read) == (4429, [])


async def test_finish_sends_what_waits_first() -> None:
    outbox, reader = Outbox(max_frames=5, max_bytes=100), Reader()
    outbox.put("last words")
    outbox.finish(4012)
    outbox.put("too late")
    await reader.read_all(outbox)
    assert (reader.closed, reader.read) == (4012, ["last words"])
