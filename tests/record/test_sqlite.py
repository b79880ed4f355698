"""Threads of one process take turns at writing to SQLite, and none of them waits in SQLite."""

import asyncio
import gc
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import DatabaseError, OperationalError, connection, connections, transaction

from conversations import apps
from conversations.models import ChatSession
from conversations.sqlite import base as sqlite
from conversations.sqlite.base import WriteLock, may_write, prefer_this_thread
from realtime import dbpool
from tests.support.inprocess import make_user
from tests.support.machine import scaled
from tests.support.threads import in_thread
from tests.support.waiting import poll

pytestmark = pytest.mark.skipif(connection.vendor != "sqlite", reason="for SQLite")


def has_in_line(lock: WriteLock, count: int) -> bool:
    """Whether so many wait for it."""
    return len(lock._others) + len(lock._preferred) == count


def own_lock() -> WriteLock:
    connection.ensure_connection()
    lock: WriteLock = connection._lock  # type: ignore[attr-defined]
    return lock


@pytest.fixture
def threads() -> Iterator[Callable[..., Any]]:
    """Runs functions in threads whose connections are closed after each."""

    def closing(work: Callable[..., Any], *args: Any) -> Any:
        try:
            return work(*args)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        yield lambda work, *args: pool.submit(closing, work, *args)


def test_in_the_order_of_arrival_but_for_the_preferred_thread(threads: Any) -> None:
    lock = WriteLock()
    order: list[str] = []

    def write(name: str) -> None:
        if name == "preferred":
            prefer_this_thread()
        assert lock.acquire(scaled(60), lock)
        order.append(name)
        lock.release()

    assert lock.acquire(scaled(60), lock)
    done = []
    for count, name in enumerate(("first", "second", "preferred"), 1):
        done.append(threads(write, name))
        poll(partial(has_in_line, lock, count), "the next in line")
    lock.release()
    for future in done:
        future.result(scaled(60))
    assert order == ["preferred", "first", "second"]
    assert lock.acquire(0, lock)


def test_who_gives_up_leaves_the_line() -> None:
    lock = WriteLock()
    assert lock.acquire(0, lock)
    assert not lock.acquire(0.01, lock)
    lock.release()
    assert lock.acquire(0, lock)


@pytest.mark.parametrize(
    ("sql", "writes"),
    [
        ("SELECT 1", False),
        (" select replace(text, 'a', 'b')", False),
        ("WITH RECURSIVE path AS (SELECT updated_at FROM a) SELECT * FROM path", False),
        ("WITH batch AS (VALUES (1)) UPDATE a SET b = 1", True),
        ("PRAGMA foreign_keys", False),
        ("BEGIN IMMEDIATE", True),
        ("INSERT INTO a VALUES (1)", True),
        ("VACUUM", True),
        ("ROLLBACK TO SAVEPOINT a", False),
    ],
)
def test_what_takes_the_lock(sql: str, writes: bool) -> None:
    assert may_write(sql) is writes


@pytest.mark.django_db(transaction=True)
def test_no_thread_ever_waits_in_sqlite(threads: Any) -> None:
    """Here SQLite refuses at once whoever comes while another connection writes."""
    user = make_user("ada")
    sessions = [ChatSession.objects.create(owner=user) for _ in range(4)]
    start = threading.Barrier(4)

    def write(number: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout = 0")
        start.wait(scaled(60))
        for turn in range(25):
            # Alone, with RETURNING, in a transaction, and in one that is rolled back.
            ChatSession.objects.filter(pk=sessions[number].pk).update(title=str(turn))
            get_user_model()._default_manager.create(username=f"user {number} {turn}")
            with transaction.atomic():
                ChatSession.objects.filter(pk=sessions[number].pk).update(title="x")
                ChatSession.objects.create(owner=user)
            with transaction.atomic():
                ChatSession.objects.create(owner=user)
                transaction.set_rollback(True)

    for done in [threads(write, number) for number in range(4)]:
        done.result(scaled(120))
    assert ChatSession.objects.count() == 4 + 4 * 25
    assert get_user_model()._default_manager.count() == 1 + 4 * 25
    assert own_lock().acquire(0, connection)
    own_lock().release()


def fail(kind: str) -> None:
    """A write transaction that ends in an uncommon way."""
    if kind == "exception":
        with transaction.atomic():
            make_user("ada")
            raise ValueError
    elif kind == "statement":
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO nowhere VALUES (1)")
    elif kind == "closed":
        with transaction.atomic():
            make_user("ada")
            connection.close()
    elif kind == "autocommit off":
        transaction.set_autocommit(False)
        make_user("ada")
        connection.close()
    elif kind == "by hand":
        with connection.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            cursor.execute("ROLLBACK")
    raise ValueError


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["exception", "statement", "closed", "autocommit off", "by hand"])
def test_the_lock_is_released_however_a_transaction_ends(threads: Any, kind: str) -> None:
    with pytest.raises((ValueError, DatabaseError)):
        threads(fail, kind).result(scaled(60))
    threads(make_user, "bob").result(scaled(60))
    assert list(get_user_model()._default_manager.values_list("username", flat=True)) == ["bob"]


@pytest.mark.django_db(transaction=True)
def test_it_is_held_to_the_end_of_a_transaction(threads: Any) -> None:
    began, go_on = threading.Event(), threading.Event()

    def write_slowly() -> None:
        with transaction.atomic():
            began.set()
            go_on.wait(scaled(60))

    slow = threads(write_slowly)
    assert began.wait(scaled(60))
    quick = threads(make_user, "bob")
    poll(lambda: len(own_lock()._others) == 1, "the second writer")
    # Reading waits for nobody.
    assert not get_user_model()._default_manager.exists()
    go_on.set()
    slow.result(scaled(60))
    quick.result(scaled(60))
    assert get_user_model()._default_manager.exists()


@pytest.mark.django_db(transaction=True)
def test_a_lock_that_is_not_to_be_had_is_a_locked_database(
    threads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.01)
    with transaction.atomic(), pytest.raises(OperationalError, match="database is locked"):
        threads(make_user, "bob").result(scaled(60))


def end_within_a_transaction() -> None:
    """What a thread does that fails where nobody closes its connection."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN IMMEDIATE")
    make_user("ada")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("waits", [False, True])
def test_a_thread_that_ends_in_a_transaction_leaves_the_lock_to_others(
    threads: Any, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    """Also where nothing but the garbage collector would find its connection."""
    monkeypatch.setattr(sqlite, "LOOK_S", 0.01)
    go_on = threading.Event()

    def end() -> None:
        end_within_a_transaction()
        go_on.wait(scaled(60))

    gc.disable()
    try:
        lost = threading.Thread(target=end)
        lost.start()
        poll(lambda: own_lock()._holder is not None, "the transaction")
        if waits:
            next_one = threads(make_user, "bob")
            poll(lambda: has_in_line(own_lock(), 1), "the next in line")
        go_on.set()
        lost.join()
        if not waits:
            next_one = threads(make_user, "bob")
        next_one.result(scaled(60))
    finally:
        gc.enable()
    assert list(get_user_model()._default_manager.values_list("username", flat=True)) == ["bob"]


@pytest.mark.django_db(transaction=True)
def test_between_processes_sqlite_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.01)
    connection.close()
    other = sqlite3.connect(str(connection.settings_dict["NAME"]), isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError, match="database is locked"):
            make_user("bob")
        other.execute("COMMIT")
    finally:
        other.close()
    make_user("bob")
    monkeypatch.undo()
    connection.close()


@pytest.mark.django_db(transaction=True)
async def test_the_writer_of_the_pool_goes_before_sync_views(threads: Any) -> None:
    order: list[str] = []

    def note(name: str) -> None:
        with transaction.atomic():
            order.append(name)

    began, go_on = threading.Event(), threading.Event()

    def write_slowly() -> None:
        with transaction.atomic():
            began.set()
            go_on.wait(scaled(60))

    slow = threads(write_slowly)
    assert await in_thread(began.wait, scaled(60))
    lock = await in_thread(own_lock)
    views = [threads(note, "view") for _ in range(2)]
    await in_thread(poll, lambda: len(lock._others) == 2, "both views")
    tick = asyncio.create_task(dbpool.write_first(note, "tick"))
    await in_thread(poll, lambda: len(lock._preferred) == 1, "the tick")
    go_on.set()
    await tick
    for done in (slow, *views):
        done.result(scaled(60))
    assert order == ["tick", "view", "view"]
    await in_thread(dbpool.shutdown)


def test_the_check_names_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert apps.check_database(None) == []
    monkeypatch.setitem(connection.settings_dict, "ENGINE", "django.db.backends.sqlite3")
    (found,) = apps.check_database(None)
    assert found.id == "conversations.W002"
