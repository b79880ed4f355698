"""An export on its way to a client: written whole first, so that its size and its sum are known."""

import asyncio
import base64
import hashlib
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator

from django.http import StreamingHttpResponse

from conversations.attempts import take_place
from conversations.errors import AgentSiteError, ErrorCode
from conversations.exports.formats import Format

MEMORY_BYTES = 1_048_576
"""What is larger waits in a temporary file without a name, which ends with its last reader."""

PIECE_BYTES = 65_536

AT_ONCE = 2
"""Exports of one user that are written or sent at the same time: each fills the temporary disk."""

RETRY_S = 10
LONGEST_S = 3_600
"""The place of an export whose process died is free again after that."""


def take_place_to_export(user_id: object) -> Callable[[], None]:
    """Hold one of a user's places; what is returned gives it back.

    Raises `AgentSiteError(rate_limited)` where none is free, in all processes together.
    """
    free = take_place(f"export of {user_id}", places=AT_ONCE, seconds=LONGEST_S)
    if free is None:
        raise AgentSiteError(ErrorCode.RATE_LIMITED, retry_after=RETRY_S)
    return free


class Download:
    """Takes pieces, then gives them as the body of an attachment; `name` has no extension."""

    def __init__(self, kind: Format, name: str, on_close: Callable[[], None] | None = None) -> None:
        self._kind = kind
        self._on_close = on_close
        self._name = f"{name}.{kind.extension}"
        self._sum = hashlib.sha256()
        self._size = 0
        # Who goes away leaves a thread at work: the file is not closed under it.
        self._lock = threading.Lock()
        self._file = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115 (see `close`)

    @property
    def sha256(self) -> str:
        """The SHA-256 of what was taken, in hexadecimal."""
        return self._sum.hexdigest()

    def take(self, pieces: Iterator[bytes]) -> bool:
        """Write the next piece; False when there is none."""
        piece = next(pieces, b"")
        with self._lock:
            if self._file.closed:
                return False
            self._file.write(piece)
        self._sum.update(piece)
        self._size += len(piece)
        return bool(piece)

    def response(self) -> StreamingHttpResponse:
        """All that was taken, as an attachment that no browser takes for anything else."""
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
        """Give the memory or the file back; the response does so when it is closed."""
        with self._lock:
            self._file.close()
        if self._on_close is not None:
            self._on_close()
            self._on_close = None
