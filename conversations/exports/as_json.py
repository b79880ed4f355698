"""JSON that can be imported again, and JSON Lines."""

import json
from collections.abc import Iterable, Iterator

from django.utils import timezone

from conversations.exports.digest import Digest, digest_of
from conversations.exports.source import Conversation

ONE = "agentsite.transcript"
MANY = "agentsite.transcripts"
VERSION = 1


def write_one(conversations: Iterable[Conversation]) -> Iterator[str]:
    """The only conversation as one object, its SHA-256 at the end."""
    for conversation in conversations:
        yield f"{{{_head(ONE)}, {_pair('session', conversation.session)}, "
        yield from _messages(conversation)
        yield "}\n"


def write_many(conversations: Iterable[Conversation]) -> Iterator[str]:
    """All conversations in one object."""
    yield f'{{{_head(MANY)}, "sessions": ['
    separator = "\n"
    for conversation in conversations:
        yield f"{separator}{{{_pair('session', conversation.session)}, "
        yield from _messages(conversation)
        yield "}"
        separator = ",\n"
    yield "\n]}\n"


def write_lines(conversations: Iterable[Conversation]) -> Iterator[str]:
    """One message a line, with its session and the SHA-256 of the message."""
    for conversation in conversations:
        for message in conversation.messages:
            line = {"session": conversation.session, **message, "sha256": digest_of(message)}
            yield json.dumps(line, ensure_ascii=False) + "\n"


def _head(name: str) -> str:
    exported_at = timezone.now().isoformat()
    return ", ".join(
        (_pair("format", name), _pair("version", VERSION), _pair("exported_at", exported_at))
    )


def _messages(conversation: Conversation) -> Iterator[str]:
    digest = Digest(conversation)
    yield '"messages": ['
    separator = "\n"
    for message in digest.messages():
        yield separator + json.dumps(message, ensure_ascii=False)
        separator = ",\n"
    yield f"\n], {_pair('sha256', digest.value)}"


def _pair(name: str, value: object) -> str:
    return f'"{name}": {json.dumps(value, ensure_ascii=False)}'
