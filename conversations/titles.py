"""A session's title: first words, then the model's, and at any time the user's own."""

from uuid import UUID

from django.db import transaction

from conversations.changes import ChangeBuilder, lock_session
from conversations.errors import AgentSiteError
from conversations.models import ChatSession, TitleSource
from conversations.text import clean_text

WORDS_LENGTH = 60
TITLE_LENGTH = 200


def first_words(content: str) -> str:
    """The title that a session begins with."""
    return _cut(_one_line(content), WORDS_LENGTH)


def clean_title(title: str) -> str:
    """A title as it is kept: one line that is not too long."""
    return _cut(_one_line(title), TITLE_LENGTH)


def _one_line(text: str) -> str:
    return " ".join(clean_text(text).split())


def _cut(words: str, length: int) -> str:
    return words if len(words) <= length else words[: length - 1].rstrip() + "…"


def save_title(session: ChatSession, title: str, source: TitleSource) -> None:
    """Keep the title of a locked session, and tell all lists of the owner."""
    session.title, session.title_source = title, source
    session.save(update_fields=["title", "title_source"])
    ChangeBuilder(session).announce("updated")


@transaction.atomic
def set_model_title(session_id: UUID, title: str) -> bool:
    """Replace the first words by the model's title; False where the user was faster."""
    sessions = ChatSession.objects.filter(deleted_at=None, title_source=TitleSource.WORDS)
    try:
        session = lock_session(sessions, session_id, is_activity=False)
    except AgentSiteError:
        return False
    save_title(session, clean_title(title), TitleSource.MODEL)
    return True
