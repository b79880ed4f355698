"""How many frames a socket may send, and how many sockets there may be."""

import time
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager


class FrameLimit:
    """A token bucket of `per_minute` frames; `excess` counts refusals in a row."""

    def __init__(self, per_minute: int) -> None:
        self._capacity = float(per_minute)
        self._left = float(per_minute)
        self._at = time.monotonic()
        self.excess = 0

    def take(self) -> bool:
        """Whether one more frame may be sent now."""
        now = time.monotonic()
        self._left = min(self._capacity, self._left + (now - self._at) * self._capacity / 60)
        self._at = now
        if self._left < 1:
            self.excess += 1
            return False
        self._left -= 1
        self.excess = 0
        return True

    @property
    def retry_after(self) -> float:
        """Seconds until the next frame may be sent."""
        return max(0.0, (1 - self._left) * 60 / self._capacity)


class Places:
    """How many sockets each user and each address has open; a new one never displaces another."""

    def __init__(self) -> None:
        self._taken: Counter[Hashable] = Counter()

    def __bool__(self) -> bool:
        """Whether any is taken."""
        return bool(self._taken)

    @contextmanager
    def take(self, limits: Mapping[Hashable, int]) -> Iterator[bool]:
        """Whether there is a place below each key's limit; if so, all are held until the end."""
        is_free = all(self._taken[key] < limit for key, limit in limits.items())
        held = list(limits) if is_free else []
        self._taken.update(held)
        try:
            yield is_free
        finally:
            self._taken.subtract(held)
            for key in held:
                if not self._taken[key]:
                    del self._taken[key]
