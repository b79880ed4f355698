"""What a conversation is called, and by whom."""

from typing import Any

import pytest
from django.contrib.auth.base_user import AbstractBaseUser

from conversations.actions import rename_session
from conversations.errors import AgentSiteError
from conversations.models import ChatSession, TitleSource
from conversations.titles import first_words, set_model_title
from realtime.process import Process
from tests.support.chats import ask, session_of, talk
from tests.support.client import event
from tests.support.inprocess import make_user, open_chat_here
from tests.support.threads import in_thread

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def user(transactional_db: None) -> AbstractBaseUser:
    return make_user("ada")


def rename(user: Any, session: ChatSession, title: str) -> ChatSession:
    return rename_session(user=user, session_id=str(session.pk), title=title)


def test_a_conversation_begins_with_its_first_words(user: AbstractBaseUser) -> None:
    session = session_of(ask(user, "  Tell me\n of herons  "))
    assert (session.title, session.title_source) == ("Tell me of herons", TitleSource.WORDS)
    assert first_words("word " * 50).endswith("word word…")


def test_the_users_title_stays(user: AbstractBaseUser) -> None:
    session = talk(user, ("hi", "hello"))
    renamed = rename(user, session, "Mine\x00 ")
    assert not set_model_title(session.pk, "The model's")
    session.refresh_from_db()
    assert (session.title, session.title_source) == ("Mine\ufffd", TitleSource.USER)
    assert session.rev == renamed.rev


def test_the_models_title_replaces_first_words_once(user: AbstractBaseUser) -> None:
    session = talk(user, ("hi", "hello"))
    before = session.active_at
    assert set_model_title(session.pk, "Greetings")
    assert not set_model_title(session.pk, "Once more")
    session.refresh_from_db()
    assert (session.title, session.title_source) == ("Greetings", TitleSource.MODEL)
    assert session.active_at == before, "a new title is no activity"


@pytest.mark.parametrize("title", ["", " \n ", "\t"])
def test_a_title_has_words(user: AbstractBaseUser, title: str) -> None:
    session = talk(user, ("hi", "hello"))
    with pytest.raises(AgentSiteError, match="bad_frame"):
        rename(user, session, title)
    session.refresh_from_db()
    assert session.title == "hi"


def test_a_foreign_conversation_is_not_renamed(user: AbstractBaseUser) -> None:
    session = talk(user, ("hi", "hello"))
    with pytest.raises(AgentSiteError, match="not_found"):
        rename(make_user("eve"), session, "Eve's")


async def test_every_tab_is_told(process: Process, user: AbstractBaseUser) -> None:
    session = await in_thread(talk, user, ("hi", "hello"))
    async with open_chat_here(user) as one, open_chat_here(user) as two:
        await one.resume(str(session.pk), rev=0)
        renamed = await in_thread(rename, user, session, "Renamed")
        for tab in (one, two):
            frame = await tab.wait_for(event("session.updated", title="Renamed"))
            assert frame["session_id"] == str(session.pk)
            assert frame["metadata"]["rev"] == renamed.rev
