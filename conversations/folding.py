"""Dropping the streamed text of ended runs: the message has it, and the sketch its timing."""

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Length, Now

from conversations.models import Run, RunEvent
from conversations.sketch import draw_sketch

FOLD_ROWS = 500
"""Events that one transaction deletes at most, of all its runs together."""

FOLD_RUNS = 20


@transaction.atomic
def fold_events(age: timedelta) -> int:
    """Drop some streamed text of runs that ended longer than `age` ago; of how many runs.

    Other events stay. 0 when nothing is left to do, or others are at it. The transaction deletes
    `FOLD_ROWS` events at most, and reads no more than that beside one run's own.
    """
    room, folded = FOLD_ROWS, 0
    for run in _take_runs(age):
        room -= _fold(run, room)
        folded += 1
        if room <= 0:
            break
    return folded


def _take_runs(age: timedelta) -> QuerySet[Run]:
    """Lock runs that nobody else folds; on SQLite the transaction alone keeps others out.

    Their sessions too, as whoever deletes one does: a wait for its events could be a deadlock.
    """
    ended = Run.objects.filter(folded=False, ended_at__lt=Now() - age).order_by("ended_at")
    taken = ended.select_related("session").only("created_at", "epoch", "sketch", "session__id")
    return taken.select_for_update(skip_locked=True, no_key=True, of=("self", "session"))[
        :FOLD_RUNS
    ]


def _fold(run: Run, room: int) -> int:
    """Draw the sketch before the first event goes, and delete up to `room` events.

    Returns what that took of the transaction's room: the events that it has read or deleted.
    """
    read = _draw(run) if run.sketch is None else 0
    if read > room:
        # Its events go in the next transactions.
        return read
    seqs = list(_streamed(run).values_list("epoch", "seq")[:room])
    for epoch in {epoch for epoch, _ in seqs}:
        RunEvent.objects.filter(
            run_id=run.pk, epoch=epoch, seq__in=[seq for e, seq in seqs if e == epoch]
        ).delete()
    if len(seqs) < room:
        Run.objects.filter(pk=run.pk).update(folded=True)
    return max(read, len(seqs))


def _streamed(run: Run) -> QuerySet[RunEvent]:
    return RunEvent.objects.filter(run_id=run.pk, kind__in=("token", "reasoning.delta"))


def _draw(run: Run) -> int:
    """Keep when the text came; how many events that has read, whose text stays in the database."""
    tokens = RunEvent.objects.filter(run_id=run.pk, epoch=run.epoch, kind="token").order_by("seq")
    size: Any = Length(KeyTextTransform("delta", "payload"))
    times = list(tokens.annotate(size=size).values_list("created_at", "size"))
    Run.objects.filter(pk=run.pk).update(sketch=draw_sketch(run.created_at, times))
    return len(times)
