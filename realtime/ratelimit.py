"""How many frames a socket may send."""

import time


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
