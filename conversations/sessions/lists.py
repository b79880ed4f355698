"""Sessions as entries of a user's list: create, title, summarise, archive, delete, restore."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from conversations.apps import restore_days
from conversations.changes import ChangeBuilder, MessageChanged, lock_session
from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import (
    ChatSession,
    EndReason,
    Message,
    Run,
    RunStatus,
    SideCall,
    Summary,
    TitleSource,
)
from conversations.queries import User, parse_id, reply_run
from conversations.runs import states
from conversations.runs.usage import TokenUsage, add_to_session, price, usage_columns
from conversations.sessions.search import Piece, cut_excerpt, find_messages
from conversations.shapes import message_view
from conversations.text import clean_text, without_marks

WORDS_LENGTH = 60
READ_CHARS = 1_000
TITLE_LENGTH = 200


def first_words(content: str) -> str:
    """Return the first words of a message, the title of a session until it gets another one.

    They are one line of at most `WORDS_LENGTH` characters, without marks of Markdown unless there
    is nothing else; "" for a text of spaces.
    """
    beginning = content[:READ_CHARS]
    return _cut(_one_line(without_marks(beginning)) or _one_line(beginning), WORDS_LENGTH)


def clean_title(title: str) -> str:
    """Return a title in the form that is stored: one line of at most `TITLE_LENGTH` characters.

    A longer one is cut and ends with "…"; "" for a text of spaces.
    """
    return _cut(_one_line(title), TITLE_LENGTH)


def _one_line(text: str) -> str:
    return " ".join(clean_text(text).split())


def _cut(words: str, length: int) -> str:
    return words if len(words) <= length else words[: length - 1].rstrip() + "…"


def save_title(session: ChatSession, title: str, source: TitleSource) -> None:
    """Store `title` as it is, and announce it to the owner's lists.

    The session must be locked, in an open transaction. The title is not cleaned or cut here.
    """
    session.title, session.title_source = title, source
    session.save(update_fields=["title", "title_source"])
    ChangeBuilder(session).announce("updated")


def set_model_title(session_id: UUID, title: str) -> bool:
    """Replace a title of first words by the model's title; return whether that was done.

    It is not done if the session has another title by now, or has been deleted. The title is
    cleaned and cut, but an empty one is not refused.
    """
    try:
        with transaction.atomic():
            session = lock_session(session_id, is_activity=False)
            if session.deleted_at is not None or session.title_source != TitleSource.WORDS:
                raise AgentSiteError(ErrorCode.NOT_FOUND)
            save_title(session, clean_title(without_marks(title)), TitleSource.MODEL)
    except AgentSiteError:
        return False
    return True


EXCERPT = 120
"""Approximate length, in characters, of the excerpt below a title in search results."""

Shelf = Literal["current", "archived", "all", "deleted"]
SHELVES: dict[str, Q] = {
    "current": Q(deleted_at=None, archived_at=None),
    "archived": Q(deleted_at=None, archived_at__isnull=False),
    "all": Q(deleted_at=None),
    "deleted": Q(deleted_at__isnull=False),
}


def kept_of(user: User) -> QuerySet[ChatSession]:
    """Return the sessions of `user`, including deleted ones that can still be restored."""
    return ChatSession.objects.filter(Q(deleted_at=None) | restorable(), owner_id=user.pk)


def all_of(user: User) -> QuerySet[ChatSession]:
    """Return all sessions of `user`, including deleted ones that are not purged yet."""
    return ChatSession.objects.filter(owner_id=user.pk)


def restorable() -> Q:
    """Return the condition for sessions that were deleted at most `RESTORE_DAYS` days ago."""
    since = timezone.now() - timedelta(days=restore_days())
    return Q(deleted_at__gte=since)


@dataclass(frozen=True)
class Match:
    """A session's newest message that contains all words of a search, with an excerpt of it."""

    message_id: UUID
    excerpt: list[Piece]


def find_matches(user: User, words: str, sessions: Iterable[ChatSession]) -> dict[UUID, Match]:
    """Return matches by session id, for those `sessions` of `user` with a message that matches.

    A message matches if it has all `words`; without words there are no matches. A session that only
    its title matches is left out.
    """
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
    """Create a session without messages; its first message gives it a title if this has none.

    A title is cleaned, and cut to `TITLE_LENGTH` characters.
    """
    cleaned = clean_title(title)
    source = TitleSource.USER if cleaned else TitleSource.WORDS
    session = ChatSession(title=cleaned, title_source=source)
    session.owner_id = user.pk  # type: ignore[assignment]
    session.save()
    ChangeBuilder(session, is_new=True).announce("created")
    return session


@transaction.atomic
def archive_session(*, user: User, session_id: str | UUID, archived: bool) -> ChatSession:
    """Archive a session, or take it out of the archive if not `archived`; return it.

    One that is archived already keeps the time. Raises `AgentSiteError(not_found)`, also for a
    deleted session.
    """
    session = lock_session(parse_id(session_id), user=user, is_activity=False)
    if archived != session.is_archived:
        session.archived_at = timezone.now() if archived else None
    return _save(session, "archived_at")


@transaction.atomic
def pin_session(*, user: User, session_id: str | UUID, pinned: bool) -> ChatSession:
    """Keep a session at the top of its user's list, or no longer if not `pinned`; return it.

    Raises `AgentSiteError(not_found)`, also for a deleted session.
    """
    session = lock_session(parse_id(session_id), user=user, is_activity=False)
    session.is_pinned = pinned
    return _save(session, "is_pinned")


@transaction.atomic
def archive_sessions(*, user: User, session_ids: Iterable[str]) -> list[str]:
    """Archive all of these sessions; return their titles in the order of their ids, each once.

    Raises `AgentSiteError(not_found)` if one of them is not found; then none is archived.
    """
    # Locked in the order of their ids, as all code that locks several sessions does.
    wanted = sorted(set(map(parse_id, session_ids)))
    return [archive_session(user=user, session_id=pk, archived=True).title for pk in wanted]


@transaction.atomic
def delete_session(*, user: User, session_id: str | UUID) -> None:
    """Mark a session as deleted, cancel its queued and suspended runs, and have a running one stop.

    The worker of a running one stops it soon after. Nothing is erased before the session is purged.
    Raises `AgentSiteError(not_found)`, also for a session that is deleted already.
    """
    session = lock_session(parse_id(session_id), user=user, is_activity=False)
    change = ChangeBuilder(session)
    # From the last one, so that none of them becomes the next to start.
    for run in reversed(list(change.unfinished)):
        states.stop(change, run, EndReason.USER)
    session.deleted_at = timezone.now()
    session.save(update_fields=["deleted_at"])
    change.announce("deleted")


@transaction.atomic
def restore_session(*, user: User, session_id: str) -> ChatSession:
    """Restore a session that was deleted at most `RESTORE_DAYS` days ago; return it.

    Runs that the deletion has cancelled stay cancelled. A session that is not deleted is only
    announced again. Raises `AgentSiteError(not_found)`, also if the session was deleted earlier.
    """
    pk = parse_id(session_id)
    session = lock_session(pk, user=user, with_deleted=True, is_activity=False)
    if not kept_of(user).filter(pk=pk).exists():
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    session.deleted_at = None
    return _save(session, "deleted_at")


def _save(session: ChatSession, *fields: Any) -> ChatSession:
    session.save(update_fields=fields)
    ChangeBuilder(session).announce("updated")
    return session


@transaction.atomic
def rename_session(*, user: User, session_id: str, title: str) -> ChatSession:
    """Give a session the title that its user chose, cleaned and cut; return the session.

    The model's title never replaces it.

    Raises `AgentSiteError`: bad_frame (empty title), not_found.
    """
    if not (cleaned := clean_title(title)):
        raise AgentSiteError(ErrorCode.BAD_FRAME)
    session = lock_session(parse_id(session_id), user=user, is_activity=False)
    save_title(session, cleaned, TitleSource.USER)
    return session


@transaction.atomic
def save_summary(session_id: UUID, message_id: UUID, text: str, model: str) -> None:
    """Store `text` as the summary of a branch down to the reply `message_id`, and announce it.

    `model` is the one that wrote the summary; both may be "". A reply that has a summary keeps
    it. Raises `AgentSiteError(not_found)` for an unknown session, and `Message.DoesNotExist` for a
    message that is not in it.
    """
    session = lock_session(session_id, is_activity=False)
    if Summary.objects.filter(message_id=message_id).exists():
        return
    message = Message.objects.select_related("run").get(pk=message_id, session=session)
    message.rev = session.rev
    message.save(update_fields=["rev"])
    message.summary = Summary.objects.create(message=message, text=text, model=model)
    change = ChangeBuilder(session)
    view = replace(message_view(message, run=reply_run(message)), parts=None)
    change.add(MessageChanged(view, created=False))
    change.announce(None)


def begin_upkeep(session_id: UUID, duration: timedelta) -> bool:
    """Reserve the upkeep of a session, its title and summaries, for one process and `duration`.

    Returns True if that was done; False if it is reserved already, or the session is deleted or
    unknown. The reservation ends after `duration`, by the database's clock, or by `end_upkeep`.
    """
    free = Q(upkeep_until=None) | Q(upkeep_until__lt=Now())
    sessions = ChatSession.objects.filter(free, pk=session_id, deleted_at=None)
    return bool(sessions.update(upkeep_until=Now() + duration))


def end_upkeep(session_id: UUID) -> None:
    """Release the reservation of `begin_upkeep`, whoever has made it; without one, do nothing."""
    ChatSession.objects.filter(pk=session_id).update(upkeep_until=None)


@transaction.atomic
def add_side_call(
    session_id: UUID, purpose: SideCall.Purpose, model: str, usage: TokenUsage
) -> None:
    """Store the usage of a model call that is not part of a reply, and add it to the totals.

    Call it also if the answer of the call is not used. The totals are those of the session; daily
    limits do not count side calls. The call is priced as one of `model`, whose name is stored cut
    to 200 characters.
    """
    call = SideCall.objects.create(
        session_id=session_id,
        purpose=purpose,
        model=model[:200],
        **usage_columns(usage, price(usage, model)),
    )
    add_to_session(session_id, [call])


@dataclass(frozen=True)
class FirstWords:
    """The texts of a message and its reply, from which a session's title is made."""

    asked: str
    replied: str


def read_untitled(run_id: UUID) -> FirstWords | None:
    """Return the message and reply of a completed run whose session still needs a title.

    None if the run has not completed or is gone, the title is from a model or a person, or a model
    was asked for a title before, as its `SideCall` shows.
    """
    asked = SideCall.objects.filter(purpose=SideCall.Purpose.TITLE).values("session")
    runs = Run.objects.filter(
        pk=run_id, status=RunStatus.COMPLETED, session__title_source=TitleSource.WORDS
    )
    run = runs.exclude(session__in=asked).select_related("prompt", "reply").first()
    return FirstWords(run.prompt.text, run.reply.text) if run else None
