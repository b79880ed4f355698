"""How far a reader is in each session, and the frames that bring it further.

What reads is for a thread: a long reply takes long to render, and on the event loop everybody
would wait for that.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from conversations.models import Run, RunStatus, join_text
from conversations.queries import EventRow
from conversations.runs.catch_up import (
    CatchUp,
    Heads,
    SessionState,
    read_catch_up,
    read_session_state,
)
from conversations.sessions.rendering import read_html, read_joined_html
from conversations.shapes import message_view, run_ref
from realtime import protocol
from realtime.conf import get_conf
from realtime.protocol import CLOSE_TOO_FAST, ServerFrame
from realtime.sockets import frames as frames_module
from realtime.sockets.frames import TERMINAL_KINDS
from realtime.sockets.outbox import Outbox, Undo

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


@dataclass(frozen=True)
class Missed:
    """What was missed of a run; `frames` are those of its events, encoded."""

    got: CatchUp
    frames: list[str]


def read_missed(run_id: UUID, *, epoch: int, seq: int, limit: int) -> Missed:
    """What came after (`epoch`, `seq`)."""
    got = read_catch_up(run_id, epoch=epoch, seq=seq, limit=limit)
    return Missed(got, [_event_frame(got.run, event).encode() for event in got.events])


def read_state(
    session_id: UUID, *, rev: int | None, runs: list[UUID], limit: int, max_chars: int
) -> SessionState:
    """What came after `rev`, with the HTML of its replies."""
    state = read_session_state(session_id, rev=rev, runs=runs, limit=limit, max_chars=max_chars)
    return replace(state, html=read_joined_html(state.messages or ()))


def replay_run(sender: Sender, session: SessionCursor, cursor: RunCursor, missed: Missed) -> None:
    """Bring the reader to where the database is, by events or, if they are too many, at once."""
    got = missed.got
    _begin_epoch(sender, session, cursor, got.run)
    if got.parts is not None:
        _skip(sender, session, cursor, got, got.parts)
    for (seq, kind, payload), text in zip(got.events, missed.frames, strict=True):
        chars = len(payload["delta"]) if kind == "token" else 0
        ended = kind in TERMINAL_KINDS
        sender.advance(
            session, cursor, text, epoch=got.run.epoch, seq=seq, chars=chars, ended=ended
        )


def _begin_epoch(sender: Sender, session: SessionCursor, cursor: RunCursor, run: Run) -> None:
    if run.epoch == cursor.epoch:
        return
    if not cursor.seq or not session.full:
        cursor.epoch, cursor.seq, cursor.chars = run.epoch, 0, 0
        return
    metadata = protocol.RunReset(**frames_module.run_metadata(run_ref(run)), reason="worker_lost")
    reset = protocol.status(metadata, str(session.session_id)).encode()
    sender.advance(session, cursor, reset, epoch=run.epoch, seq=0, chars=-cursor.chars)


def _skip(
    sender: Sender,
    session: SessionCursor,
    cursor: RunCursor,
    got: CatchUp,
    parts: list[dict[str, Any]],
) -> None:
    """A snapshot, or for those who know only tokens, the missing text."""
    missing = join_text(parts)[cursor.chars :]
    if session.full:
        frame: ServerFrame = frames_module.snapshot_frame(got.run, got.seq, parts)
    else:
        frame = frames_module.event_frame(run_ref(got.run), got.seq, "token", {"delta": missing})
    sender.advance(
        session, cursor, frame.encode(), epoch=cursor.epoch, seq=got.seq, chars=len(missing)
    )


def _event_frame(run: Run, event: EventRow) -> ServerFrame:
    seq, kind, payload = event
    if kind in TERMINAL_KINDS:
        return frames_module.terminal_frame(run, payload, _html_of(run))
    return frames_module.event_frame(run_ref(run), seq, kind, payload)


def _html_of(run: Run) -> list[str]:
    """That of an ended run's reply; an error has none in its frame."""
    if run.status == RunStatus.FAILED:
        return []
    reply = message_view(run.reply, run=run)
    return read_html([reply]).get(reply.message_id, [])
