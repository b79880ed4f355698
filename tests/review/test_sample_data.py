"""The generated database is one that the product could have made."""

from typing import Any

import pytest
from django.contrib.auth import get_user_model

from benchmarks.sample_data import main
from conversations.models import ChatSession, Message, Run, SearchEntry
from conversations.queries import list_sessions, session_usage
from conversations.sessions.history import get_history
from conversations.sessions.search import containing
from tests.support.usage import added_up

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _debug(settings: Any) -> None:
    settings.DEBUG = True


def make(**options: Any) -> None:
    sizes = {"sessions": 30, "messages": 200, "users": 3}
    given = (sizes | options).items()
    assert main([f"--{name}={value}" for name, value in given]) == 0


def test_it_has_the_size_that_was_asked_for() -> None:
    make()
    counts = [model.objects.count() for model in (ChatSession, Message, Run)]
    assert counts == [30, 200, 100]
    texts = Message.objects.exclude(parts=[]).count()
    assert SearchEntry.objects.count() >= texts


def test_conversations_read_like_others() -> None:
    make()
    user = get_user_model()._default_manager.get(username="sample-00001")
    for session in list_sessions(user):
        history = get_history(session)
        assert len(history.messages) == session.message_count
        assert (history.run, history.queue) == (None, [])
        assert session in containing(ChatSession.objects.all(), session.title, owner=user)


def test_its_totals_are_those_of_its_replies() -> None:
    make()
    for session in ChatSession.objects.all():
        assert session_usage(session) == added_up(session)


def test_the_same_seed_tells_the_same() -> None:
    told = []
    for seed in (1, 2, 1):
        make(seed=seed, sessions=5, messages=20)
        told.append(titles())
        ChatSession.objects.all().delete()
    assert told[0] == told[2] != told[1]


def titles() -> list[str]:
    return list(ChatSession.objects.order_by("pk").values_list("title", flat=True))


def test_a_site_in_use_is_left_alone(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    settings.DEBUG = False
    assert main([]) == 1
    assert "DEBUG" in capsys.readouterr().err
    assert not ChatSession.objects.exists()
