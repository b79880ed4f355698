"""What tools find in a person's own conversations, and in nobody else's."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from conversations.errors import AgentSiteError
from conversations.models import Message
from conversations.sessions import search
from tests.support.chats import make_user, talk

pytestmark = pytest.mark.django_db

NOTHING = UUID(int=0)


@pytest.fixture
def ann(db: None) -> Any:
    return make_user("ann")


def titles(user: Any, text: str, limit: int = 10) -> list[str]:
    found = search.search_sessions(user, text, limit=limit, apart_from=NOTHING)
    return [one.title for one in found]


def test_all_words_in_one_message_or_title(ann: Any) -> None:
    talk(ann, ("Herons", "They stand in SHALLOW water."))
    talk(ann, ("Shallow graves", "A film of 1994."))
    assert titles(ann, "shallow water") == ["Herons"]
    assert titles(ann, "shallow") == ["Shallow graves", "Herons"]
    assert titles(ann, "deep water") == []


def test_words_that_are_stored_escaped(ann: Any) -> None:
    talk(ann, ("One", "Das Öl im „Getriebe“"))
    assert titles(ann, "Öl getriebe") == ["One"]


def test_the_names_of_fields_are_not_text(ann: Any) -> None:
    talk(ann, ("One", "A reply."))
    assert titles(ann, "type") == []


def test_nothing_asked_is_the_newest(ann: Any) -> None:
    for name in ("One", "Two", "Three"):
        talk(ann, (name, "Yes."))
    assert titles(ann, "  ", limit=2) == ["Three", "Two"]


def test_an_excerpt_shows_the_place(ann: Any) -> None:
    talk(ann, ("Long", f"{'before ' * 100}needle {'after ' * 100}"))
    (found,) = search.search_sessions(ann, "needle", limit=5, apart_from=NOTHING)
    assert "needle" in found.excerpt
    assert found.excerpt.startswith("…")
    assert found.excerpt.endswith("…")
    assert len(found.excerpt) <= search.EXCERPT + 2


def test_nobody_elses(ann: Any) -> None:
    theirs = talk(make_user("ben"), ("Secret", "water"))
    assert titles(ann, "water") == []
    with pytest.raises(AgentSiteError, match="not_found"):
        search.read_session(ann, str(theirs.pk), max_chars=100)
    assert search.count_since(ann, None) == search.Count(0, 0)


def test_reading_keeps_the_end(ann: Any) -> None:
    session = talk(ann, ("One", "first"), ("Two", "second"))
    whole = search.read_session(ann, str(session.pk), max_chars=1_000)
    assert whole.text == "user: One\n\nassistant: first\n\nuser: Two\n\nassistant: second"
    assert (whole.messages, whole.shortened) == (4, False)
    cut = search.read_session(ann, str(session.pk), max_chars=6)
    assert (cut.text, cut.shortened) == ("second", True)


def test_counting_from_a_day_on(ann: Any) -> None:
    old = talk(ann, ("Old", "yes"), ("Older", "yes"))
    talk(ann, ("New", "yes"))
    long_ago = timezone.now() - timedelta(days=40)
    Message.objects.filter(session=old).update(created_at=long_ago)
    assert search.count_since(ann, timezone.now() - timedelta(days=7)) == search.Count(1, 1)
    assert search.count_since(ann, None) == search.Count(2, 3)
