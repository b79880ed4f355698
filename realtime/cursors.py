"""How far the reader of one socket is, in each session that it follows."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from uuid import UUID

from conversations.catch_up import Heads

REMEMBERED_ENDS = 64
"""Ended runs whose late or repeated frames are told from those of new ones by name."""


@dataclass
class RunCursor:
    """What was sent of a run: up to `seq` of `epoch`, `chars` characters of answer text."""

    run_id: UUID
    number: int
    epoch: int = 0
    seq: int = 0
    chars: int = 0


@dataclass
class SessionCursor:
    """What was sent of a session.

    `full` readers have resumed: they are sent everything. The others have only chatted: they are
    sent the runs that their own chats started.
    """

    session_id: UUID
    full: bool = False
    rev: int = 0
    floor: int = 0
    open: dict[UUID, RunCursor] = field(default_factory=dict)
    ended: deque[UUID] = field(default_factory=lambda: deque(maxlen=REMEMBERED_ENDS))

    def open_run(self, run_id: UUID, number: int) -> RunCursor:
        """The cursor of a run that is owed its terminal frame."""
        return self.open.setdefault(run_id, RunCursor(run_id, number))

    def get_run(self, run_id: UUID, number: int) -> RunCursor | None:
        """The cursor of a run that is open, and now of this number."""
        if cursor := self.open.get(run_id):
            # An interruption moves what waits by one; an old message does not move it back.
            cursor.number = max(cursor.number, number)
        return cursor

    def is_owed(self, run_id: UUID, number: int) -> bool:
        """Whether a run that is not open is one that this reader must be shown."""
        return self.full and run_id not in self.ended and number >= self.floor

    def find_run(self, run_id: UUID, number: int) -> RunCursor | None:
        """The cursor of a run, open from now on; None when it is not for this reader, or old."""
        if cursor := self.get_run(run_id, number):
            return cursor
        return self.open_run(run_id, number) if self.is_owed(run_id, number) else None

    def has_earlier(self, number: int) -> bool:
        """Whether a run is open whose terminal frame comes before the frames of run `number`."""
        return any(cursor.number < number for cursor in self.open.values())

    def is_behind(self, heads: Heads) -> bool:
        """Whether the database has more than was sent."""
        if self.full and heads.revs.get(self.session_id, 0) > self.rev:
            return True
        return any(
            heads.runs.get(cursor.run_id, (0, 0)) > (cursor.epoch, cursor.seq)
            for cursor in self.open.values()
        )

    def end_run(self, cursor: RunCursor) -> None:
        """Its terminal frame was sent; a run that was never claimed had others before it."""
        self.open.pop(cursor.run_id, None)
        self.ended.append(cursor.run_id)
        if cursor.epoch and not self.open:
            self.floor = max(self.floor, cursor.number + 1)

    def undo_rev(self) -> Callable[[], None]:
        """Puts `rev` back to what it is now."""
        rev = self.rev

        def undo() -> None:
            self.rev = rev

        return undo

    def undo_run(self, cursor: RunCursor) -> Callable[[], None]:
        """Puts the run back to where it is now, and opens it again if it has ended since."""
        before, floor = replace(cursor), self.floor

        def undo() -> None:
            cursor.epoch, cursor.seq, cursor.chars = before.epoch, before.seq, before.chars
            self.floor = floor
            self.open[cursor.run_id] = cursor
            if cursor.run_id in self.ended:
                self.ended.remove(cursor.run_id)

        return undo
