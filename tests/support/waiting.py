"""Waits for conditions with a deadline, across threads and event loops.

A deadline is given in seconds of the reference machine; here it is scaled to this machine.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

from tests.support.machine import scaled

TIMEOUT_S = 30.0


def block_the_loop(seconds: float) -> None:
    """Block the event loop once, as work that does not wait would."""
    time.sleep(seconds)


def poll(
    met: Callable[[], object], what: str, *, within: float = TIMEOUT_S, every: float = 0.01
) -> None:
    """Poll a condition that no event announces, such as one in another process.

    `every` is the pause between two looks, in seconds. Raises `TimeoutError`.
    """
    deadline = time.monotonic() + scaled(within)
    while not met():
        if time.monotonic() > deadline:
            raise TimeoutError(_complaint(what, within))
        time.sleep(every)


@contextlib.asynccontextmanager
async def time_limit(what: str, *, within: float = TIMEOUT_S) -> AsyncIterator[None]:
    """Cancel the block at the deadline and raise `TimeoutError` instead."""
    try:
        async with asyncio.timeout(scaled(within)) as limit:
            yield
    except TimeoutError as exc:
        if limit.expired():
            raise TimeoutError(_complaint(what, within)) from exc
        raise


def _complaint(what: str, within: float) -> str:
    return f"waited {scaled(within):.1f} s for {what}"


class Noticeboard:
    """Wakes waiters in any thread or event loop when something was posted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wakers: set[Callable[[], object]] = set()

    def post(self) -> None:
        """Wake all waiters to check their conditions."""
        if self._wakers:
            with self._lock:
                for wake in self._wakers:
                    wake()

    def wait(
        self, met: Callable[[], object], what: str = "a change", *, within: float = TIMEOUT_S
    ) -> None:
        """Block this thread until `met()`; raises `TimeoutError`."""
        deadline = time.monotonic() + scaled(within)
        changed = threading.Event()
        with self._listening(changed.set):
            while not met():
                if not changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(_complaint(what, within))
                changed.clear()

    async def until(
        self, met: Callable[[], object], what: str = "a change", *, within: float = TIMEOUT_S
    ) -> None:
        """Suspend this task until `met()`; raises `TimeoutError`."""
        changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with time_limit(what, within=within):
            with self._listening(lambda: loop.call_soon_threadsafe(changed.set)):
                while not met():
                    await changed.wait()
                    changed.clear()

    @contextlib.contextmanager
    def _listening(self, wake: Callable[[], object]) -> Iterator[None]:
        with self._lock:
            self._wakers.add(wake)
        try:
            yield
        finally:
            with self._lock:
                self._wakers.discard(wake)
