"""What waits to be sent over a socket."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from realtime.protocol import CLOSE_TOO_FAST

Undo = Callable[[], None]


class Entry(NamedTuple):
    """One frame of an outbox; `size` is what counts against `max_bytes`.

    `undo` restores the cursor of the frame's reader as if the frame had never been put.
    """

    text: str
    undo: Undo | None
    size: int


class Outbox:
    """A bounded queue of frames to one reader, sent in order by `run`.

    It holds at most `max_frames`, and `max_bytes` characters of JSON.
    """

    def __init__(self, *, max_frames: int, max_bytes: int) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._entries: deque[Entry] = deque()
        self._size = 0
        self._filled = asyncio.Event()
        self._close_code: int | None = None

    @property
    def room(self) -> int:
        """How many frames may be put before one has been sent."""
        return self._max_frames - len(self._entries)

    @property
    def is_full(self) -> bool:
        """Whether all queued frames together have more than `max_bytes` characters.

        Frames that were put with `counts=False` are included.
        """
        return sum(len(entry.text) for entry in self._entries) > self._max_bytes

    def put(self, text: str, undo: Undo | None = None, *, counts: bool = True) -> bool:
        """Add a frame; return False if the outbox overflows.

        An overflow undoes and drops all queued frames that have an `undo`, this one included. If
        the others still overflow, it calls `cut`. One frame alone may be larger than `max_bytes`.
        With `counts=False` the frame's size is not limited: the caller does that. After `cut` or
        `finish` frames are ignored.
        """
        if self._close_code is not None:
            return True
        size = len(text) if counts else 0
        self._entries.append(Entry(text, undo, size))
        self._size += size
        self._filled.set()
        if not self._overflows():
            return True
        self._take_back()
        if self._overflows():
            self.cut(CLOSE_TOO_FAST)
        return False

    def cut(self, code: int) -> None:
        """Discard queued frames, and let `run` close the socket with `code`."""
        self._entries.clear()
        self._size = 0
        self._end(code)

    def finish(self, code: int) -> None:
        """Let `run` close the socket with `code` after it has sent all queued frames."""
        self._end(code)

    def _end(self, code: int) -> None:
        if self._close_code is None:
            self._close_code = code
        self._filled.set()

    def _overflows(self) -> bool:
        frames = len(self._entries)
        return frames > self._max_frames or (frames > 1 and self._size > self._max_bytes)

    def _take_back(self) -> None:
        """Undo from the newest to the oldest, so that each cursor gets back to its first value."""
        for entry in reversed(self._entries):
            if entry.undo is not None:
                entry.undo()
        self._entries = deque(entry for entry in self._entries if entry.undo is None)
        self._size = sum(entry.size for entry in self._entries)

    async def run(
        self,
        send: Callable[[str], Awaitable[None]],
        close: Callable[[int], Awaitable[None]],
        drained: Callable[[], Awaitable[None]],
    ) -> None:
        """Call `send` with each frame in order, until `cut` or `finish`; then call `close`.

        Calls `drained` whenever no frame is left. Raises what these raise.
        """
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._entries:
                entry = self._entries.popleft()
                self._size -= entry.size
                await send(entry.text)
            if self._close_code is not None:
                await close(self._close_code)
                return
            await drained()
