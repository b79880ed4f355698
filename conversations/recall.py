"""What a person's own conversations say: reads for tools, the user first."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from conversations.excerpts import cut_excerpt
from conversations.models import ChatSession, Message, Role
from conversations.queries import User, get_session, list_path, load_messages, sessions_of
from conversations.search import find_entries

SCANNED = 500
"""Newest titles and messages with the words that are looked at: a session may have many."""

EXCERPT = 160
"""Characters around what was found."""


@dataclass(frozen=True)
class Found:
    """A session with what was searched for; `excerpt` is empty where the title alone has it."""

    session_id: str
    title: str
    active_at: str
    archived: bool
    excerpt: str


@dataclass(frozen=True)
class Said:
    """A whole conversation as text; `shortened` where its beginning has been left out."""

    session_id: str
    title: str
    created_at: str
    messages: int
    shortened: bool
    text: str


@dataclass(frozen=True)
class Count:
    """Sessions that a person has written in, and the messages that they wrote there."""

    conversations: int
    messages: int


def search_sessions(user: User, text: str, *, limit: int, apart_from: UUID) -> list[Found]:
    """Sessions with all the words of `text` in the title or in one message, newest first.

    Without words, the newest sessions.
    """
    if not text.strip():
        newest = sessions_of(user).exclude(pk=apart_from).order_by("-active_at", "-id")
        return [_found(session) for session in newest[:limit]]
    found: dict[UUID, Found] = {}
    for entry in find_entries(user, text, SCANNED):
        known = found.get(entry.session_id)
        if entry.session_id == apart_from or (known is None and len(found) >= limit):
            continue
        if known is None or not known.excerpt:
            excerpt = _excerpt(entry.text, text) if entry.message_id else ""
            found[entry.session_id] = _found(entry.session, excerpt)
    return sorted(found.values(), key=lambda one: one.active_at, reverse=True)


def _found(session: ChatSession, excerpt: str = "") -> Found:
    return Found(
        session_id=str(session.pk),
        title=session.title,
        active_at=session.active_at.isoformat(),
        archived=session.is_archived,
        excerpt=excerpt,
    )


def _excerpt(text: str, words: str) -> str:
    return "".join(piece.text for piece in cut_excerpt(text, words, EXCERPT))


def read_session(user: User, session_id: str, *, max_chars: int, limit: int = 200) -> Said:
    """What was said in a session, its newest `max_chars`; raises `AgentSiteError(not_found)`."""
    session = get_session(user, session_id)
    ids = list_path(session.active_leaf_id, limit) if session.active_leaf_id else []
    lines = [f"{message.role}: {message.text}" for message in load_messages(ids) if message.text]
    text = "\n\n".join(lines)
    return Said(
        session_id=str(session.pk),
        title=session.title,
        created_at=session.created_at.isoformat(),
        messages=len(lines),
        shortened=len(text) > max_chars or len(ids) == limit,
        text=text[-max_chars:],
    )


def count_since(user: User, start: datetime | None) -> Count:
    """What a person has written since `start`, or ever."""
    written = Message.objects.filter(session__in=sessions_of(user), role=Role.USER, withdrawn=False)
    if start is not None:
        written = written.filter(created_at__gte=start)
    return Count(
        conversations=written.values("session").distinct().count(), messages=written.count()
    )
