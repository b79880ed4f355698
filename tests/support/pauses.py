"""Pauses the code of this process at a named place while others act, then resumes it.

Places are named after calls of the product: `before finish_run` and `after finish_run` for a unit
of database work, `before group_add` for a join of a group, `inside stop_run` between the look-up
and the lock of a write. They are made by wrapping those functions; the product has no hooks.
"""

import asyncio
import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from realtime import dbpool
from tests.support.machine import scaled
from tests.support.waiting import TIMEOUT_S

UNITS = (
    *("read", "read_first", "read_soon"),
    *("write", "write_first", "write_soon", "write_chat"),
)


class Pauses:
    """Only one place is armed at a time; the first call that reaches it pauses there."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._loop = asyncio.get_running_loop()
        self._armed = ""
        self.reached = asyncio.Event()
        self._go_on = asyncio.Event()
        self._go_on_thread = threading.Event()
        for name in UNITS:
            self._wrap_unit(name)

    def _wrap_unit(self, name: str) -> None:
        unit = getattr(dbpool, name)

        @functools.wraps(unit)
        async def paused(*args: Any, **kwargs: Any) -> Any:
            # The function comes first, or behind the user whose turn it is.
            work = getattr(next(filter(callable, args)), "__name__", "")
            await self._pass(f"before {work}")
            result = await unit(*args, **kwargs)
            await self._pass(f"after {work}")
            return result

        self._patch.setattr(dbpool, name, paused)

    def wrap_async(self, owner: Any, name: str) -> None:
        """Add the place `before <name>`, for a coroutine function of a class or a module."""
        call = getattr(owner, name)

        @functools.wraps(call)
        async def paused(*args: Any, **kwargs: Any) -> Any:
            await self._pass(f"before {name}")
            return await call(*args, **kwargs)

        self._patch.setattr(owner, name, paused)

    def wrap_sync(self, owner: Any, name: str, place: str) -> None:
        """Add `place`, before a function that is called in a database thread."""
        call = getattr(owner, name)

        @functools.wraps(call)
        def paused(*args: Any, **kwargs: Any) -> Any:
            if self._take(place):
                self._loop.call_soon_threadsafe(self.reached.set)
                assert self._go_on_thread.wait(scaled(TIMEOUT_S)), "nobody let it go on"
            return call(*args, **kwargs)

        self._patch.setattr(owner, name, paused)

    def _take(self, place: str) -> bool:
        taken = self._armed == place
        if taken:
            self._armed = ""
        return taken

    async def _pass(self, place: str) -> None:
        if self._take(place):
            self.reached.set()
            await self._go_on.wait()

    @contextlib.contextmanager
    def armed(self, place: str) -> Iterator[None]:
        """Pause the first call that reaches `place`, until the block ends or `go_on` is called."""
        self.reached, self._go_on = asyncio.Event(), asyncio.Event()
        self._go_on_thread = threading.Event()
        self._armed = place
        try:
            yield
        finally:
            self.go_on()

    async def wait(self, acting: "asyncio.Task[Any]", *, is_awaited: bool) -> bool:
        """Wait until a call pauses at the place or `acting` ends; returns whether one paused.

        With `is_awaited` it waits for that call even after the end of `acting`.
        """
        reached = asyncio.create_task(self.reached.wait())
        await asyncio.wait([reached, acting], return_when=asyncio.FIRST_COMPLETED)
        # What `acting` triggers reaches the place after its end.
        await asyncio.wait([reached], timeout=scaled(TIMEOUT_S) if is_awaited else 0)
        reached.cancel()
        return self.reached.is_set()

    def go_on(self) -> None:
        self._armed = ""
        self._go_on.set()
        self._go_on_thread.set()
