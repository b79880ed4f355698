"""A user's list of sessions: begun, renamed, put away, deleted, and brought back for a while."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from conversations import run_states
from conversations.changes import ChangeBuilder, lock_session
from conversations.conf import restore_days
from conversations.excerpts import Piece, cut_excerpt
from conversations.models import ChatSession, EndReason, TitleSource
from conversations.queries import User, parse_id, sessions_of
from conversations.search import find_messages
from conversations.titles import clean_title

EXCERPT = 120
"""Characters of what was said, about, under a title that was found."""

Shelf = Literal["current", "archived", "all", "deleted"]
SHELVES: dict[str, Q] = {
    "current": Q(deleted_at=None, archived_at=None),
    "archived": Q(deleted_at=None, archived_at__isnull=False),
    "all": Q(deleted_at=None),
    "deleted": Q(deleted_at__isnull=False),
}


def kept_of(user: User) -> QuerySet[ChatSession]:
    """The sessions of `user` with those that were deleted and can still be restored."""
    return ChatSession.objects.filter(Q(deleted_at=None) | restorable(), owner_id=user.pk)


def all_of(user: User) -> QuerySet[ChatSession]:
    """Everything that is kept of `user`, also what has been deleted and is not yet purged."""
    return ChatSession.objects.filter(owner_id=user.pk)


def restorable() -> Q:
    """Deleted, but not too long ago."""
    since = timezone.now() - timedelta(days=restore_days())
    return Q(deleted_at__gte=since)


@dataclass(frozen=True)
class Match:
    """The newest message of a session that a search has found, and a few words of it."""

    message_id: UUID
    excerpt: list[Piece]


def find_matches(user: User, words: str, sessions: Iterable[ChatSession]) -> dict[UUID, Match]:
    """By session, for those in which a message has `words`; none without words."""
    if not words.strip():
        return {}
    found = find_messages(user, words, [session.pk for session in sessions])
    return {
        pk: Match(entry.message_id, cut_excerpt(entry.text, words, EXCERPT))
        for pk, entry in found.items()
        if entry.message_id is not None
    }


@transaction.atomic
def create_session(*, user: User, title: str = "") -> ChatSession:
    """A session in which nothing has been said."""
    cleaned = clean_title(title)
    source = TitleSource.USER if cleaned else TitleSource.WORDS
    session = ChatSession(title=cleaned, title_source=source)
    session.owner_id = user.pk  # type: ignore[assignment]
    session.save()
    ChangeBuilder(session, is_new=True).announce("created")
    return session


@transaction.atomic
def archive_session(*, user: User, session_id: str | UUID, archived: bool) -> ChatSession:
    """Put a session away or take it out again; raises `AgentSiteError(not_found)`."""
    session = lock_session(sessions_of(user), parse_id(session_id), is_activity=False)
    if archived != session.is_archived:
        session.archived_at = timezone.now() if archived else None
    return _save(session, "archived_at")


@transaction.atomic
def archive_sessions(*, user: User, session_ids: Iterable[str]) -> list[str]:
    """Put all of these away, or none of them; their titles. Raises `AgentSiteError(not_found)`."""
    wanted = sorted(set(map(parse_id, session_ids)))
    return [archive_session(user=user, session_id=pk, archived=True).title for pk in wanted]


@transaction.atomic
def delete_session(*, user: User, session_id: str) -> None:
    """Take a session off every list and stop what works in it; raises `AgentSiteError`."""
    session = lock_session(sessions_of(user), parse_id(session_id), is_activity=False)
    change = ChangeBuilder(session)
    # From the last, so that none of them becomes the one to be begun next.
    for run in reversed(list(change.unfinished)):
        run_states.stop(change, run, EndReason.USER)
    session.deleted_at = timezone.now()
    session.save(update_fields=["deleted_at"])
    change.announce("deleted")


@transaction.atomic
def restore_session(*, user: User, session_id: str) -> ChatSession:
    """Undo a deletion, for `RESTORE_DAYS`; raises `AgentSiteError(not_found)`."""
    session = lock_session(kept_of(user), parse_id(session_id), is_activity=False)
    session.deleted_at = None
    return _save(session, "deleted_at")


def _save(session: ChatSession, *fields: Any) -> ChatSession:
    session.save(update_fields=fields)
    ChangeBuilder(session).announce("updated")
    return session
