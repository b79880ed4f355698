"""The way from a reader's cursors into its outbox."""

from collections.abc import Iterator
from contextlib import contextmanager

from realtime.conf import get_conf
from realtime.cursors import RunCursor, SessionCursor
from realtime.outbox import Outbox, Undo
from realtime.protocol import CLOSE_TOO_FAST, ServerFrame

SPARE_FRAMES = 3

MAX_RESYNCS = 3
"""A reader that overflows so often in a row is cut off."""


class Sender:
    """Puts frames and moves cursors together, so that an overflow takes back both.

    `behind` after an overflow: nothing that moves a cursor is put until the outbox has drained.
    While `catching_up`, what is put is no overflow, or a long text could never be caught up with:
    whoever reads it from the database pauses when the sender is full.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._resyncs = 0
        self._catching_up = False
        self.behind = False

    @contextmanager
    def catching_up(self) -> Iterator[None]:
        """What is put meanwhile is read from the database."""
        self._catching_up = True
        try:
            yield
        finally:
            self._catching_up = False

    def pause_if_full(self) -> bool:
        """Whether the rest must wait until all this has been sent."""
        if not self.behind and self._outbox.is_full:
            self.behind = True
        return self.behind

    @property
    def room(self) -> int:
        """Frames that catching up may add; what is left is for ends, queues and answers."""
        return max(1, self._outbox.room - SPARE_FRAMES)

    @property
    def replay_events(self) -> int:
        return min(get_conf().replay_events, self.room)

    @property
    def replay_messages(self) -> int:
        return min(get_conf().replay_messages, self.room)

    def put(self, frame: ServerFrame, undo: Undo | None = None) -> None:
        self.put_text(frame.encode(), undo)

    def put_text(self, text: str, undo: Undo | None) -> None:
        """Put a frame; `undo` takes its cursor back, None is for what is never taken back."""
        if self.behind and undo is not None:
            undo()
            return
        if self._outbox.put(text, undo, counts=not self._catching_up):
            return
        self.behind = True
        self._resyncs += 1
        if self._resyncs >= MAX_RESYNCS:
            self._outbox.cut(CLOSE_TOO_FAST)

    def advance(
        self,
        session: SessionCursor,
        cursor: RunCursor,
        text: str,
        *,
        epoch: int,
        seq: int,
        chars: int = 0,
        ended: bool = False,
    ) -> None:
        """Put a frame that brings the reader of a run to (`epoch`, `seq`)."""
        undo = session.undo_run(cursor)
        cursor.epoch, cursor.seq = epoch, seq
        cursor.chars += chars
        if ended:
            session.end_run(cursor)
        self.put_text(text, undo)

    def drained(self) -> bool:
        """All was sent; whether the reader is to be caught up after an overflow."""
        was_behind, self.behind = self.behind, False
        if not was_behind:
            self._resyncs = 0
        return was_behind
