"""The sessions of a list as a file: written first, then sent piece by piece, at flat memory."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import IO

from django.db.models import QuerySet
from django.http import StreamingHttpResponse

from conversations.exports.formats import FORMATS, encode
from conversations.exports.source import Conversation, read_conversations
from conversations.models import ChatSession

PIECE_BYTES = 64 * 1024


class ExportFile:
    """`sessions` as `format_name` says; `count` is how many there were."""

    def __init__(self, sessions: QuerySet[ChatSession], format_name: str) -> None:
        self.kind = FORMATS[format_name]
        self.count = 0
        self.file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed when it is sent)
        conversations = self._counted(read_conversations(sessions))
        self.file.writelines(encode(self.kind.write(conversations)))
        self.file.seek(0)

    def _counted(self, conversations: Iterable[Conversation]) -> Iterator[Conversation]:
        for conversation in conversations:
            self.count += 1
            yield conversation

    def response(self) -> StreamingHttpResponse:
        """An attachment that no browser takes for anything else."""
        return StreamingHttpResponse(
            _pieces(self.file),
            content_type=f"{self.kind.media_type}; charset=utf-8",
            headers={
                "Content-Disposition": f'attachment; filename="sessions.{self.kind.extension}"',
                "X-Content-Type-Options": "nosniff",
                "Cache-Control": "private, no-store",
            },
        )


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    with file:
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield piece
