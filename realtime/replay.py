"""What a reader has missed, read as frames and handed on.

What reads is for a thread: a long reply takes long to render, and on the event loop everybody
would wait for that.
"""

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from conversations.catch_up import CatchUp, SessionState, read_catch_up, read_session_state
from conversations.models import Run, RunStatus, join_text
from conversations.queries import EventRow
from conversations.reply_html import read_html, read_joined_html
from conversations.shapes import message_view, run_ref
from realtime import frames, protocol
from realtime.cursors import RunCursor, SessionCursor
from realtime.frames import TERMINAL_KINDS
from realtime.protocol import ServerFrame
from realtime.sender import Sender


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


def _event_frame(run: Run, event: EventRow) -> ServerFrame:
    seq, kind, payload = event
    if kind in TERMINAL_KINDS:
        return frames.terminal_frame(run, payload, _html_of(run))
    return frames.event_frame(run_ref(run), seq, kind, payload)


def _html_of(run: Run) -> list[str]:
    """That of an ended run's reply; an error has none in its frame."""
    if run.status == RunStatus.FAILED:
        return []
    reply = message_view(run.reply, run=run)
    return read_html([reply]).get(reply.message_id, [])
