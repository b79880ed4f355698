"""Exceptions for the log: where they came from, and what they say unless it may quote a prompt."""

import traceback
from collections.abc import Iterator
from types import TracebackType

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
