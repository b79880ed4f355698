"""The full-text index over titles and messages, which the database keeps by triggers.

`SearchEntry` has a row for each title and for each message with text; on it stands an FTS5 table on
SQLite, and on Postgres a column with a GIN index. Streaming writes nothing here: a reply's text
reaches its message once, at its end. Inside the index each entry is also marked with its owner, so
that a word that everybody uses costs one person's search nothing.
"""

import atexit
import logging
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.db import Error, connections, transaction

logger = logging.getLogger(__name__)

SQL_DIR = Path(__file__).parent / "sql"
_NAME = re.compile(r"^CREATE (?:VIRTUAL TABLE|VIEW|TRIGGER) (\w+)", re.MULTILINE)

_lifted: dict[str, list[str]] = {}
"""By database alias, the statements that make what `lift` has taken away."""


def install(sender: AppConfig, using: str, **kwargs: Any) -> None:
    """Make what is missing or has changed; a receiver of `post_migrate`."""
    connection = connections[using]
    if "conversations_searchentry" not in connection.introspection.table_names():
        return
    with transaction.atomic(using), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            _install_in_postgres(cursor)
        else:
            _install_in_sqlite(cursor)
    _lifted.pop(using, None)


def lift(sender: AppConfig, using: str, plan: list[Any], **kwargs: Any) -> None:
    """Take the triggers away before a migration; a receiver of `pre_migrate`.

    To change a table SQLite makes it anew, which drops its triggers, and fails where those of
    another table name it. A migration that fails tells nobody: what was taken away is put back
    when the process ends, and what was written meanwhile is indexed by the next migration.
    """
    connection = connections[using]
    if not plan or connection.vendor != "sqlite":
        return
    with transaction.atomic(using), connection.cursor() as cursor:
        cursor.execute(
            "SELECT name, type, sql FROM sqlite_master WHERE type IN ('trigger', 'view')"
            " AND name LIKE 'conversations_search%' ORDER BY type DESC"
        )
        present = cursor.fetchall()
        for name, kind, _ in present:
            cursor.execute(f"DROP {kind} {name}")
    _lifted[using] = [sql for *_, sql in present]
    atexit.register(put_back, using)


def put_back(using: str) -> None:
    """Make again what `lift` has taken away, as it was, unless `install` has come after it."""
    if not (statements := _lifted.pop(using, [])):
        return
    try:
        with transaction.atomic(using), connections[using].cursor() as cursor:
            for sql in statements:
                cursor.execute(sql)
    except Error as exc:
        # The next migration makes them.
        logger.error("the triggers of the search index are missing: %s", type(exc).__name__)


def _install_in_sqlite(cursor: Any) -> None:
    """Repairs the index too when anything was missing: writes were not followed since."""
    cursor.execute("SELECT name FROM sqlite_master WHERE name LIKE 'conversations_search%'")
    present = {name for (name,) in cursor.fetchall()}
    statements = [
        (match[0].startswith("CREATE TRIGGER"), sql)
        for sql in _read_statements("search_sqlite.sql")
        if (match := _NAME.search(sql)) and match[1] not in present
    ]
    repair = _read_statements("search_sqlite_repair.sql") if statements else []
    tables = [sql for is_trigger, sql in statements if not is_trigger]
    triggers = [sql for is_trigger, sql in statements if is_trigger]
    for sql in (*tables, *repair, *triggers):
        cursor.execute(sql)


def _read_statements(name: str) -> list[str]:
    """A file's statements, which blank lines part."""
    return (SQL_DIR / name).read_text().split("\n\n")


def _install_in_postgres(cursor: Any) -> None:
    """The functions and triggers are made again whenever their text has changed."""
    cursor.execute("SELECT to_regclass('conversations_search_document') IS NULL")
    (is_new,) = cursor.fetchone()
    if is_new:
        cursor.execute((SQL_DIR / "search_postgres.sql").read_text())
    triggers = (SQL_DIR / "search_postgres_triggers.sql").read_text()
    version = sha256(triggers.encode()).hexdigest()
    cursor.execute("SELECT obj_description(to_regproc('conversations_search_message'), 'pg_proc')")
    if cursor.fetchone()[0] != version:
        cursor.execute(triggers)
        cursor.execute(f"COMMENT ON FUNCTION conversations_search_message IS '{version}'")
    if is_new:
        cursor.execute((SQL_DIR / "search_postgres_fill.sql").read_text())
