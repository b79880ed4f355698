"""A whole conversation for other systems."""

from collections.abc import Iterator
from typing import Any

from django.db.models import Max
from django.utils import timezone

from conversations.models import ChatSession, Message
from conversations.queries import get_active_run, list_path, read_parts, reply_run
from conversations.serializers import message_data
from conversations.shapes import message_view

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
    active = get_active_run(session.pk)
    rows = Message.objects.filter(session=session).select_related("run").order_by("number")
    for row in rows.iterator(chunk_size=CHUNK):
        run = reply_run(row)
        at_work = run is not None and active is not None and run.pk == active.pk
        parts = read_parts(run).parts if run is not None and at_work else None
        view = message_view(row, run=run, parts=parts)
        yield message_data(view) | {"on_active_branch": row.pk in branch}


def _branch(session: ChatSession) -> set[Any]:
    if session.active_leaf_id is None:
        return set()
    highest = session.messages.aggregate(highest=Max("number"))["highest"]
    return set(list_path(session.active_leaf_id, highest))
