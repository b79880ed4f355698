"""Tells whoever has registered about a change, once it is committed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Optional
from uuid import UUID

from django.db import transaction

from conversations.models import ChatSession, Run
from conversations.shapes import MessageView, QueueView, RunRef, UserId

if TYPE_CHECKING:
    from conversations.run_states import Claimed


@dataclass(frozen=True)
class MessageChanged:
    """A message was created or changed."""

    message: MessageView
    created: bool


@dataclass(frozen=True)
class QueueChanged:
    """The queue is now this."""

    queue: list[QueueView]


@dataclass(frozen=True)
class RunQueued:
    """A run waits; `position` counts from 1."""

    run: RunRef
    position: int


@dataclass(frozen=True)
class RunCancelRequested:
    """The worker of a running run is asked to stop it."""

    run: RunRef

    @property
    def run_id(self) -> UUID:
        return UUID(self.run.run_id)


@dataclass(frozen=True)
class RunAdvanced:
    """Events were written to a run's journal: (seq, kind, payload) in order, without a gap.

    `run` is the row as it is after them, with its reply. `html` is that of an ended run's texts,
    one for each text part; None where nobody has rendered them yet.
    """

    run: Run
    events: list[tuple[int, str, dict[str, Any]]]
    html: list[str] | None = None


@dataclass(frozen=True)
class RunReady:
    """A run may be worked on now; `claimed` where the same transaction has claimed it.

    A claim holds for the process that has asked for it, which is the one that is told.
    """

    run_id: UUID
    claimed: Optional["Claimed"] = None


@dataclass(frozen=True)
class RunEnded:
    """A run has its terminal status: whoever works on it, or waits to, stops."""

    run_id: UUID


@dataclass(frozen=True)
class SessionListed:
    """A line of the owner's list of sessions changed."""

    kind: Literal["created", "updated", "deleted", "activity"]
    title: str
    active_at: str
    run_status: str | None
    archived: bool


@dataclass(frozen=True)
class FeedbackChanged:
    """The owner's verdict on a reply is now this; None: taken back."""

    message_id: UUID
    value: str | None


@dataclass(frozen=True)
class ShareChanged:
    """A link to read by was made, or (`revoked`) holds no more."""

    share_id: UUID
    created_at: str
    revoked: bool


Event = (
    MessageChanged
    | QueueChanged
    | RunQueued
    | RunCancelRequested
    | RunAdvanced
    | RunReady
    | RunEnded
    | SessionListed
    | FeedbackChanged
    | ShareChanged
)

UNNUMBERED = (FeedbackChanged, ShareChanged)
"""Events that are no change of the session itself: its revision stays."""


@dataclass(frozen=True)
class Change:
    """What one transaction did to one session, in order."""

    session_id: UUID
    owner_id: UserId
    rev: int
    events: tuple[Event, ...]


_handlers: list[Callable[[Change], None]] = []
_enqueuers: list[Callable[[Run], None]] = []


def register_enqueuer(enqueue: Callable[[Run], None]) -> None:
    """Have `enqueue` called in each transaction that makes a run ready, before it commits.

    It may write to the same database, and must not raise for a run that is enqueued already. The
    session of the run is locked.
    """
    _enqueuers.append(enqueue)


def enqueue_ready(run: Run) -> None:
    """Hand a run that has become ready to what was registered, in the current transaction."""
    for enqueue in _enqueuers:
        enqueue(run)


def register(handler: Callable[[Change], None]) -> None:
    """Have `handler` called, in the thread that committed, after every change."""
    _handlers.append(handler)


def announce_unnumbered(session: ChatSession, event: FeedbackChanged | ShareChanged) -> None:
    """Tell of something about a session that is not locked."""
    announce(Change(session.pk, session.owner_id, session.rev, (event,)))


def announce(change: Change) -> None:
    """Tell the handlers when the current transaction has committed."""
    transaction.on_commit(lambda: _call(change))


def _call(change: Change) -> None:
    for handler in _handlers:
        handler(change)
