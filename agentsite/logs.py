"""The lines of the log, without the secrets that addresses and headers hold."""

import logging
import re
from typing import Any

from conversations.text import visible
from realtime.tracebacks import describe

SECRET = re.compile(
    r"(/shared/|/password/reset/[^/\s]+/|[?&]token=|\bbearer\s+|\bagk_[0-9a-f]{8}_"
    r"|\b(?:sessionid|csrftoken|csrfmiddlewaretoken)=)"
    r"[^\s/?&#'\"<>;,\\]+",
    re.IGNORECASE,
)
"""A token and what stands before it: in a share link, a password reset, a query, or a header."""


class LineFormatter(logging.Formatter):
    """Replaces each secret by `…`, in the message and in its traceback, and moves no cursor.

    The last of several guards: loggers that repeat text or headers are silenced in the settings.
    Of an exception it shows no more than `describe` does.
    """

    def formatException(self, ei: Any) -> str:  # noqa: N802 (logging's)
        return describe(ei[1]) if ei[1] else ""

    def format(self, record: logging.LogRecord) -> str:
        return SECRET.sub(r"\1…", visible(super().format(record)))
