"""Snapshots of runs in progress, and what a reader has missed of a run or session.

Each process reads and builds each event into a snapshot once, for the first reader that needs it;
every other reader of a long reply only costs a copy of its parts.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import connection

from conversations.changes import Change, RunAdvanced
from conversations.models import ChatSession, Run, RunEvent
from conversations.queries import (
    EventRow,
    find,
    get_run,
    in_chunks,
    list_changed,
    list_unfinished,
    read_events,
    reply_run,
)
from conversations.sessions.parts import Part, PartsFolder, fold
from conversations.shapes import MessageView, QueueView, message_view, queue_view

MAX_RUNS = 256
MAX_CHARS = 16_000_000
"""Characters in all snapshots together; above either limit the least recently read are dropped."""

IDLE_S = 60
"""Seconds for which an unread snapshot is kept: its run may have ended in another process."""


@dataclass(frozen=True)
class Snapshot:
    """The parts of a run's reply at `run.last_seq`; they are copies, for this reader alone.

    `run` is the row that the reader passed, or a later one, with more events or of a later epoch.
    It is shared between threads: do not modify it.
    """

    run: Run
    parts: list[Part]


@dataclass(eq=False)
class _Entry:
    """The snapshot of one run in one epoch; hold `lock` to call `fold` or `copy_parts`."""

    run: Run
    epoch: int
    seq: int = 0
    size: int = 0
    used_at: float = 0.0
    folder: PartsFolder = field(default_factory=PartsFolder)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fold(self, events: list[EventRow], seq: int) -> None:
        """Apply the committed events that follow `self.seq`, up to `seq`."""
        try:
            for _, kind, payload in events:
                self.folder.apply(kind, payload)
                self.size += _size_of(payload)
            self.seq = seq
        except BaseException:
            # Some events may have been applied: start over, so that the next reader, who waits
            # for the lock, does not apply them twice.
            self.folder, self.seq, self.size = PartsFolder(), 0, 0
            raise

    def copy_parts(self) -> list[Part]:
        """Copy the parts, which later events change in place."""
        return [dict(part) for part in self.folder.parts]


class Snapshots:
    """The snapshots of one process; safe for threads.

    Each read drops those that were not read for `IDLE_S` and, above `max_runs` runs or `max_chars`
    characters together, those that were read least recently.
    """

    def __init__(self, max_runs: int = MAX_RUNS, max_chars: int = MAX_CHARS) -> None:
        self._max_runs = max_runs
        self._max_chars = max_chars
        self._lock = threading.Lock()
        self._entries: OrderedDict[UUID, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, run: Run) -> Snapshot:
        """Return the snapshot of a run that has not ended; `run` is its row as just read.

        If another thread has read a later row of this epoch, or the run has gone on behind a
        checkpoint in a later epoch, the snapshot is of that row. Inside a transaction the snapshot
        is built anew and not kept, because `run` may be rolled back.
        """
        entry = None if connection.in_atomic_block else self._take(run)
        if entry is None:
            return self._build(run)
        with entry.lock:
            missing = run.last_seq - entry.seq
            events = read_events(run, after=entry.seq) if missing > 0 else []
            moved = _find_later_epoch(run) if len(events) < missing else None
            if moved is None and missing > 0:
                entry.fold(events, run.last_seq)
            # A reader with an older row gets the newer snapshot of another reader.
            if run.last_seq >= entry.seq:
                entry.run = run
            snapshot = Snapshot(entry.run, entry.copy_parts())
        self._trim()
        return snapshot if moved is None else self.read(moved)

    def _build(self, run: Run) -> Snapshot:
        events = read_events(run)
        if len(events) < run.last_seq and (moved := _find_later_epoch(run)) is not None:
            return self.read(moved)
        return Snapshot(run, fold((kind, payload) for _, kind, payload in events).parts)

    def drop(self, run_id: UUID) -> None:
        """Forget the snapshot of a run, if there is one; call it when the run has ended."""
        with self._lock:
            self._entries.pop(run_id, None)

    def _take(self, run: Run) -> _Entry | None:
        """Return the run's entry, marked as just read; None if `run` is of an earlier epoch."""
        with self._lock:
            entry = self._entries.get(run.pk)
            if entry is not None and entry.epoch > run.epoch:
                return None
            if entry is None or entry.epoch < run.epoch:
                entry = self._entries[run.pk] = _Entry(run, run.epoch)
            entry.used_at = time.monotonic()
            self._entries.move_to_end(run.pk)
            return entry

    def _trim(self) -> None:
        """Drop idle entries, and the least recently read ones above the limits."""
        with self._lock:
            size = sum(entry.size for entry in self._entries.values())
            idle = time.monotonic() - IDLE_S
            while self._entries:
                oldest = next(iter(self._entries.values()))
                fits = len(self._entries) <= self._max_runs and size <= self._max_chars
                if fits and oldest.used_at > idle:
                    return
                self._entries.popitem(last=False)
                size -= oldest.size


def _find_later_epoch(run: Run) -> Run | None:
    """Return the run as it is now if it is in a later epoch, which has taken over its events."""
    now = Run.objects.select_related("reply").filter(pk=run.pk, epoch__gt=run.epoch)
    return now.first()


def _size_of(payload: dict[str, Any]) -> int:
    return sum(len(value) for value in payload.values() if isinstance(value, str))


_snapshots = Snapshots()


def read_snapshot(run: Run) -> Snapshot:
    """Return what `Snapshots.read` does for the row `run` of a run that has not ended.

    All readers of this process share the snapshots, so that each event is read once.
    """
    return _snapshots.read(run)


def on_change(change: Change) -> None:
    """Drop snapshots of runs that this process has ended; a handler for `changes.register`."""
    for event in change.events:
        if isinstance(event, RunAdvanced) and event.run.is_ended:
            _snapshots.drop(event.run.pk)


@dataclass(frozen=True)
class CatchUp:
    """What a reader of a run has missed.

    With `parts` None, `events` follow the reader's cursor without a gap, or are all of the present
    epoch if the cursor is in another one; `seq` has no meaning. If there are too many events or
    some are gone, or the run has gone on behind a checkpoint since the reader's epoch, `parts` is
    the whole reply up to `seq`, and `events` follow `seq`. Either way the last event of an ended
    run is among `events`, even if the reader has it.
    """

    run: Run
    events: list[EventRow]
    parts: list[dict[str, Any]] | None = None
    seq: int = 0


def read_catch_up(run_id: UUID, *, epoch: int, seq: int, limit: int) -> CatchUp:
    """Return what came after (`epoch`, `seq`): at most `limit` events, or the whole reply.

    The last event of an ended run is always included, even if it is not after `seq`, since readers
    wait for it. Raises `Run.DoesNotExist`. The caller must have authorised access to the run.
    """
    # The row first: what is committed after this read is beyond `last_seq` and not returned.
    run = get_run(run_id)
    newest = run.last_seq - 1 if run.is_ended else run.last_seq
    after = min(seq, newest) if epoch == run.epoch else 0
    missed = run.last_seq - after
    if missed <= limit and not _is_rewritten(run, epoch):
        events = read_events(run, after=after)
        if len(events) == missed:
            return CatchUp(run, events)
    if not run.is_ended:
        shown = read_snapshot(run)
        return CatchUp(shown.run, [], shown.parts, shown.run.last_seq)
    last = read_events(run, after=run.last_seq - 1)
    return CatchUp(run, last, run.reply.parts, run.last_seq - 1)


def _is_rewritten(run: Run, epoch: int) -> bool:
    """Return whether `run` has gone on behind a checkpoint since `epoch`, and not started anew.

    Its first event has then moved into a later epoch.
    """
    if not 0 < epoch < run.epoch:
        return False
    return not RunEvent.objects.filter(run_id=run.pk, epoch=epoch, seq=1).exists()


@dataclass(frozen=True)
class SessionState:
    """What a reader of a session has missed.

    `messages` changed after the reader's revision, oldest change first, [] if the reader has none;
    None if they are too many or too long to send. `queue` has the runs behind the first unfinished
    one, and `active` is (id, number) of that one; None without one. `numbers` has the numbers of
    those requested runs that exist in the session. `html` has the HTML of replies among `messages`
    by message id; empty if it was not read.
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
    """Return a session's state now, with the messages that changed after `rev`.

    `messages` is [] if `rev` is None, and None if there are more than `limit` of them or more than
    `max_chars` characters of text in them. They have their stored parts: those of a reply in
    progress come with its run, by `read_catch_up`. `html` is left empty. `numbers`
    has the place in the session (`Run.number`) of those of `runs`, which are ids, that belong to
    the session. Raises `ChatSession.DoesNotExist`. The caller must have
    authorised access to the session, which may be deleted.
    """
    # The revision first: what changes after this read is sent again for the next cursor.
    session = find(ChatSession, id=session_id)
    if session is None:
        raise ChatSession.DoesNotExist
    unfinished = list_unfinished(session_id)
    return SessionState(
        rev=session.rev,
        run_count=session.run_count,
        messages=[] if rev is None else _list_changes(session_id, rev, limit, max_chars),
        queue=[queue_view(run) for run in unfinished[1:]],
        active=(unfinished[0].pk, unfinished[0].number) if unfinished else None,
        numbers=_read_numbers(session_id, list(runs)),
    )


def _list_changes(
    session_id: UUID, rev: int, limit: int, max_chars: int
) -> list[MessageView] | None:
    rows = list_changed(session_id, rev=rev, limit=limit + 1)
    if len(rows) > limit or sum(len(row.text) for row in rows) > max_chars:
        return None
    return [message_view(row, run=reply_run(row)) for row in rows]


def _read_numbers(session_id: UUID, runs: list[UUID]) -> dict[UUID, int]:
    if not runs:
        return {}
    named = Run.objects.filter(session_id=session_id, pk__in=runs)
    return dict(named.values_list("pk", "number"))


@dataclass(frozen=True)
class Heads:
    """The newest `rev` of each session, and the newest (epoch, seq) of each run, by id."""

    revs: dict[UUID, int]
    runs: dict[UUID, tuple[int, int]]


def read_heads(sessions: Iterable[UUID], runs: Iterable[UUID]) -> Heads:
    """Return the heads of these sessions and runs.

    Deleted sessions, and ids that do not exist, are left out.
    """
    heads = Heads(revs={}, runs={})
    for ids in in_chunks(sessions):
        kept = ChatSession.objects.filter(pk__in=ids, deleted_at=None)
        heads.revs.update(kept.values_list("pk", "rev"))
    for ids in in_chunks(runs):
        states = Run.objects.filter(pk__in=ids).values_list("pk", "epoch", "last_seq")
        heads.runs.update((pk, (epoch, seq)) for pk, epoch, seq in states)
    return heads
