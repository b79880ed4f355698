"""Background tasks that are owned and restarted, time limits, and what is logged of exceptions."""

import asyncio
import logging
import time
import traceback
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from types import MappingProxyType, TracebackType
from typing import Any

from realtime.telemetry import metrics

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
"""Packages that handle prompts and replies: their exceptions may quote these.

So may any exception raised through them, such as one of a tool or of a guardrail.
"""

DATABASES = frozenset({"django", "psycopg", "psycopg_pool", "sqlite3"})
OPERATIONAL = frozenset({"OperationalError", "InterfaceError"})
"""Of database errors only these, which are about the connection, are logged with their message;
others may quote a row.
"""

MESSAGE_CHARS = 300


def describe(exc: BaseException, *, is_private: bool = False) -> str:
    """Describe an exception and its causes for the log: types, first lines of messages, tracebacks.

    A message is cut at `MESSAGE_CHARS`; that of a database error is left out unless it is about the
    connection. All messages are left out if one of them may quote prompts or replies (`QUOTING`),
    or if `is_private` is set.
    """
    chain = list(_chain(exc))
    is_private = is_private or any(map(_may_quote, chain))
    return "caused by ".join(_describe_one(each, is_private) for each in chain)


def name_types(exc: BaseException) -> str:
    """Return the types of an exception and its causes or contexts, as "A from B from C"."""
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
    """Return the first line of its message; "" for a database error that may quote a row."""
    kinds = {kind.__name__ for kind in type(exc).__mro__}
    if _package(type(exc).__module__) in DATABASES and not kinds & OPERATIONAL:
        return ""
    try:
        lines = str(exc).splitlines()
    except Exception:
        return ""
    return lines[0][:MESSAGE_CHARS] if lines else ""


log_ids: ContextVar[Mapping[str, str]] = ContextVar("log_ids", default=MappingProxyType({}))
"""Ids that each entry of the log written in this context is about, by their names."""


def note_ids(**ids: object) -> None:
    """Add ids to `log_ids`, as text, for the rest of this task and for tasks that it starts.

    An id of the same name is replaced.
    """
    log_ids.set({**log_ids.get(), **{name: str(value) for name, value in ids.items()}})


logger = logging.getLogger(__name__)

SLICES = 10
"""Into so many parts `loop_timeout` divides its time."""


@asynccontextmanager
async def loop_timeout(seconds: float) -> AsyncIterator[None]:
    """Like `asyncio.timeout`, but for `seconds` in which this event loop runs.

    While the loop is blocked no answer can be taken: such a pause, however long, counts for one of
    `SLICES` parts of the time. So an overloaded process does not take others for dead.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        timer = loop.call_later(seconds / SLICES, lambda: count(SLICES - 1))

        def count(left: int) -> None:
            nonlocal timer
            if left:
                timer = loop.call_later(seconds / SLICES, lambda: count(left - 1))
            else:
                limit.reschedule(loop.time())

        try:
            yield
        finally:
            timer.cancel()


RESTART_PAUSE_S = 1.0
"""Seconds before a service is started again; doubled for each further failure within
`FAILED_WITHIN_S`.
"""

RESTART_PAUSE_MAX_S = 15.0

FAILED_WITHIN_S = 60.0
"""A service that has died twice within so many seconds counts as failed."""


class Supervisor:
    """Owns a set of background tasks: keeps references, logs exceptions, cancels all in `stop`."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._deaths: defaultdict[str, deque[float]] = defaultdict(deque)

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start a task that runs once, and return it; an exception that it raises is logged.

        Such a death is not counted in `failed`.
        """
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def keep(self, serve: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Run a service in the background, and start it again after a pause whenever it raises.

        Pauses grow from `RESTART_PAUSE_S` to `RESTART_PAUSE_MAX_S`. A service that returns is not
        started again. `serve` is called for each start, and must not rely on state of an earlier
        run.
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
                # This task itself was not cancelled, but a future that it awaited was.
                logger.error("%s died: a future that it awaited was cancelled", name)
            except Exception as exc:
                logger.error("%s died: %s", name, describe(exc))
            self._deaths[name].append(time.monotonic())
            metrics.SERVICE_RESTARTS.labels(name).inc()
            await asyncio.sleep(self._pause_s(name))

    def _pause_s(self, name: str) -> float:
        doubled: float = RESTART_PAUSE_S * 2 ** (self._count_deaths(name) - 1)
        return min(doubled, RESTART_PAUSE_MAX_S)

    def _count_deaths(self, name: str) -> int:
        """Count the failures within the last `FAILED_WITHIN_S` seconds, and forget earlier ones."""
        deaths = self._deaths[name]
        while deaths and time.monotonic() - deaths[0] > FAILED_WITHIN_S:
            deaths.popleft()
        return len(deaths)

    @property
    def failed(self) -> list[str]:
        """Sorted names of services that have died at least twice in the last `FAILED_WITHIN_S`.

        That is in seconds. Only services of `keep` are counted.
        """
        return sorted(name for name in list(self._deaths) if self._count_deaths(name) >= 2)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            logger.error("%s died: %s", task.get_name(), describe(exc))

    async def settled(self) -> None:
        """Wait until every task has ended, tasks started meanwhile included.

        It waits for ever while a service of `keep` runs.
        """
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    async def stop(self) -> None:
        """Cancel all tasks and wait for their end; raises nothing of what they raise.

        Tasks that are started meanwhile are not cancelled.
        """
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
