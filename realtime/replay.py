"""What a reader has missed of a run, as frames."""

from typing import Any

from conversations.models import Run, join_text
from conversations.queries import CatchUp, EventRow
from conversations.shapes import run_ref
from realtime import frames, protocol
from realtime.cursors import RunCursor, SessionCursor
from realtime.frames import TERMINAL_KINDS
from realtime.protocol import ServerFrame
from realtime.sender import Sender


def replay_run(sender: Sender, session: SessionCursor, cursor: RunCursor, got: CatchUp) -> None:
    """Bring the reader to where the database is, by events or, if they are too many, at once."""
    _begin_epoch(sender, session, cursor, got.run)
    if got.parts is not None:
        _skip(sender, session, cursor, got, got.parts)
    for event in got.events:
        _send_event(sender, session, cursor, got.run, event)


def _begin_epoch(sender: Sender, session: SessionCursor, cursor: RunCursor, run: Run) -> None:
    if run.epoch == cursor.epoch:
        return
    if not cursor.seq or not session.full:
        cursor.epoch, cursor.seq, cursor.chars = run.epoch, 0, 0
        return
    metadata = protocol.RunReset(**frames.run_metadata(run_ref(run)), reason="worker_lost")
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
        frame: ServerFrame = frames.snapshot_frame(got.run, got.seq, parts)
    else:
        frame = frames.event_frame(run_ref(got.run), got.seq, "token", {"delta": missing})
    sender.advance(
        session, cursor, frame.encode(), epoch=cursor.epoch, seq=got.seq, chars=len(missing)
    )


def _send_event(
    sender: Sender, session: SessionCursor, cursor: RunCursor, run: Run, event: EventRow
) -> None:
    seq, kind, payload = event
    ended = kind in TERMINAL_KINDS
    if ended:
        frame = frames.terminal_frame(run, payload)
    else:
        frame = frames.event_frame(run_ref(run), seq, kind, payload)
    chars = len(payload["delta"]) if kind == "token" else 0
    sender.advance(
        session, cursor, frame.encode(), epoch=run.epoch, seq=seq, chars=chars, ended=ended
    )
