"""The frame of every write: lock a session, collect what happened, tell people after it."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal
from uuid import UUID

from django.db.models import F, QuerySet
from django.utils import timezone

from conversations import notify
from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import ChatSession, EndReason, Run, RunEvent, RunStatus
from conversations.notify import Change, Event, MessageChanged, RunAdvanced, SessionListed
from conversations.queries import get_active_run
from conversations.shapes import message_view

EventRow = tuple[int, str, dict[str, Any]]
ListKind = Literal["created", "updated", "deleted", "activity"]


def lock_session(sessions: QuerySet[ChatSession], session_id: UUID) -> ChatSession:
    """Raise the revision of one of `sessions`, which locks its row, and read it.

    Raises `AgentSiteError(not_found)`.
    """
    if not sessions.filter(pk=session_id).update(rev=F("rev") + 1):
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    return ChatSession.objects.get(pk=session_id)


def lock_run(run_id: UUID) -> tuple[ChatSession, Run]:
    """Lock the run's session and read the run, for workers; raises `Run.DoesNotExist`."""
    session_id = Run.objects.values_list("session_id", flat=True).get(pk=run_id)
    session = lock_session(ChatSession.objects.all(), session_id)
    return session, Run.objects.select_related("reply").get(pk=run_id)


class ChangeBuilder:
    """What one transaction does to one locked session."""

    def __init__(self, session: ChatSession) -> None:
        self.session = session
        self.events: list[Event] = []

    def add(self, event: Event) -> None:
        self.events.append(event)

    def announce(self, kind: ListKind | None = None) -> None:
        """Tell people once the transaction has committed; `kind` also moves the list's line."""
        if kind is not None:
            self.add(self._line(kind))
        session = self.session
        notify.announce(Change(session.pk, session.owner_id, session.rev, tuple(self.events)))

    def _line(self, kind: ListKind) -> SessionListed:
        active = get_active_run(self.session.pk)
        return SessionListed(
            kind=kind,
            title=self.session.title,
            active_at=self.session.active_at.isoformat(),
            run_status=active.status if active else None,
        )


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


def end_unowned(change: ChangeBuilder, run: Run, status: RunStatus, reason: EndReason) -> None:
    """End a run that no worker owns: its last event, its row and its reply."""
    run.last_seq += 1
    run.status = status
    run.reason = reason
    run.ended_at = timezone.now()
    run.save(update_fields=["last_seq", "status", "reason", "ended_at", "claim", "lease_until"])
    last = (run.last_seq, "complete", {"finish_reason": status.value, "reason": reason.value})
    write_events(run, [last])
    update_reply(change, run)
    change.add(RunAdvanced(run, [last]))


def update_reply(change: ChangeBuilder, run: Run) -> None:
    """Mark the reply as changed at the session's present revision.

    Its parts are not told of here: followers have them from the run's own events.
    """
    run.reply.rev = change.session.rev
    run.reply.save(update_fields=["rev", "parts"])
    view = replace(message_view(run.reply, run=run), parts=None)
    change.add(MessageChanged(view, created=False))
