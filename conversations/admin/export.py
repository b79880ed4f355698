"""The sessions of a list as a file."""

from collections.abc import Iterable, Iterator

from django.db.models import QuerySet

from conversations.exports.download import Download
from conversations.exports.formats import FORMATS, encode
from conversations.exports.source import Conversation, read_conversations
from conversations.models import ChatSession


class Export:
    """`sessions` as `format_name` says; `count` is how many there were."""

    def __init__(self, sessions: QuerySet[ChatSession], format_name: str) -> None:
        kind = FORMATS[format_name]
        self.count = 0
        self.download = Download(kind, "sessions")
        pieces = encode(kind.write(self._counted(read_conversations(sessions))))
        while self.download.take(pieces):
            pass

    def _counted(self, conversations: Iterable[Conversation]) -> Iterator[Conversation]:
        for conversation in conversations:
            self.count += 1
            yield conversation
