"""The ORM of a test process on Postgres instead of SQLite."""

import contextlib
from collections.abc import Iterator
from typing import Any

import dj_database_url
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.utils import load_backend


def make_tables(url: str) -> None:
    """Migrate the database at `url`."""
    with _connected(url):
        call_command("migrate", verbosity=0, interactive=False)


@contextlib.contextmanager
def orm_on(url: str) -> Iterator[None]:
    """All queries of this thread go to the database at `url`, which keeps nothing of it."""
    with _connected(url), transaction.atomic():
        yield
        transaction.set_rollback(True)


@contextlib.contextmanager
def _connected(url: str) -> Iterator[None]:
    own = connections[DEFAULT_DB_ALIAS]
    connections[DEFAULT_DB_ALIAS] = other = _connect(url)
    try:
        yield
    finally:
        other.close()
        connections[DEFAULT_DB_ALIAS] = own


def _connect(url: str) -> Any:
    parts = connections.configure_settings({DEFAULT_DB_ALIAS: dj_database_url.parse(url)})
    parameters = parts[DEFAULT_DB_ALIAS]
    return load_backend(parameters["ENGINE"]).DatabaseWrapper(parameters, DEFAULT_DB_ALIAS)
