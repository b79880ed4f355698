"""What a reader has missed, and where everything is that readers follow."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from conversations.models import ChatSession, Message, Run
from conversations.queries import (
    EventRow,
    get_run,
    in_chunks,
    list_unfinished,
    read_events,
    reply_run,
)
from conversations.shapes import MessageView, QueueView, message_view, queue_view
from conversations.snapshots import read_snapshot


@dataclass(frozen=True)
class CatchUp:
    """What a reader of a run has missed.

    `events` follow the reader's cursor without a gap; where that cannot be, `parts` is all that
    was shown up to `seq`, and `events` go on from there.
    """

    run: Run
    events: list[EventRow]
    parts: list[dict[str, Any]] | None = None
    seq: int = 0


def read_catch_up(run_id: UUID, *, epoch: int, seq: int, limit: int) -> CatchUp:
    """What came after (`epoch`, `seq`), from the run's row first and its events after that.

    The end of an ended run is always among it: whoever asks is owed it.
    """
    run = get_run(run_id)
    newest = run.last_seq - 1 if run.is_ended else run.last_seq
    after = min(seq, newest) if epoch == run.epoch else 0
    missed = run.last_seq - after
    if missed <= limit:
        events = read_events(run, after=after)
        if len(events) == missed:
            return CatchUp(run, events)
    if not run.is_ended:
        shown = read_snapshot(run)
        return CatchUp(shown.run, [], shown.parts, shown.run.last_seq)
    last = read_events(run, after=run.last_seq - 1)
    return CatchUp(run, last, run.reply.parts, run.last_seq - 1)


@dataclass(frozen=True)
class SessionState:
    """What a reader of a session has missed.

    `messages` changed after the reader's revision, oldest first; None when there are too many.
    `active` is (id, number) of the active run, `numbers` those of the runs asked for that exist.
    `html` is that of replies among `messages`, by message id, where it was read too.
    """

    rev: int
    run_count: int
    messages: list[MessageView] | None
    queue: list[QueueView]
    active: tuple[UUID, int] | None
    numbers: dict[UUID, int]
    html: Mapping[str, str] = field(default_factory=dict)


def read_session_state(
    session_id: UUID, *, rev: int | None, runs: Iterable[UUID], limit: int, max_chars: int
) -> SessionState:
    """What came after `rev` (nothing, when that is None), the revision being read first.

    `messages` are at most `limit` with at most `max_chars` of text.
    """
    session = ChatSession.objects.only("rev", "run_count").get(pk=session_id)
    unfinished = list_unfinished(session_id)
    return SessionState(
        rev=session.rev,
        run_count=session.run_count,
        messages=[] if rev is None else _list_changes(session_id, rev, limit, max_chars),
        queue=[queue_view(run) for run in unfinished[1:]],
        active=(unfinished[0].pk, unfinished[0].number) if unfinished else None,
        numbers=dict(
            Run.objects.filter(session_id=session_id, pk__in=list(runs)).values_list("pk", "number")
        ),
    )


def _list_changes(
    session_id: UUID, rev: int, limit: int, max_chars: int
) -> list[MessageView] | None:
    changed = Message.objects.filter(session_id=session_id, rev__gt=rev)
    rows = list(changed.select_related("run", "summary").order_by("rev", "number")[: limit + 1])
    if len(rows) > limit or sum(len(row.text) for row in rows) > max_chars:
        return None
    return [message_view(row, run=reply_run(row)) for row in rows]


@dataclass(frozen=True)
class Heads:
    """Where everything is that the viewers of a process follow."""

    revs: dict[UUID, int]
    runs: dict[UUID, tuple[int, int]]


def read_heads(sessions: Iterable[UUID], runs: Iterable[UUID]) -> Heads:
    """The rev of each session, and (epoch, last_seq) of each run."""
    heads = Heads(revs={}, runs={})
    for ids in in_chunks(sessions):
        kept = ChatSession.objects.filter(pk__in=ids, deleted_at=None)
        heads.revs.update(kept.values_list("pk", "rev"))
    for ids in in_chunks(runs):
        states = Run.objects.filter(pk__in=ids).values_list("pk", "epoch", "last_seq")
        heads.runs.update((pk, (epoch, seq)) for pk, epoch, seq in states)
    return heads
