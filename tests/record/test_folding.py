"""Streamed text of ended runs is dropped in small transactions, each run by one sweeper."""

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django.plugin import DjangoDbBlocker

from conversations.changes import write_events
from conversations.models import Run, RunEvent, RunStatus
from conversations.runs import events as events_module
from conversations.runs.events import FOLD_ROWS, draw_sketch, fold_events
from conversations.runs.lifecycle import Ending, finish_run
from tests.support.chats import ask, begin, make_user
from tests.support.databases import connected, migrated
from tests.support.servers import Postgres

AGE = timedelta(minutes=10)
PATIENCE_S = 60


def make_ended_runs(count: int, tokens: int) -> None:
    """Replies that ended long ago, their text as it came."""
    user = make_user("ann")
    for _ in range(count):
        claimed = begin(ask(user, "question"))
        events = [(seq, "token", {"delta": "né"}) for seq in range(2, tokens + 2)]
        write_events(claimed.run, events)
        Run._default_manager.filter(pk=claimed.run.pk).update(last_seq=tokens + 1)
        ending = Ending(status=RunStatus.COMPLETED, parts=[])
        finish_run(claimed, last_seq=tokens + 1, events=[], ending=ending)
    Run._default_manager.update(ended_at=timezone.now() - 2 * AGE)


def characters(run: Run) -> int:
    """Of all its text, as the sketch has it."""
    assert run.sketch is not None
    return int(run.sketch[-1][1])


def tokens_left() -> int:
    return RunEvent.objects.filter(kind="token").count()


@pytest.mark.django_db
@pytest.mark.parametrize(("runs", "tokens"), [(8, FOLD_ROWS - 1), (40, 30), (1, 3 * FOLD_ROWS)])
def test_a_transaction_deletes_few_rows_in_all(runs: int, tokens: int) -> None:
    make_ended_runs(runs, tokens)
    left = tokens_left()
    while fold_events(AGE):
        before, left = left, tokens_left()
        assert before - left <= FOLD_ROWS
    assert left == 0
    assert {characters(run) for run in Run.objects.filter(folded=True)} == {2 * tokens}
    assert not Run.objects.filter(folded=False).exists()


@pytest.mark.django_db
def test_texts_of_few_runs_are_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def draw(start: datetime, deltas: Iterable[tuple[datetime, int]]) -> list[Any]:
        read.append(len(list(deltas)))
        return []

    monkeypatch.setattr(events_module, "draw_sketch", draw)
    make_ended_runs(8, FOLD_ROWS - 1)
    fold_events(AGE)
    assert sum(read) < 2 * FOLD_ROWS


def test_two_sweepers_never_fold_the_same_run(
    postgres: Postgres, django_db_blocker: DjangoDbBlocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing, go_on = threading.Event(), threading.Event()

    def pause(*args: Any) -> Any:
        drawing.set()
        assert go_on.wait(PATIENCE_S)
        return draw_sketch(*args)

    def fold(url: str) -> int:
        with connected(url):
            return fold_events(AGE)

    with (
        django_db_blocker.unblock(),
        migrated(postgres) as url,
        ThreadPoolExecutor() as threads,
        connected(url),
    ):
        make_ended_runs(2, 3)
        monkeypatch.setattr(events_module, "draw_sketch", pause)
        first = threads.submit(fold, url)
        assert drawing.wait(PATIENCE_S)
        assert threads.submit(fold, url).result(PATIENCE_S) == 0
        go_on.set()
        assert first.result(PATIENCE_S) == 2
        assert [characters(run) for run in Run.objects.all()] == [6, 6]
        assert tokens_left() == 0
