"""A reader: its cursors, the bounded outbox of its frames, and catching up from the database.

Functions that read (`read_missed`, `read_state`) run in a database thread: they may render a long
reply, which would block the event loop.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
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
from conversations.shapes import MessageView, message_view, run_ref
from realtime import protocol
from realtime.conf import get_conf
from realtime.protocol import CLOSE_TOO_FAST, ServerFrame
from realtime.sockets import frames as frames_module
from realtime.sockets.frames import TERMINAL_KINDS
from realtime.telemetry import metrics

Undo = Callable[[], None]


class Entry(NamedTuple):
    """One encoded frame of an outbox.

    `undo` restores the cursor of the frame's reader as if the frame had never been put; None if the
    frame moved no cursor. `size` counts against `max_bytes`: characters, or 0 for a frame that was
    put with `counts=False`.
    """

    text: str
    undo: Undo | None
    size: int


class Outbox:
    """A bounded queue of frames to one reader, sent in order by `run`.

    It holds at most `max_frames` frames, and `max_bytes` characters of JSON; one frame alone may be
    larger, and frames that are put with `counts=False` have no size here. `behind` is set by an
    overflow, whoever has put the frame: then the reader has to catch up once all is sent.
    """

    def __init__(self, *, max_frames: int, max_bytes: int) -> None:
        self.behind = False
        self._overflow_count = 0
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._entries: deque[Entry] = deque()
        self._size = 0
        self._filled = asyncio.Event()
        self._close_code: int | None = None

    @property
    def room(self) -> int:
        """How many more frames fit by their number; their size is not considered."""
        return self._max_frames - len(self._entries)

    @property
    def is_full(self) -> bool:
        """Whether all queued frames together have more than `max_bytes` characters.

        Frames that were put with `counts=False` are included.
        """
        return sum(len(entry.text) for entry in self._entries) > self._max_bytes

    def put(self, text: str, undo: Undo | None = None, *, counts: bool = True) -> None:
        """Add a frame.

        An overflow calls the `undo` of each queued frame that has one, the newest first, and drops
        these frames. A frame without `undo` stays queued, this one too. It calls `cut` if those
        that stay still overflow, or for the `MAX_RESYNCS`th overflow, unless `caught_up` has
        returned True in between. One frame alone may be larger than `max_bytes`. With
        `counts=False` the frame's size is not limited here. After `cut` or `finish` the frame is
        ignored, and `undo` is not called.
        """
        if self._close_code is not None:
            return
        size = len(text) if counts else 0
        self._entries.append(Entry(text, undo, size))
        self._size += size
        self._filled.set()
        if not self._overflows():
            return
        self._take_back()
        self.behind = True
        self._overflow_count += 1
        if self._overflows() or self._overflow_count >= MAX_RESYNCS:
            self.cut(CLOSE_TOO_FAST)

    def caught_up(self) -> bool:
        """Return whether nothing was dropped or held up, now that the outbox is empty.

        If something was, the reader must catch up: `behind` is cleared. If not, overflows are
        counted from 0 again.
        """
        was_behind, self.behind = self.behind, False
        if not was_behind:
            self._overflow_count = 0
        return not was_behind

    def cut(self, code: int) -> None:
        """Discard queued frames without calling `undo`, and let `run` close the socket with `code`.

        An earlier `cut` or `finish` keeps its code.
        """
        metrics.FRAMES_DROPPED.labels("slow_reader").inc(len(self._entries))
        self._entries.clear()
        self._size = 0
        self._end(code)

    def finish(self, code: int) -> None:
        """Let `run` close the socket with `code` after it has sent all queued frames.

        An earlier `cut` or `finish` keeps its code.
        """
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
                metrics.FRAMES_DROPPED.labels("slow_reader").inc()
        self._entries = deque(entry for entry in self._entries if entry.undo is None)
        self._size = sum(entry.size for entry in self._entries)

    async def run(
        self,
        send: Callable[[str], Awaitable[None]],
        close: Callable[[int], Awaitable[None]],
        drained: Callable[[], Awaitable[None]],
    ) -> None:
        """Call `send` with each frame in order; after `cut` or `finish` call `close`, and return.

        `close` gets the close code. `drained` is called whenever all queued frames have been sent,
        except before `close`. Raises what these functions raise.
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


MAX_RESYNCS = 3
"""A reader is disconnected at this overflow in a row."""


REMEMBERED_ENDS = 64
"""Ended runs of a session that are remembered, so that late or repeated frames do not open them
again.
"""


@dataclass(slots=True)
class RunCursor:
    """How far a reader was sent a run: to event `seq` of `epoch`; 0 of both: nothing yet.

    `number` is the run's in its session. `chars` counts the characters of answer text in that
    epoch, but not the text before a `seq` that the client's `resume` has named.
    """

    run_id: UUID
    number: int
    epoch: int = 0
    seq: int = 0
    chars: int = 0


@dataclass(slots=True)
class SessionCursor:
    """How far a reader was sent a session; `open` has the runs that it is being sent, by id.

    A run leaves `open` when its terminal frame is put, and its id is then in `ended`, which keeps
    the latest `REMEMBERED_ENDS`. A reader with `full` has resumed the session and is sent
    everything. Another one has only chatted in it, and is sent only the runs of its own chats; its
    `rev` stays 0. A `full` reader is sent runs from number `floor` on.
    """

    session_id: UUID
    full: bool = False
    rev: int = 0
    floor: int = 0
    open: dict[UUID, RunCursor] = field(default_factory=dict)
    # A list: most are empty, and an empty deque takes ten times the memory.
    ended: list[UUID] = field(default_factory=list)

    def open_run(self, run_id: UUID, number: int) -> RunCursor:
        """Return the cursor of a run; if the run is not open, open it at its beginning.

        Does not look at `ended`, and does not update the number of an open run.
        """
        return self.open.setdefault(run_id, RunCursor(run_id, number))

    def get_run(self, run_id: UUID, number: int) -> RunCursor | None:
        """Return the cursor of an open run, raising its number to `number`; None if not open."""
        if cursor := self.open.get(run_id):
            # An interruption raises the numbers of waiting runs by one; a late message must not
            # undo it.
            cursor.number = max(cursor.number, number)
        return cursor

    def is_owed(self, run_id: UUID, number: int) -> bool:
        """Return whether a run must be opened and sent to this reader from its beginning.

        Call it only for a run that is not in `open`; this is not checked. True only for a `full`
        reader, if the run is not in `ended` and its `number` is at least `floor`.
        """
        return self.full and run_id not in self.ended and number >= self.floor

    def find_run(self, run_id: UUID, number: int) -> RunCursor | None:
        """Return the cursor of an open run as `get_run` does; open the run first if it `is_owed`.

        Returns None for a run that is neither.
        """
        if cursor := self.get_run(run_id, number):
            return cursor
        return self.open_run(run_id, number) if self.is_owed(run_id, number) else None

    def has_earlier(self, number: int) -> bool:
        """Return whether a run with a lower number is open.

        Frames of a claimed run must wait for the terminal frame of that earlier one.
        """
        return any(cursor.number < number for cursor in self.open.values())

    def is_behind(self, heads: Heads) -> bool:
        """Return whether `heads` is ahead of an open run's cursor or, if `full`, of `rev`.

        What `heads` does not have is not ahead.
        """
        if self.full and heads.revs.get(self.session_id, 0) > self.rev:
            return True
        return bool(self.open) and any(
            heads.runs.get(cursor.run_id, (0, 0)) > (cursor.epoch, cursor.seq)
            for cursor in self.open.values()
        )

    def end_run(self, cursor: RunCursor) -> None:
        """Move a run from `open` to `ended`; call it when its terminal frame is put.

        If then no run is open, `floor` rises beyond this one, but only if it was claimed (has an
        epoch): runs that were never claimed may end before earlier runs do.
        """
        self.open.pop(cursor.run_id, None)
        self.ended.append(cursor.run_id)
        del self.ended[:-REMEMBERED_ENDS]
        if cursor.epoch and not self.open:
            self.floor = max(self.floor, cursor.number + 1)

    def undo_rev(self) -> Callable[[], None]:
        """Return a function that restores the present `rev`."""
        rev = self.rev

        def undo() -> None:
            self.rev = rev

        return undo

    def undo_run(self, cursor: RunCursor) -> Callable[[], None]:
        """Return a function that restores the present `epoch`, `seq`, `chars` and `floor`.

        It also puts the run into `open`, and takes it out of `ended`. Its number stays.
        """
        before, floor = replace(cursor), self.floor

        def undo() -> None:
            cursor.epoch, cursor.seq, cursor.chars = before.epoch, before.seq, before.chars
            self.floor = floor
            self.open[cursor.run_id] = cursor
            if cursor.run_id in self.ended:
                self.ended.remove(cursor.run_id)

        return undo


# Frames kept free while catching up, for terminal frames, queues and answers.
SPARE_FRAMES = 3


class Sender:
    """Puts frames into the outbox and moves cursors with them, so that an overflow undoes both.

    While the outbox is `behind`, which `pause_if_full` sets too, no frame that moves a cursor is
    put. The size of frames put while `catching_up` is not limited, else a
    reader could never get a long text; the caller checks `pause_if_full` instead.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._catching_up = False

    @property
    def behind(self) -> bool:
        """Whether the reader has to catch up once the outbox is empty."""
        return self._outbox.behind

    @contextmanager
    def catching_up(self) -> Iterator[None]:
        """Let frames that are put in this context not count against `max_bytes`.

        Their number stays limited. Contexts must not be nested: the end of one ends all.
        """
        self._catching_up = True
        try:
            yield
        finally:
            self._catching_up = False

    def pause_if_full(self) -> bool:
        """Set `behind` if the outbox `is_full`; return `behind`.

        If it is set, catching up must stop until the outbox has drained.
        """
        if not self.behind and self._outbox.is_full:
            self._outbox.behind = True
        return self.behind

    @property
    def room(self) -> int:
        """How many frames catching up may add, with `SPARE_FRAMES` left over; at least 1."""
        return max(1, self._outbox.room - SPARE_FRAMES)

    @property
    def replay_events(self) -> int:
        """How many missed events of a run may be sent one by one: the setting, or less by `room`.

        With more, `replay_run` sends a snapshot or the missing text.
        """
        return min(get_conf().replay_events, self.room)

    @property
    def replay_messages(self) -> int:
        """How many missed messages may be sent: the setting, or less by `room`.

        With more none is sent, and the client reloads the session.
        """
        return min(get_conf().replay_messages, self.room)

    def put(self, frame: ServerFrame, undo: Undo | None = None) -> None:
        """Encode a frame, and put it as `put_text` does.

        Pass `undo` if a cursor was moved for this frame: it is called if the frame is dropped.
        """
        self.put_text(frame.encode(), undo)

    def put_text(self, text: str, undo: Undo | None) -> None:
        """Put an encoded frame; while `behind`, call `undo` and drop the frame instead.

        `undo` restores the cursor that the caller has moved for this frame. It is None for a frame
        that moves none, which is put even while `behind`.
        """
        if self.behind and undo is not None:
            undo()
        else:
            self._outbox.put(text, undo, counts=not self._catching_up)

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
        """Move a run's cursor to (`epoch`, `seq`), then put the frame `text` that this is for.

        If the frame is dropped, now or at a later overflow, the cursor is moved back. `chars` is
        added to the cursor's; it is negative for a reset. `ended` says that this is the run's
        terminal frame: the run is closed (`end_run`).
        """
        undo = session.undo_run(cursor)
        cursor.epoch, cursor.seq = epoch, seq
        cursor.chars += chars
        if ended:
            session.end_run(cursor)
        self.put_text(text, undo)


@dataclass(frozen=True)
class Missed:
    """What a reader has missed of a run; `frames` has the encoded frame of each of `got.events`."""

    got: CatchUp
    frames: list[str]


def read_missed(run_id: UUID, *, epoch: int, seq: int, limit: int) -> Missed:
    """Read what a run has after (`epoch`, `seq`): at most `limit` events, or its parts.

    The last event of an ended run is always included. Raises `Run.DoesNotExist`. Access is not
    checked. Call it in a database thread.
    """
    got = read_catch_up(run_id, epoch=epoch, seq=seq, limit=limit)
    return Missed(got, [_event_frame(got.run, event).encode() for event in got.events])


class MissedState:
    """What a session has after some revision, for all readers with that revision.

    Its frames are encoded once, when a reader first needs them. Use them on the event loop only.
    """

    def __init__(self, session_id: UUID, state: SessionState) -> None:
        self.state = state
        self._session_id = session_id
        self._texts: dict[tuple[str, bool], str] = {}

    def message_text(self, view: MessageView, *, is_open: bool) -> str:
        """Return the encoded `message.updated` frame of a message.

        With `is_open` (its run is open for the reader) it has neither parts nor HTML.
        """
        key = view.message_id, is_open
        if key not in self._texts:
            shown = replace(view, parts=None) if is_open else view
            html = None if is_open else self.state.html.get(view.message_id)
            frame = frames_module.message_frame(
                self._session_id, self.state.rev, shown, created=False, html=html
            )
            self._texts[key] = frame.encode()
        return self._texts[key]

    def queue_text(self) -> str:
        """Return the encoded `queue.changed` frame with the session's whole queue."""
        key = "queue", False
        if key not in self._texts:
            frame = frames_module.queue_frame(self._session_id, self.state.rev, self.state.queue)
            self._texts[key] = frame.encode()
        return self._texts[key]


def read_state(
    session_id: UUID, *, rev: int | None, runs: frozenset[UUID], limit: int, max_chars: int
) -> MissedState:
    """Read what a session has after `rev`, and the HTML of the replies among its messages.

    The arguments are those of `read_session_state`; with `rev` None there are no messages. Raises
    `ChatSession.DoesNotExist`. Access is not checked. Call it in a database thread.
    """
    state = read_session_state(session_id, rev=rev, runs=runs, limit=limit, max_chars=max_chars)
    return MissedState(session_id, replace(state, html=read_joined_html(state.messages or ())))


def replay_run(sender: Sender, session: SessionCursor, cursor: RunCursor, missed: Missed) -> None:
    """Put what a reader has missed of a run, and move its cursor.

    If the run is in a later epoch than the cursor and the reader was sent frames, a reset comes
    first, unless a snapshot replaces them, or a reader that is not `full` was sent no text. If
    `missed` has parts, a snapshot comes next or, for a reader that is not `full`, the missing text
    as one token. Then come the events.
    """
    got = missed.got
    _begin_epoch(sender, session, cursor, got)
    if got.parts is not None:
        _skip(sender, session, cursor, got, got.parts)
    for (seq, kind, payload), text in zip(got.events, missed.frames, strict=True):
        chars = len(payload["delta"]) if kind == "token" else 0
        ended = kind in TERMINAL_KINDS
        sender.advance(
            session, cursor, text, epoch=got.run.epoch, seq=seq, chars=chars, ended=ended
        )


def _begin_epoch(sender: Sender, session: SessionCursor, cursor: RunCursor, got: CatchUp) -> None:
    run = got.run
    if run.epoch == cursor.epoch:
        return
    is_replaced = session.full and got.parts is not None
    if not cursor.seq or is_replaced or not (session.full or cursor.chars):
        cursor.epoch, cursor.seq, cursor.chars = run.epoch, 0, 0
        return
    metadata = protocol.RunReset(**frames_module.run_metadata(run_ref(run)), reason="worker_lost")
    reset = protocol.status(metadata, session.session_id).encode()
    sender.advance(session, cursor, reset, epoch=run.epoch, seq=0, chars=-cursor.chars)


def _skip(
    sender: Sender,
    session: SessionCursor,
    cursor: RunCursor,
    got: CatchUp,
    parts: list[dict[str, Any]],
) -> None:
    """Send a snapshot, or the missing text to a reader that is not `full`."""
    missing = join_text(parts)[cursor.chars :]
    if session.full:
        text = frames_module.snapshot_frame(got.run, got.seq, parts).encode()
    else:
        token = {"delta": missing}
        text = frames_module.event_frame(run_ref(got.run), got.seq, "token", token).encode()
    sender.advance(session, cursor, text, epoch=cursor.epoch, seq=got.seq, chars=len(missing))


def _event_frame(run: Run, event: EventRow) -> ServerFrame | frames_module.LaterFrame:
    seq, kind, payload = event
    if kind in TERMINAL_KINDS:
        return frames_module.terminal_frame(run, payload, _html_of(run))
    return frames_module.event_frame(run_ref(run), seq, kind, payload)


def _html_of(run: Run) -> list[str]:
    """Return the HTML of an ended run's reply; [] for a failed run, whose frame has none."""
    if run.status == RunStatus.FAILED:
        return []
    reply = message_view(run.reply, run=run)
    return read_html([reply]).get(reply.message_id, [])
