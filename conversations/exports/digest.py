"""What an export says about its content, so that a reader can tell whether it is all there."""

import hashlib
import json
from collections.abc import Iterator

from conversations.exports.source import Conversation, Record


def canonical(record: Record) -> str:
    """The one JSON text of a record: keys in order, no spaces."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(record: Record) -> str:
    """The SHA-256 of a record's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical(record).encode()).hexdigest()


class Digest:
    """The SHA-256 of a session's header and messages, each as canonical JSON and a newline."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._sum = hashlib.sha256()
        self._add(conversation.session)

    def _add(self, record: Record) -> None:
        self._sum.update(canonical(record).encode() + b"\n")

    def messages(self) -> Iterator[Record]:
        """The messages, taken into the sum as they are gone through."""
        for message in self._conversation.messages:
            self._add(message)
            yield message

    @property
    def value(self) -> str:
        """The sum of what was gone through, in hexadecimal."""
        return self._sum.hexdigest()
