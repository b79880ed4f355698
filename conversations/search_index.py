"""The full-text index over titles and messages, which the database keeps by triggers.

`SearchEntry` has a row for each title and for each message with text; on it stands an FTS5 table on
SQLite, and on Postgres a column with a GIN index. Streaming writes nothing here: a reply's text
reaches its message once, at its end. Inside the index each entry is also marked with its owner, so
that a word that everybody uses costs one person's search nothing.
"""

import re
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.db import connections

SQL_DIR = Path(__file__).parent / "sql"
_NAME = re.compile(r"^CREATE (?:VIRTUAL TABLE|VIEW|TRIGGER) (\w+)", re.MULTILINE)
_SQLITE_BACKFILL = """
    INSERT INTO conversations_searchentry (session_id, owner_id, message_id, text)
    SELECT * FROM conversations_search_said WHERE text <> '';

    INSERT INTO conversations_searchentry (session_id, owner_id, text)
    SELECT id, owner_id, title FROM conversations_chatsession WHERE title <> '';
"""


def install(sender: AppConfig, using: str, **kwargs: Any) -> None:
    """Make what is missing; a receiver of `post_migrate`."""
    connection = connections[using]
    if "conversations_searchentry" not in connection.introspection.table_names():
        return
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            _install_in_postgres(cursor)
        else:
            _install_in_sqlite(cursor)


def lift(sender: AppConfig, using: str, plan: list[Any], **kwargs: Any) -> None:
    """Take the triggers away before a migration; a receiver of `pre_migrate`.

    To change a table SQLite makes it anew, which drops its triggers, and fails where those of
    another table name it.
    """
    connection = connections[using]
    if not plan or connection.vendor != "sqlite":
        return
    with connection.cursor() as cursor:
        for name, kind in _list_present(cursor).items():
            if kind in ("trigger", "view"):
                cursor.execute(f"DROP {kind} {name}")


def _install_in_sqlite(cursor: Any) -> None:
    present = _list_present(cursor)
    for name, sql in _sqlite_statements().items():
        if name not in present:
            cursor.execute(sql)
    if "conversations_searchindex" not in present:
        for sql in _SQLITE_BACKFILL.split("\n\n"):
            cursor.execute(sql)


def _list_present(cursor: Any) -> dict[str, str]:
    """What there is of the index: name and kind."""
    cursor.execute("SELECT name, type FROM sqlite_master WHERE name LIKE 'conversations_search%'")
    return dict(cursor.fetchall())


def _sqlite_statements() -> dict[str, str]:
    """By the name of what each makes."""
    statements = (SQL_DIR / "search_sqlite.sql").read_text().split("\n\n")
    return {name[1]: sql for sql in statements if (name := _NAME.search(sql))}


def _install_in_postgres(cursor: Any) -> None:
    cursor.execute("SELECT to_regclass('conversations_search_document') IS NULL")
    if cursor.fetchone()[0]:
        cursor.execute((SQL_DIR / "search_postgres.sql").read_text())
