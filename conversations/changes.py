"""The frame of every write: lock a session, collect what happened, tell people after it."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal
from uuid import UUID

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from conversations import notify
from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import ACTIVE, ChatSession, Item, Run, RunEvent, RunStatus
from conversations.notify import (
    Change,
    Event,
    MessageChanged,
    QueueChanged,
    RunReady,
    SessionListed,
)
from conversations.queries import list_unfinished
from conversations.shapes import QueueView, message_view, queue_view

EventRow = tuple[int, str, dict[str, Any]]
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
            notify.enqueue_ready(self.head)
            self.add(RunReady(self.head.pk))
        if (queue := self._queue()) != self._queue_before:
            self.add(QueueChanged(queue))
        # What still ends in a deleted session does not put it back on the list.
        if kind is not None and (self.session.deleted_at is None or kind == "deleted"):
            self.add(self._line(kind))
        session = self.session
        notify.announce(Change(session.pk, session.owner_id, session.rev, tuple(self.events)))

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
