"""Waiting for conditions with a deadline, across threads and event loops."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator

TIMEOUT_S = 15.0


def poll(met: Callable[[], object], what: str, *, within: float = TIMEOUT_S) -> None:
    """Ask again and again: for what lies in another process and tells nobody when it changes."""
    deadline = time.monotonic() + within
    while not met():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {within} s for {what}")
        time.sleep(0.01)


class Noticeboard:
    """Wakes those who wait, in any thread or event loop, whenever something was posted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wakers: set[Callable[[], object]] = set()

    def post(self) -> None:
        """Something has changed."""
        if self._wakers:
            with self._lock:
                for wake in self._wakers:
                    wake()

    def wait(self, met: Callable[[], object], *, within: float = TIMEOUT_S) -> None:
        """Block this thread until `met()`; raises `TimeoutError`."""
        deadline = time.monotonic() + within
        changed = threading.Event()
        with self._listening(changed.set):
            while not met():
                if not changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"waited {within} s")
                changed.clear()

    async def until(self, met: Callable[[], object], *, within: float = TIMEOUT_S) -> None:
        """Suspend this task until `met()`; raises `TimeoutError`."""
        changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(within):
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
