"""Groups of the channel layer and the messages that go through them.

Everything in a message is a string or a number, and every frame is encoded already: consumers
forward it as it is. Group names are made of ids that the server itself has given out.
"""

from typing import Any, TypedDict
from uuid import UUID

from conversations.shapes import RunRef, UserId


class RunFrames(TypedDict):
    """Frames of one run's journal, `first` being the seq of the first; `chars` of answer text.

    Without frames it says that there are more before `first`, to be read from the database.
    """

    type: str
    session_id: str
    run_id: str
    number: int
    epoch: int
    first: int
    chars: int
    ended: bool
    frames: list[str]


class SessionFrames(TypedDict):
    """What one change of a session shows; `rev` is the session's after it.

    `runs` are id and number of the runs whose replies it tells of: readers owe their frames.
    """

    type: str
    session_id: str
    rev: int
    runs: list[tuple[str, int]]
    frames: list[str]


class Notice(TypedDict):
    """A frame about a run that is not part of its journal."""

    type: str
    session_id: str
    run_id: str
    number: int
    frame: str


class UserFrames(TypedDict):
    """Frames for every socket of a user."""

    type: str
    frames: list[str]


class RunCancel(TypedDict):
    """To all workers: stop a run if it is yours."""

    type: str
    run_id: str


WORKER_GROUP = "workers"

Envelope = tuple[str, dict[str, Any]]


def session_group(session_id: UUID | str) -> str:
    return f"session.{UUID(str(session_id)).hex}"


def user_group(user_id: UserId) -> str:
    return f"user.{user_id}"


def run_frames(ref: RunRef, first: int, frames: list[str], *, chars: int, ended: bool) -> Envelope:
    """Frames `first`, `first + 1`, ... of a run, for the group of its session."""
    message = RunFrames(
        type="run.frames",
        session_id=ref.session_id,
        run_id=ref.run_id,
        number=ref.run_number,
        epoch=ref.epoch,
        first=first,
        chars=chars,
        ended=ended,
        frames=frames,
    )
    return session_group(ref.session_id), dict(message)
