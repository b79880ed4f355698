"""A whole conversation for other systems."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.db.models import Max
from django.utils import timezone

from conversations.api.serializers import message_data
from conversations.message_reads import list_messages, show_messages
from conversations.models import ChatSession
from conversations.queries import list_path

FORMAT = "agentsite.transcript"
VERSION = 1
CHUNK = 500


def get_transcript(session: ChatSession) -> dict[str, Any]:
    """The session and all of its messages, those of left branches too.

    `messages` comes last and in order of `number`; `on_active_branch` says which ones people see.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "exported_at": timezone.now().isoformat(),
        "session": {
            "id": str(session.pk),
            "title": session.title,
            "agent": session.agent,
            "rev": session.rev,
            "created_at": session.created_at.isoformat(),
            "active_at": session.active_at.isoformat(),
        },
        "messages": list(_messages(session)),
    }


def _messages(session: ChatSession) -> Iterator[dict[str, Any]]:
    branch = _branch(session)
    for view in show_messages(session, list_messages(session).iterator(chunk_size=CHUNK)):
        yield message_data(view) | {"on_active_branch": UUID(view.message_id) in branch}


def _branch(session: ChatSession) -> set[Any]:
    if session.active_leaf_id is None:
        return set()
    highest = session.messages.aggregate(highest=Max("number"))["highest"]
    return set(list_path(session.active_leaf_id, highest))
