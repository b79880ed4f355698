"""How SQLite means to answer what lists ask: by an index, without sorting all there is.

Its planner goes by rules where there are no statistics, so that an empty database tells.
"""

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.db.models import Q
from django.test import Client
from django.test.utils import CaptureQueriesContext

from conversations.models import ChatSession, Run
from conversations.queries import list_sessions
from conversations.sessions.search import containing
from tests.support.chats import make_user, talk

pytestmark = [pytest.mark.django_db, pytest.mark.in_process("plans of SQLite")]


@pytest.mark.parametrize(
    ("rows", "index"),
    [
        (ChatSession.objects.order_by("-active_at", "-id"), "by_activity"),
        (Run.objects.order_by("-created_at", "-id"), "runs_by_time"),
    ],
)
def test_lists_read_along_an_index(rows: Any, index: str) -> None:
    plan = rows[:50].explain()
    assert index in plan
    assert "TEMP B-TREE" not in plan


def test_a_users_list_reads_along_an_index() -> None:
    assert "by_owner" in list_sessions(get_user_model()(pk=1)).explain()


@pytest.mark.parametrize(
    "condition",
    [Q(model="x", output_tokens__gte=5), Q(cost__gte=1), Q(error_code="provider_cut")],
)
def test_conditions_are_looked_up_in_an_index_alone(condition: Q) -> None:
    rows = Run.objects.filter(condition).order_by().values_list("session_id")
    assert "COVERING INDEX runs_by_time" in rows[:500].explain()


def test_words_are_looked_up_in_the_full_text_index() -> None:
    plan = containing(ChatSession.objects.all(), "word", owner=None).explain()
    assert "conversations_searchindex VIRTUAL TABLE INDEX" in plan
    assert "SCAN conversations_searchentry" not in plan


def test_no_list_counts_or_skips_rows(client: Client) -> None:
    talk(make_user("ann"), ("one", "1"))
    client.force_login(make_user("root", is_staff=True, is_superuser=True))
    for name in ("chatsession", "run", "auditentry"):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            client.get(f"/admin/conversations/{name}/")
        for query in queries.captured_queries:
            assert "COUNT(*)" not in query["sql"]
            assert "OFFSET" not in query["sql"]
