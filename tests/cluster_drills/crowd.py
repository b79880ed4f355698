"""People who chat without a pause while a drill does its damage, and what became of each chat."""

import asyncio
import contextlib
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from tests.support.approvals import times_run
from tests.support.cluster import Cluster
from tests.support.provider import words
from tests.support.provider.script import LOOKING
from tests.support.readers import PATIENCE_S, Reader, read_status
from tests.support.site import User
from tests.support.transcript import Frame, Transcript
from tests.support.waiting import Noticeboard

SENT_AT_ONCE = 20
CHECKED_AT_ONCE = 4
FLOWING_S = 1.5
"""Text that comes at such intervals flows: it is told from text that waits for a repair."""


class TimedTranscript(Transcript):
    """Notes when text was added to what is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []
        self._length = 0

    def apply(self, frame: Frame) -> None:
        super().apply(frame)
        length = sum(len(run.text) for run in self.runs.values())
        if length > self._length:
            self.times.append(time.monotonic())
        self._length = length

    def pauses(self) -> list[tuple[float, float]]:
        """Return for how long text stood still within the reply, and when it then went on."""
        return [(later - earlier, later) for earlier, later in itertools.pairwise(self.times)]


class Crowd:
    """So many people, each in one reply after the other; with tools if a folder is given."""

    def __init__(
        self, cluster: Cluster, size: int, *, tokens: int, rate: float, tools: Path | None = None
    ) -> None:
        self.cluster, self.size = cluster, size
        self.readers: list[Reader] = []
        self.times: defaultdict[int, list[TimedTranscript]] = defaultdict(list)
        self._prompt = f"tokens={tokens} rate={rate}"
        self._reply_s = tokens / rate
        self._tools = tools
        self.words = [f"{LOOKING}\n\n", *words(tokens)] if tools else words(tokens)
        self._board = Noticeboard()
        self._sending = asyncio.Semaphore(SENT_AT_ONCE)
        self._numbers = itertools.count(1)
        self._is_stopping = False

    @contextlib.asynccontextmanager
    async def chatting(self) -> AsyncIterator[None]:
        """All chat in the block and read their last replies to the end after it."""
        names = [f"person{number}" for number in range(self.size)]
        people = await asyncio.to_thread(self.cluster.site.make_users, *names)
        async with asyncio.TaskGroup() as group:
            for number, user in enumerate(people):
                group.create_task(self._talk(user, number * self._reply_s / self.size))
            await self._board.until(self._have_begun, "first words", within=PATIENCE_S)
            try:
                yield
            finally:
                self._is_stopping = True

    def _have_begun(self) -> bool:
        return sum(reader.has_begun for reader in self.readers) >= self.size

    async def _talk(self, user: User, pause_s: float) -> None:
        # Replies end at different moments then, as those of strangers do.
        await asyncio.sleep(pause_s)
        while not self._is_stopping:
            number, timed = next(self._numbers), TimedTranscript()
            text = f"{number}: {self._prompt}"
            if self._tools:
                text += f" file={self._file(number)}"
            reader = Reader(user, text, self._board, timed)
            self.readers.append(reader)
            self.times[user.pk].append(timed)
            await reader.read([self.cluster.site], self._sending)

    def _file(self, number: int) -> Path:
        assert self._tools
        return self._tools / str(number)

    async def check(self) -> Counter[str]:
        """Return how the replies ended.

        Asserts that each chat ended once, with the text that its reader was shown, and ran its tool
        at most once.
        """
        checking = asyncio.Semaphore(CHECKED_AT_ONCE)

        async def status(reader: Reader) -> str:
            async with checking:
                return await read_status(self.cluster.site, reader, self.words)

        ends = Counter(await asyncio.gather(*map(status, self.readers)))
        ids = [reader.run_id for reader in self.readers]
        counts = await asyncio.to_thread(
            self.cluster.ask,
            "SELECT count(*) FROM conversations_runevent"
            " WHERE run_id = ANY(%s) AND kind IN ('complete', 'error') GROUP BY run_id",
            ids,
        )
        assert len(set(ids)) == len(counts) == len(self.readers)
        assert set(counts) == {(1,)}
        if self._tools:
            run = [times_run(self._file(number + 1)) for number in range(len(self.readers))]
            assert max(run) == 1, run
        return ends

    def stillness_s(self) -> list[float]:
        """Return for how long text stood still at most, in all replies of each person."""
        return [max(pause for pause, _ in _pauses(replies)) for replies in self.times.values()]

    def recovered_after_s(self, since: float) -> float:
        """Return how long after a moment the last reader's text flowed again, in seconds."""
        late = [
            end - since
            for replies in self.times.values()
            for pause, end in _pauses(replies)
            if pause > FLOWING_S and end > since
        ]
        return max(late, default=0.0)


def _pauses(replies: list[TimedTranscript]) -> Iterator[tuple[float, float]]:
    return itertools.chain.from_iterable(timed.pauses() for timed in replies)


def described(ends: Counter[str]) -> str:
    """Return the counts of ended replies in words."""
    return ", ".join(f"{count} {status}" for status, count in sorted(ends.items()))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
