"""The export formats, and the download that sends an export to a client."""

import asyncio
import base64
import hashlib
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass

from django.http import StreamingHttpResponse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from conversations.errors import AgentSiteError, ErrorCode
from conversations.exports import writers
from conversations.exports.source import Conversation
from conversations.people.sign_ins import take_place

Text = str | Promise
Writer = Callable[[Iterable[Conversation]], Iterator[str]]

PIECE_CHARS = 64 * 1024


@dataclass(frozen=True)
class Format:
    """One export format.

    `label` is the name shown to users, `extension` has no leading dot. `write` yields the text of a
    file with any number of conversations, piece by piece; `write_one` that of a file that holds
    exactly one.
    """

    label: Text
    media_type: str
    extension: str
    write: Writer
    write_one: Writer


def _format(
    label: Text, media_type: str, extension: str, write: Writer, one: Writer | None = None
) -> Format:
    return Format(label, media_type, extension, write, one or write)


FORMATS: dict[str, Format] = {
    "markdown": _format("Markdown", "text/markdown", "md", writers.write_markdown),
    "html": _format(_("Web page"), "text/html", "html", writers.write_page),
    "text": _format(_("Plain text"), "text/plain", "txt", writers.write_text),
    "csv": _format("CSV", "text/csv", "csv", writers.write_rows),
    "json": _format("JSON", "application/json", "json", writers.write_many, writers.write_one),
    "jsonl": _format("JSON Lines", "application/x-ndjson", "jsonl", writers.write_lines),
    "openai": _format(
        _("Training data"), "application/jsonl", "openai.jsonl", writers.write_examples
    ),
}


def encode(texts: Iterable[str]) -> Iterator[bytes]:
    """Join `texts` and yield them as UTF-8, in chunks of at least `PIECE_CHARS` characters.

    Only the last chunk may be smaller: each one costs its reader a switch between threads. Yields
    nothing without texts.
    """
    waiting: list[str] = []
    size = 0
    for text in texts:
        waiting.append(text)
        size += len(text)
        if size >= PIECE_CHARS:
            yield "".join(waiting).encode()
            waiting, size = [], 0
    if waiting:
        yield "".join(waiting).encode()


MEMORY_BYTES = 1_048_576
"""Larger exports are spooled to an unnamed temporary file, deleted when it is closed."""

PIECE_BYTES = 65_536

AT_ONCE = 2
"""Concurrent exports of one user. Each may fill the disk that holds temporary files."""

RETRY_S = 10
LONGEST_S = 3_600
"""Seconds after which the place of an export whose process died is free again."""


def take_place_to_export(user_id: object) -> Callable[[], None]:
    """Take one of the user's `AT_ONCE` export places; return a function that frees it.

    Processes that share a cache count together; while the cache is unavailable there is always a
    place. A place that is not freed is free again `LONGEST_S` seconds after it was taken. Raises
    `AgentSiteError(rate_limited)` if none is free.
    """
    free = take_place(f"export of {user_id}", places=AT_ONCE, seconds=LONGEST_S)
    if free is None:
        raise AgentSiteError(ErrorCode.RATE_LIMITED, retry_after=RETRY_S)
    return free


class Download:
    """Spools the chunks of an export, then sends them as an attachment.

    Call `take` until it returns False, then `response`; call `close` if no response is sent.
    `name` is the file name without extension. `on_close` is called once, on the first `close`.
    """

    def __init__(self, kind: Format, name: str, on_close: Callable[[], None] | None = None) -> None:
        self._kind = kind
        self._on_close = on_close
        self._name = f"{name}.{kind.extension}"
        self._sum = hashlib.sha256()
        self._size = 0
        # When a client disconnects, a thread may still be in `take` or `_read`. The lock keeps
        # `close` from closing the file during that call.
        self._lock = threading.Lock()
        self._file = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115 (see `close`)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the chunks taken so far, in hexadecimal."""
        return self._sum.hexdigest()

    def take(self, pieces: Iterator[bytes]) -> bool:
        """Spool the next of `pieces`; return False after the last, or if the download is closed.

        An empty piece counts as the end.
        """
        piece = next(pieces, b"")
        with self._lock:
            if self._file.closed:
                return False
            self._file.write(piece)
        self._sum.update(piece)
        self._size += len(piece)
        return bool(piece)

    def response(self) -> StreamingHttpResponse:
        """Return the response that sends what was taken as an attachment and then calls `close`.

        Call it once, before `close`; afterwards take no more pieces.
        """
        self._file.seek(0)
        digest = base64.b64encode(self._sum.digest()).decode()
        return StreamingHttpResponse(
            self,
            content_type=f"{self._kind.media_type}; charset=utf-8",
            headers={
                "Content-Disposition": f'attachment; filename="{self._name}"',
                "Content-Length": str(self._size),
                "Repr-Digest": f"sha-256=:{digest}:",
                "X-Content-Type-Options": "nosniff",
                "Cache-Control": "private, no-store",
            },
        )

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await asyncio.to_thread(self._read):
            yield piece

    def _read(self) -> bytes:
        with self._lock:
            return b"" if self._file.closed else self._file.read(PIECE_BYTES)

    def close(self) -> None:
        """Free the spooled chunks, and call `on_close` the first time; the response calls this.

        Waits for a write or a read that another thread has begun.
        """
        with self._lock:
            self._file.close()
        if self._on_close is not None:
            self._on_close()
            self._on_close = None
