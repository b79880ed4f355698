"""Points the ORM of a test process to other databases, such as Postgres."""

import contextlib
from collections.abc import Iterator
from typing import Any, cast
from weakref import WeakKeyDictionary

import dj_database_url
from asgiref.local import Local
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.utils import load_backend

from tests.support.servers import Postgres

_templates: WeakKeyDictionary[Postgres, str] = WeakKeyDictionary()


def make_tables(url: str) -> None:
    """Migrate the database at `url`."""
    with connected(url):
        call_command("migrate", verbosity=0, interactive=False)


@contextlib.contextmanager
def migrated(postgres: Postgres) -> Iterator[str]:
    """Return the URL of a new database with all tables; the migrations run once for all of them."""
    if postgres not in _templates:
        name = postgres.create_database()
        make_tables(postgres.url(name))
        _templates[postgres] = name
    with postgres.database(_templates[postgres]) as url:
        yield url


@contextlib.contextmanager
def orm_on(url: str) -> Iterator[None]:
    """Send all queries of this thread to the database at `url`, and roll them back at the end."""
    with connected(url), transaction.atomic():
        yield
        transaction.set_rollback(True)


@contextlib.contextmanager
def every_thread_on(parameters: dict[str, Any]) -> Iterator[None]:
    """Point all threads to this database, given as in DATABASES, even those that used another."""
    handler = cast(Any, connections)
    own, made = connections.settings[DEFAULT_DB_ALIAS], handler._connections
    connections.settings[DEFAULT_DB_ALIAS] = connections.configure_settings(
        {DEFAULT_DB_ALIAS: parameters}
    )[DEFAULT_DB_ALIAS]
    handler._connections = Local(connections.thread_critical)
    try:
        yield
    finally:
        mine = cast(Any, connections[DEFAULT_DB_ALIAS])
        mine.close()
        if mine.vendor == "postgresql":
            mine.close_pool()
        connections.settings[DEFAULT_DB_ALIAS] = own
        handler._connections = made


@contextlib.contextmanager
def connected(url: str) -> Iterator[None]:
    """Send all queries of this thread to the database at `url`, where they are committed."""
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
