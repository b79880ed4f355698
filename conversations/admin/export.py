"""The sessions of a list as a file."""

from collections.abc import Iterable, Iterator
from uuid import UUID

from asgiref.sync import async_to_sync, sync_to_async
from django.db.models import QuerySet

from conversations.exports.download import Download, take_place_to_export
from conversations.exports.formats import FORMATS, encode
from conversations.exports.source import Conversation, read_conversations
from conversations.models import ChatSession


class Export:
    """`sessions` as `format_name` says; `session_ids` are those that it holds."""

    def __init__(
        self, sessions: QuerySet[ChatSession], format_name: str, *, staff_id: object
    ) -> None:
        """Raises `AgentSiteError(rate_limited)` where the staff member exports enough already."""
        kind = FORMATS[format_name]
        self.session_ids: list[UUID] = []
        self.download = Download(kind, "sessions", take_place_to_export(staff_id))
        pieces = encode(kind.write(self._counted(read_conversations(sessions, for_staff=True))))
        try:
            async_to_sync(self._write)(pieces)
        except BaseException:
            self.download.close()
            raise

    async def _write(self, pieces: Iterator[bytes]) -> None:
        """In the request's own thread, which hears between two pieces that its client has gone."""
        take = sync_to_async(self.download.take)
        while await take(pieces):
            pass

    def _counted(self, conversations: Iterable[Conversation]) -> Iterator[Conversation]:
        for conversation in conversations:
            self.session_ids.append(UUID(conversation.session["id"]))
            yield conversation
