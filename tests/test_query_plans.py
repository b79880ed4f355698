"""What is asked again and again takes an index, however many runs there have been."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection

from conversations import lifecycle, queries
from conversations.changes import ChangeBuilder
from conversations.models import ChatSession
from tests.support.inprocess import make_user

HOUR = timedelta(hours=1)
NOBODY = UUID(int=0)


def plans_of(read: Callable[[], object]) -> list[str]:
    """How SQLite does what `read` asks for, with its parameters bound as they are."""
    asked: list[tuple[str, Any]] = []

    def listen(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        asked.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(listen):
        read()
    with connection.cursor() as cursor:
        rows = [
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}", params).fetchall()
            for sql, params in asked
            if sql.startswith("SELECT")
        ]
    return [row[3] for plan in rows for row in plan]


@pytest.mark.parametrize(
    "read",
    [
        queries.list_orphans,
        lambda: queries.list_forgotten(HOUR),
        lambda: queries.list_forgotten(HOUR, frozenset({"", "tour"})),
        lambda: queries.list_unwatched(HOUR),
        lambda: queries.get_active_run(NOBODY),
        lambda: queries.list_queue(NOBODY),
        lambda: lifecycle.fold_events(HOUR),
        lambda: ChangeBuilder(ChatSession(owner=make_user("ada"))),
        lambda: list(queries.list_sessions(make_user("ada"))),
    ],
)
def test_no_scan_of_all_runs(db: None, read: Callable[[], object]) -> None:
    plans = plans_of(read)
    assert plans
    assert [plan for plan in plans if plan.startswith("SCAN")] == []
    assert [plan for plan in plans if plan.endswith("(session_id=?)")] == []
