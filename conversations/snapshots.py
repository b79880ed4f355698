"""What is shown of runs in progress: one folded copy a run, shared by all readers of a process.

A reader that catches up in the middle of a long reply costs a copy of its parts, not a fold of
its whole journal: each event is read and folded once a process, by the first reader that needs it.
"""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import connection

from conversations.models import Run
from conversations.notify import Change, RunAdvanced
from conversations.parts import Part, PartsFolder
from conversations.queries import EventRow, read_events, read_parts

MAX_RUNS = 256
MAX_CHARS = 16_000_000
"""Of all that is held; beyond it, what was not read for the longest time is dropped."""

IDLE_S = 60
"""How long a copy is held that nobody reads: the run may have ended in another process."""


@dataclass(frozen=True)
class Snapshot:
    """The parts of a run's reply at `run.last_seq`.

    `run` is the row that the reader gave or, with more events, one that another reader has read
    later; it is shared, so that nobody may change it.
    """

    run: Run
    parts: list[Part]


@dataclass(eq=False)
class _Entry:
    """One run in one epoch; whoever holds `lock` may fold."""

    run: Run
    epoch: int
    seq: int = 0
    size: int = 0
    used_at: float = 0.0
    folder: PartsFolder = field(default_factory=PartsFolder)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fold(self, events: list[EventRow], seq: int) -> None:
        """Take in the committed events after the last one, up to `seq`."""
        try:
            for _, kind, payload in events:
                self.folder.apply(kind, payload)
                self.size += _size_of(payload)
            self.seq = seq
        except BaseException:
            # Others wait for this entry: they begin anew instead of folding some events twice.
            self.folder, self.seq, self.size = PartsFolder(), 0, 0
            raise

    def copy_parts(self) -> list[Part]:
        """As they are now; the folder goes on to change its own."""
        return [dict(part) for part in self.folder.parts]


class Snapshots:
    """The folded runs of one process, safe for threads."""

    def __init__(self, max_runs: int = MAX_RUNS, max_chars: int = MAX_CHARS) -> None:
        self._max_runs = max_runs
        self._max_chars = max_chars
        self._lock = threading.Lock()
        self._entries: OrderedDict[UUID, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, run: Run) -> Snapshot:
        """What has been shown of a run that has not ended, `run` being its row as committed.

        In a transaction, where a row may hold what will be rolled back, nothing is shared.
        """
        entry = None if connection.in_atomic_block else self._take(run)
        if entry is None:
            return Snapshot(run, read_parts(run).parts)
        with entry.lock:
            if run.last_seq > entry.seq:
                entry.fold(read_events(run, after=entry.seq), run.last_seq)
            if run.last_seq >= entry.seq:
                entry.run = run
            snapshot = Snapshot(entry.run, entry.copy_parts())
        self._trim()
        return snapshot

    def drop(self, run_id: UUID) -> None:
        """Nobody will read this run's journal any more."""
        with self._lock:
            self._entries.pop(run_id, None)

    def _take(self, run: Run) -> _Entry | None:
        """The run's entry, as the last one used; None for a row of an epoch that is over."""
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
        """Drop what is idle, and the least recently used beyond the bounds."""
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


def _size_of(payload: dict[str, Any]) -> int:
    return sum(len(value) for value in payload.values() if isinstance(value, str))


_snapshots = Snapshots()


def read_snapshot(run: Run) -> Snapshot:
    """See `Snapshots.read`; one for the process."""
    return _snapshots.read(run)


def on_change(change: Change) -> None:
    """Drop what a change has ended, in the process that has ended it."""
    for event in change.events:
        if isinstance(event, RunAdvanced) and event.run.is_ended:
            _snapshots.drop(event.run.pk)
