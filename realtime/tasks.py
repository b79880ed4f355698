"""Tasks with an owner that are restarted, and how their failures are logged."""

import asyncio
import logging
import time
import traceback
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any

QUOTING = frozenset(
    {
        "agents",
        "httpcore",
        "httpcore2",
        "httpx",
        "httpx2",
        "mcp",
        "openai",
        "pydantic",
        "pydantic_core",
    }
)
"""Packages through which prompts and replies go, and whose exceptions may say anything of them.

An exception that came through one of them may be one of a tool or of a guardrail.
"""

DATABASES = frozenset({"django", "psycopg", "psycopg_pool", "sqlite3"})
OPERATIONAL = frozenset({"OperationalError", "InterfaceError"})
"""Of a database's errors those that are about the connection; others may quote a row."""

MESSAGE_CHARS = 300


def describe(exc: BaseException, *, is_private: bool = False) -> str:
    """Types, messages and frames of an exception and of what caused it.

    Without any message if one of them may quote what people write or models answer, or if the
    caller says that it may (`is_private`).
    """
    chain = list(_chain(exc))
    is_private = is_private or any(map(_may_quote, chain))
    return "caused by ".join(_describe_one(each, is_private) for each in chain)


def name_types(exc: BaseException) -> str:
    """The types of an exception and of what caused it, in one line."""
    return " from ".join(type(each).__name__ for each in _chain(exc))


def _chain(exc: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = exc
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _may_quote(exc: BaseException) -> bool:
    return _package(type(exc).__module__) in QUOTING or any(
        _package(name) in QUOTING for name in _modules(exc.__traceback__)
    )


def _modules(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        yield str(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next


def _package(module: str) -> str:
    return module.partition(".")[0]


def _describe_one(exc: BaseException, is_private: bool) -> str:
    message = "" if is_private else _message(exc)
    frames = "".join(traceback.format_tb(exc.__traceback__))
    return f"{type(exc).__name__}{f': {message}' if message else ''}\n{frames}"


def _message(exc: BaseException) -> str:
    """Its first line; of a database's error only where that is about the connection."""
    kinds = {kind.__name__ for kind in type(exc).__mro__}
    if _package(type(exc).__module__) in DATABASES and not kinds & OPERATIONAL:
        return ""
    try:
        lines = str(exc).splitlines()
    except Exception:
        return ""
    return lines[0][:MESSAGE_CHARS] if lines else ""


logger = logging.getLogger(__name__)

RESTART_PAUSE_S = 1.0
"""Before a service that died is started again; doubled with each further death of late."""

RESTART_PAUSE_MAX_S = 15.0

FAILED_WITHIN_S = 60.0
"""A service that has died twice within this counts as failed."""


class Supervisor:
    """A set of background tasks."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._deaths: defaultdict[str, deque[float]] = defaultdict(deque)

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run a task once."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def keep(self, serve: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Run a service: it is started again, after a pause, whenever it raises.

        One that returns has nothing to do and is left alone. `serve` must not rely on what an
        earlier run of it has left half done.
        """
        self.start(self._keep(serve, name), name)

    async def _keep(self, serve: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        while True:
            try:
                await serve()
                return
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
                # Not this task was cancelled, but something that it waited for.
                logger.error("%s died: something it waited for was cancelled", name)
            except Exception as exc:
                logger.error("%s died: %s", name, describe(exc))
            self._deaths[name].append(time.monotonic())
            await asyncio.sleep(self._pause_s(name))

    def _pause_s(self, name: str) -> float:
        doubled: float = RESTART_PAUSE_S * 2 ** (self._count_deaths(name) - 1)
        return min(doubled, RESTART_PAUSE_MAX_S)

    def _count_deaths(self, name: str) -> int:
        """Those of late; earlier ones are forgotten."""
        deaths = self._deaths[name]
        while deaths and time.monotonic() - deaths[0] > FAILED_WITHIN_S:
            deaths.popleft()
        return len(deaths)

    @property
    def failed(self) -> list[str]:
        """The services that have died twice within `FAILED_WITHIN_S`, by name."""
        return sorted(name for name in list(self._deaths) if self._count_deaths(name) >= 2)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            logger.error("%s died: %s", task.get_name(), describe(exc))

    async def settled(self) -> None:
        """Wait for what is under way."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    async def stop(self) -> None:
        """Cancel what is left and wait for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
