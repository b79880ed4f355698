"""What one run has to tell: numbered, text merged, handed to the flusher in batches."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.utils import timezone

from conversations.changes import EventRow, RunLostError
from conversations.journal_store import Batch
from conversations.parts import PartsFolder
from conversations.run_states import Claimed

MERGED_KINDS = ("token", "reasoning.delta")

Wake = Callable[["Journal", bool], None]


class Journal:
    """The events of one claimed run, from here to the database.

    `append` never waits. Text that has not been taken yet grows in place, so that a commit writes
    one event of text however many deltas came. `wake` is called with True for what must not wait
    for the next tick: the first text, and whatever a caller waits for.
    """

    def __init__(self, claimed: Claimed, wake: Wake) -> None:
        self.claimed = claimed
        self.folder = claimed.resumption.folder if claimed.resumption else PartsFolder()
        self.last_seq = claimed.last_seq
        self.first_token_at: datetime | None = claimed.run.first_token_at
        self.last_token_at: datetime | None = claimed.run.last_token_at
        self.beaten_at = time.monotonic()
        self.lost = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.in_doubt: Batch | None = None
        self._wake = wake
        self._pending: list[tuple[str, dict[str, Any]]] = []
        self.size = 0
        """Characters of text that are not committed."""
        self._waiting_since: float | None = None
        self._commits: list[tuple[int, asyncio.Future[None]]] = []
        self._cleared = asyncio.Event()
        self._closed = False

    @property
    def is_dirty(self) -> bool:
        return bool(self._pending) or self.in_doubt is not None

    @property
    def waiting_s(self) -> float:
        """For how long what is to be committed has waited, in seconds."""
        return 0.0 if self._waiting_since is None else time.monotonic() - self._waiting_since

    def append(self, kind: str, payload: dict[str, Any]) -> None:
        """Add an event; text right after text becomes part of it. Dropped once it is closed."""
        if self._closed:
            return
        self.folder.apply(kind, payload)
        first = kind == "token" and self.first_token_at is None
        if kind == "token":
            self.last_token_at = timezone.now()
            self.first_token_at = self.first_token_at or self.last_token_at
        if self._pending and kind in MERGED_KINDS and self._pending[-1][0] == kind:
            self._pending[-1][1]["delta"] += payload["delta"]
        else:
            self._pending.append((kind, dict(payload)))
        self.size += len(payload.get("delta", ""))
        if self._waiting_since is None:
            self._waiting_since = time.monotonic()
        self._wake(self, first)

    async def commit(self) -> None:
        """Wait until all that was appended is committed; raises `RunLostError`.

        Also once it is closed: what does not stop with its run must not begin anything more.
        """
        if self.lost.is_set() or self._closed:
            raise RunLostError
        if not self.is_dirty:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._commits.append((self._end_seq(), done))
        self._wake(self, True)
        await done

    def _end_seq(self) -> int:
        taken = self.in_doubt.next_seq if self.in_doubt else self.last_seq
        return taken + len(self._pending)

    def take(self) -> Batch:
        """All that waits, numbered; the same again until it is known to be committed."""
        if self.in_doubt is None:
            self.in_doubt = self._batch(self.last_seq, self._pop())
            self._cleared.clear()
            if self._waiting_since is None:
                self._waiting_since = time.monotonic()
        return self.in_doubt

    async def cleared(self) -> None:
        """Wait until nothing is in doubt, or the run is lost."""
        if self.in_doubt is not None:
            await self._cleared.wait()

    def take_rest(self) -> list[EventRow]:
        """What is left when nothing is in doubt any more, for the transaction that ends the run."""
        return list(self._batch(self.last_seq, self._pop()).events)

    def _pop(self) -> list[tuple[str, dict[str, Any]]]:
        pending, self._pending = self._pending, []
        return pending

    def _batch(self, last_seq: int, pending: list[tuple[str, dict[str, Any]]]) -> Batch:
        run = self.claimed.run
        events = [(last_seq + i, kind, payload) for i, (kind, payload) in enumerate(pending, 1)]
        return Batch(run.pk, run.claim, run.epoch, last_seq, events)

    def settle(self) -> Batch:
        """The batch in doubt is committed."""
        batch, self.in_doubt = self.in_doubt, None
        assert batch is not None
        self._cleared.set()
        self.last_seq = batch.next_seq
        self.beaten_at = time.monotonic()
        self.size = sum(len(payload.get("delta", "")) for _, payload in self._pending)
        self._waiting_since = self.beaten_at if self._pending else None
        waiting, self._commits = self._commits, []
        for seq, done in waiting:
            if seq > self.last_seq:
                self._commits.append((seq, done))
            elif not done.done():
                done.set_result(None)
        return batch

    def lose(self) -> None:
        """The run is this worker's no more: nothing more of it is written or shown."""
        self.in_doubt = None
        self._cleared.set()
        self.lost.set()
        self._refuse_commits()

    def close(self) -> None:
        """Take nothing more; what was taken may still be settled."""
        self._closed = True
        self._refuse_commits()

    def _refuse_commits(self) -> None:
        for _, done in self._commits:
            if not done.done():
                done.set_exception(RunLostError())
