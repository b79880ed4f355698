"""Migrations beside processes of the version before, forward and back, on both databases."""

import functools
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone
from pytest_django.plugin import DjangoDbBlocker

from conversations.models import Run, UserUsage
from conversations.runs.usage import read_session_totals
from conversations.sessions import search
from tests.support.databases import connected, make_tables, migrated
from tests.support.servers import Postgres

BEFORE = ("conversations", "0014_withdrawn_is_not_searched")
"""The last one of the version before."""

ENDED = {"status": "completed", "usage_source": "measured"}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Path:
    """A migrated SQLite database to copy."""
    path = tmp_path_factory.mktemp("migrated") / "db.sqlite3"
    with django_db_blocker.unblock():
        make_tables(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgres"])
def own_database(
    request: pytest.FixtureRequest, tmp_path: Path, django_db_blocker: DjangoDbBlocker
) -> Iterator[None]:
    """A migrated database of this test alone."""
    with django_db_blocker.unblock():
        if request.param == "sqlite":
            copy = shutil.copy(request.getfixturevalue("file"), tmp_path)
            with connected(f"sqlite:///{copy}"):
                yield
        else:
            postgres: Postgres = request.getfixturevalue("postgres")
            with migrated(postgres) as url, connected(url):
                yield


def migrate(target: tuple[str, str] | None = None) -> None:
    """Migrate to `target`, else to the newest, without what `manage.py migrate` adds after it."""
    executor = MigrationExecutor(connection)
    targets = [target] if target else executor.loader.graph.leaf_nodes("conversations")
    search.drop_triggers(
        apps.get_app_config("conversations"), "default", executor.migration_plan(targets)
    )
    # Else they would be put back at the exit, into another database.
    search._dropped.clear()
    executor.migrate(targets)


@functools.cache
def models_before() -> Any:
    """The models as the version before has them."""
    return MigrationExecutor(connection).loader.project_state([BEFORE]).apps


def add_runs(models: Any, *, numbers: range, **fields: Any) -> Any:
    """A session with a run for each number, written as that version does."""
    user, _ = models.get_model("auth", "User").objects.get_or_create(username="ann")
    session = models.get_model("conversations", "ChatSession").objects.create(owner=user)
    message = models.get_model("conversations", "Message").objects.create
    for number in numbers:
        asked = message(session=session, number=2 * number, role="user", rev=1)
        said = message(session=session, number=2 * number + 1, role="assistant", rev=1)
        models.get_model("conversations", "Run").objects.create(
            session=session, owner=user, number=number, prompt=asked, reply=said, **fields
        )
    return session


def test_the_version_before_goes_on_beside_it(own_database: None) -> None:
    """As in an upgrade: the database is migrated first, then one process after the other."""
    add_runs(models_before(), numbers=range(1, 3))
    assert list(Run.objects.values_list("context_model", flat=True)) == ["", ""]


def test_the_version_before_takes_a_guest_into_an_account(own_database: None) -> None:
    """It moves the guest's sessions, and deletes the guest, of whose tokens it does not know."""
    migrate(BEFORE)
    fields = {**ENDED, "input_tokens": 5, "output_tokens": 1, "ended_at": timezone.now()}
    add_runs(models_before(), numbers=range(1, 3), **fields)
    migrate()
    users = models_before().get_model("auth", "User").objects
    taker = users.create(username="ben")
    for name in ("ChatSession", "Run"):
        moved = models_before().get_model("conversations", name).objects
        moved.update(owner_id=taker.pk)
    users.filter(username="ann").delete()
    assert UserUsage.objects.count() == 1


def test_what_is_there_is_counted(own_database: None) -> None:
    migrate(BEFORE)
    spent = {"input_tokens": 100, "output_tokens": 11, "cost": "0.000017"}
    fields = {**ENDED, **spent, "ended_at": timezone.now()}
    session = add_runs(models_before(), numbers=range(1, 4), **fields)
    add_runs(models_before(), numbers=range(1, 2), status="queued")
    old = add_runs(models_before(), numbers=range(1, 2), **fields)
    models_before().get_model("conversations", "Run").objects.filter(session_id=old.pk).update(
        created_at=timezone.now() - timedelta(days=3)
    )
    migrate()
    found = read_session_totals(session.pk)
    assert (found.runs, found.input_tokens, found.output_tokens) == (3, 300, 33)
    assert str(found.cost) == "0.000051"
    assert sum(UserUsage.objects.values_list("tokens", flat=True)) == 333


def test_back_and_forth(own_database: None) -> None:
    fields = {**ENDED, "input_tokens": 5, "output_tokens": 1, "ended_at": timezone.now()}
    migrate(BEFORE)
    session = add_runs(models_before(), numbers=range(1, 3), **fields)
    for _ in range(2):
        migrate()
        migrate(BEFORE)
    migrate()
    assert read_session_totals(session.pk).runs == 2
