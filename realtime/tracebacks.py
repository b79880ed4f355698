"""Exceptions for the log: where they came from, not what they say, which may quote a prompt."""

import traceback


def describe(exc: BaseException) -> str:
    """Types and frames of an exception and of what caused it, without their messages."""
    frames = "".join(traceback.format_tb(exc.__traceback__))
    cause = exc.__cause__ or exc.__context__
    below = f"caused by {describe(cause)}" if cause is not None else ""
    return f"{type(exc).__name__}\n{frames}{below}"
