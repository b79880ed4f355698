"""Locks on Postgres: several rows in the order of their ids, one before it is counted."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from pytest_django.plugin import DjangoDbBlocker

from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import ChatSession, Message, Run
from conversations.people import accounts
from conversations.people.accounts import create_key
from conversations.runs import events as events_module
from conversations.runs import lifecycle
from conversations.runs.events import Batch
from conversations.sessions import sharing
from conversations.sessions.sharing import create_share
from tests.support.chats import make_user
from tests.support.databases import connected, migrated
from tests.support.servers import Postgres
from tests.support.waiting import poll

LOW, HIGH = UUID(int=1), UUID(int=2)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def url(postgres: Postgres, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    with django_db_blocker.unblock(), migrated(postgres) as url, connected(url):
        user = make_user("ann")
        # The higher id first: a scan of the table meets it first.
        for pk in (HIGH, LOW):
            session = ChatSession.objects.create(id=pk, owner=user)
            asked, said = (
                Message.objects.create(session=session, number=number, role=role, rev=1)
                for number, role in ((1, "user"), (2, "assistant"))
            )
            fields = {"number": 1, "claim": 1, "epoch": 1, "last_seq": 1, "status": "running"}
            Run.objects.create(
                id=pk, session=session, owner=user, prompt=asked, reply=said, **fields
            )
        yield url


def commit() -> object:
    """By a plan that scans the table, as Postgres may choose when many runs commit."""
    with connection.cursor() as cursor:
        cursor.execute("SET enable_nestloop = off; SET enable_mergejoin = off")
    events = [(2, "token", {"delta": "x"})]
    batches = [Batch(pk, 1, 1, 1, events) for pk in (HIGH, LOW)]
    return events_module.commit_batches(batches, MINUTE).kept


def mark() -> None:
    lifecycle.mark_viewed([HIGH, LOW], MINUTE)


def is_waiting() -> bool:
    with connection.cursor() as cursor:
        # Otherwise a transaction sees what it saw at first.
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(cursor.fetchone()[0])


@pytest.mark.parametrize(("model", "write"), [(Run, commit), (ChatSession, mark)])
def test_rows_are_locked_by_their_ids(url: str, model: Any, write: Callable[[], Any]) -> None:
    def other() -> Any:
        with connected(url):
            return write()

    rows = model.objects.select_for_update()
    with ThreadPoolExecutor() as threads:
        with transaction.atomic():
            rows.get(pk=LOW)
            waiting = threads.submit(other)
            poll(is_waiting, "the other transaction waits")
            rows.get(pk=HIGH)
        assert waiting.result() in (None, frozenset({LOW, HIGH}))


def share() -> object:
    return create_share(user=User.objects.get(), session_id=str(LOW))


def make_key() -> object:
    return create_key(user=User.objects.get(), name="script", scopes=["read"])


def has_counted(other: "Future[str]") -> bool:
    return other.done() or is_waiting()


def test_two_at_once_do_not_pass_a_limit(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second counts when the first is committed."""
    monkeypatch.setattr(sharing, "SHARES_MAX", 1)
    monkeypatch.setattr(accounts, "KEYS_MAX", 1)
    ChatSession.objects.update(active_leaf=Message.objects.filter(session=LOW).last())

    def other(make: Callable[[], object]) -> str:
        with connected(url):
            try:
                make()
            except AgentSiteError as exc:
                return exc.code
            return "made"

    with ThreadPoolExecutor() as threads:
        for make in (share, make_key):
            with transaction.atomic():
                make()
                second = threads.submit(other, make)
                poll(partial(has_counted, second), "the other has counted, or waits")
            assert second.result() == ErrorCode.FORBIDDEN, make
