"""Turns committed changes into messages for the channel layer."""

import logging

from conversations.changes import (
    UNNUMBERED,
    Change,
    Event,
    FeedbackChanged,
    MessageChanged,
    QueueChanged,
    RunAdvanced,
    RunCancelRequested,
    RunQueued,
    SessionListed,
    ShareChanged,
)
from conversations.models import RunStatus
from conversations.shapes import MessageView, RunRef, run_ref
from realtime import protocol
from realtime.channel_layer import (
    WORKER_GROUP,
    Envelope,
    Notice,
    RunCancel,
    SessionFrames,
    UserFrames,
    run_frames,
    session_group,
    user_group,
)
from realtime.process import dispatch, publish
from realtime.sockets import frames
from realtime.sockets.frames import TERMINAL_KINDS
from realtime.tasks import describe

logger = logging.getLogger(__name__)


def on_change(change: Change) -> None:
    """Publish a change and pass its events to this process's executor.

    A handler for `changes.register`: called in the thread of the commit. The change is committed
    already, so a failure to publish is only logged: readers find the change in the database.
    """
    try:
        publish(envelopes_of(change))
    except Exception as exc:
        what = describe(exc, is_private=True)
        logger.error("session %s: publishing a change failed: %s", change.session_id, what)
    dispatch(change.events)


def envelopes_of(change: Change) -> list[Envelope]:
    """Return the messages of a change: for the session's group, for its runs, then for its user.

    There is one for the session, even without frames, as it tells the new `rev`. Those of the runs
    go to the session's group and, for a cancel, to the workers' group. The user's is left out if it
    would have no frames. A change with only events of `UNNUMBERED` has a message for the user
    alone.
    """
    if change.events and all(isinstance(event, UNNUMBERED) for event in change.events):
        return _user(change)
    return [*_session(change), *_runs(change), *_user(change)]


def _session(change: Change) -> list[Envelope]:
    encoded, runs = [], []
    for event in change.events:
        if isinstance(event, MessageChanged):
            frame = frames.message_frame(
                change.session_id, change.rev, event.message, created=event.created
            )
            encoded.append(frame.encode())
            runs += _reply_run(event.message)
        elif isinstance(event, QueueChanged):
            encoded.append(frames.queue_frame(change.session_id, change.rev, event.queue).encode())
    message = SessionFrames(
        type="session.frames",
        session_id=str(change.session_id),
        rev=change.rev,
        runs=runs,
        frames=encoded,
    )
    return [(session_group(change.session_id), dict(message))]


def _reply_run(message: MessageView) -> list[tuple[str, int]]:
    if message.run_id is None or message.run_number is None:
        return []
    return [(message.run_id, message.run_number)]


def _runs(change: Change) -> list[Envelope]:
    envelopes = []
    for event in change.events:
        if isinstance(event, RunAdvanced):
            envelopes.append(_advanced(event))
        elif isinstance(event, RunQueued):
            metadata = protocol.RunQueued(**frames.run_metadata(event.run), position=event.position)
            envelopes.append(_notice(event.run, metadata))
        elif isinstance(event, RunCancelRequested):
            cancel = RunCancel(type="run.cancel", run_id=str(event.run.run_id))
            envelopes += [
                (WORKER_GROUP, dict(cancel)),
                _notice(event.run, protocol.RunCancelling(**frames.run_metadata(event.run))),
            ]
    return envelopes


def _advanced(event: RunAdvanced) -> Envelope:
    ref, last = run_ref(event.run), event.events[-1][0]
    if _is_unrendered(event):
        # No frames, and a `first` behind the last event: each reader finds a gap and reads the
        # database, in a thread that may render.
        return run_frames(ref, last + 1, [], chars=0, ended=True)
    encoded, chars = [], 0
    for seq, kind, payload in event.events:
        if kind in TERMINAL_KINDS:
            encoded.append(frames.terminal_frame(event.run, payload, event.html or []).encode())
        else:
            encoded.append(frames.event_frame(ref, seq, kind, payload).encode())
        chars += len(payload["delta"]) if kind == "token" else 0
    first = event.events[0][0]
    return run_frames(ref, first, encoded, chars=chars, ended=event.run.is_ended)


def _is_unrendered(event: RunAdvanced) -> bool:
    """Return whether the last frame lacks its HTML; a failure's frame needs none."""
    run = event.run
    if not run.is_ended or run.status == RunStatus.FAILED or event.html is not None:
        return False
    return any(part["type"] == "text" for part in run.reply.parts)


def _notice(run: RunRef, metadata: protocol.StatusMetadata) -> Envelope:
    message = Notice(
        type="run.notice",
        session_id=str(run.session_id),
        run_id=str(run.run_id),
        number=run.run_number,
        frame=protocol.status(metadata, run.session_id).encode(),
    )
    return session_group(run.session_id), dict(message)


def _user(change: Change) -> list[Envelope]:
    found = [pair for event in change.events if (pair := _user_frame(change, event))]
    if not found:
        return []
    message = UserFrames(
        type="user.frames",
        keys=[key for key, _ in found],
        frames=[frame.encode() for _, frame in found],
    )
    return [(user_group(change.owner_id), dict(message))]


def _user_frame(change: Change, event: Event) -> tuple[str, protocol.Status] | None:
    """Return the frame of an event for the user's list, and its key; None if it has none."""
    session_id = change.session_id
    match event:
        case SessionListed():
            frame = frames.session_frame(session_id, change.rev, event)
            return f"{event.kind} {session_id}", frame
        case FeedbackChanged():
            return f"feedback {event.message_id}", frames.feedback_frame(session_id, event)
        case ShareChanged():
            return f"share {event.share_id}", frames.share_frame(session_id, event)
        case _:
            return None
