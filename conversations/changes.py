"""Every write to a session: lock it, collect what happened, and notify others after the commit."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Optional
from uuid import UUID

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import ACTIVE, ChatSession, Item, Run, RunEvent, RunStatus
from conversations.queries import EventRow, list_unfinished
from conversations.shapes import MessageView, QueueView, RunRef, UserId, message_view, queue_view

if TYPE_CHECKING:
    from conversations.runs.states import Claimed


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


ListKind = Literal["created", "updated", "deleted", "activity"]


class RunLostError(Exception):
    """The run is not what its caller takes it for: it has ended, or another worker has it.

    Raised inside a transaction, which it rolls back.
    """


def lock_session(
    sessions: QuerySet[ChatSession], session_id: UUID, *, is_activity: bool = True
) -> ChatSession:
    """Raise the revision of one of `sessions`, which locks its row, and read it.

    What is no activity leaves the session's place in the list. Raises
    `AgentSiteError(not_found)`.
    """
    moment = {"active_at": timezone.now()} if is_activity else {}
    moved = sessions.filter(pk=session_id).update(rev=F("rev") + 1, **moment)
    if not moved:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    return ChatSession.objects.get(pk=session_id)


def lock_runs(session_ids: Iterable[UUID]) -> None:
    """Lock what is at work in locked sessions, in the order in which workers commit to it."""
    runs = Run.objects.filter(session__in=list(session_ids), status__in=ACTIVE).order_by("pk")
    list(runs.select_for_update().values_list("pk", flat=True))


class ChangeBuilder:
    """What one transaction does to one locked session.

    `unfinished` are its active runs in order, with prompts and replies; whoever adds or ends
    one keeps this list true.

    `locks_runs` also locks their rows, which a commit of text writes without the session's lock.
    """

    def __init__(
        self, session: ChatSession, *, is_new: bool = False, locks_runs: bool = False
    ) -> None:
        self.session = session
        self.events: list[Event] = []
        self.unfinished: list[Run] = [] if is_new else list_unfinished(session.pk, lock=locks_runs)
        self._queue_before = self._queue()
        self._claimable_before = self.claimable

    @property
    def head(self) -> Run | None:
        """The run at work or awaiting input, else the first that waits."""
        return self.unfinished[0] if self.unfinished else None

    @property
    def waiting(self) -> list[Run]:
        """The queue behind the head."""
        return self.unfinished[1:]

    @property
    def claimable(self) -> UUID | None:
        """The run that may be claimed now."""
        queued = self.head is not None and self.head.status == RunStatus.QUEUED
        return self.head.pk if self.head is not None and queued else None

    def find(self, run_id: UUID) -> Run | None:
        """The run if it is unfinished."""
        return next((run for run in self.unfinished if run.pk == run_id), None)

    def add(self, event: Event) -> None:
        self.events.append(event)

    def announce(self, kind: ListKind | None) -> None:
        """Emit what happened once the transaction has committed; `kind` for the owner's list.

        A run that may be claimed now and could not before is ready: every writer says so here.
        """
        if self.head is not None and self.claimable not in (None, self._claimable_before):
            enqueue_ready(self.head)
            self.add(RunReady(self.head.pk))
        if (queue := self._queue()) != self._queue_before:
            self.add(QueueChanged(queue))
        # What still ends in a deleted session does not put it back on the list.
        if kind is not None and (self.session.deleted_at is None or kind == "deleted"):
            self.add(self._line(kind))
        session = self.session
        announce(Change(session.pk, session.owner_id, session.rev, tuple(self.events)))

    def _queue(self) -> list[QueueView]:
        return [queue_view(run) for run in self.waiting]

    def _line(self, kind: ListKind) -> SessionListed:
        return SessionListed(
            kind=kind,
            title=self.session.title,
            active_at=self.session.active_at.isoformat(),
            run_status=self.head.status if self.head else None,
            archived=self.session.is_archived,
        )


@contextmanager
def locked_run(run_id: UUID, session_id: UUID | None = None) -> Iterator[tuple[ChangeBuilder, Run]]:
    """One transaction around a move of a run, announced as activity of its session.

    Locks the session, then the rows of its runs. `session_id` saves a query where it is known.
    Raises `RunLostError` for a run that has ended, and `Run.DoesNotExist`.
    """
    with transaction.atomic():
        if session_id is None:
            session_id = Run.objects.values_list("session_id", flat=True).get(pk=run_id)
        session = lock_session(ChatSession.objects.all(), session_id)
        change = ChangeBuilder(session, locks_runs=True)
        run = change.find(run_id)
        if run is None:
            raise RunLostError(f"run {run_id} has ended")
        yield change, run
        change.announce("activity")


def write_events(run: Run, events: Iterable[EventRow]) -> None:
    """Add (seq, kind, payload) rows to the run's journal, in its present epoch."""
    now = timezone.now()
    RunEvent.objects.bulk_create(
        [
            RunEvent(
                run_id=run.pk, epoch=run.epoch, seq=seq, kind=kind, payload=payload, created_at=now
            )
            for seq, kind, payload in events
        ],
        batch_size=500,
    )


def write_items(run: Run, items: Sequence[dict[str, Any]]) -> None:
    """Make these the items of the run's reply, in place of what there was."""
    Item.objects.filter(run_id=run.pk).delete()
    rows = [Item(run=run, position=place, payload=item) for place, item in enumerate(items)]
    Item.objects.bulk_create(rows, batch_size=500)


def update_reply(change: ChangeBuilder, run: Run) -> None:
    """Mark the reply as changed at the session's present revision.

    Its parts are not told of here: followers have them from the run's own events.
    """
    run.reply.rev = change.session.rev
    run.reply.save(update_fields=["rev", "parts"])
    view = replace(message_view(run.reply, run=run), parts=None)
    change.add(MessageChanged(view, created=False))
