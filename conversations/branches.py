"""Where a conversation branches: the messages at one place, and what goes on below one of them."""

from collections.abc import Sequence
from itertools import chain
from uuid import UUID

from django.db import connection
from django.db.models import QuerySet

from conversations.models import ChatSession, Message
from conversations.shapes import MessageView

STEPS = 100
"""Messages that one query goes down a branch."""

WALK_DOWN = """
    WITH RECURSIVE path (id, depth) AS (
        SELECT id, 0 FROM conversations_message WHERE id = %s
        UNION ALL
        SELECT (
            SELECT m.id FROM conversations_message m
            WHERE m.parent_id = path.id AND NOT m.withdrawn ORDER BY m.number DESC LIMIT 1
        ), path.depth + 1
        FROM path WHERE path.id IS NOT NULL AND path.depth < %s
    )
    SELECT id FROM path WHERE depth > 0 AND id IS NOT NULL ORDER BY depth
"""


def list_below(message_id: UUID, limit: int) -> list[UUID]:
    """Ids of the next `limit` messages below one, by the newest at each place."""
    field = Message._meta.pk
    with connection.cursor() as cursor:
        cursor.execute(WALK_DOWN, [field.get_db_prep_value(message_id, connection), limit])
        return [field.to_python(row[0]) for row in cursor.fetchall()]


def find_end(message_id: UUID) -> UUID:
    """The end of the branch that goes on from a message, by the newest at each place."""
    while below := list_below(message_id, STEPS):
        message_id = below[-1]
    return message_id


def list_siblings(session: ChatSession, messages: Sequence[MessageView]) -> dict[str, list[str]]:
    """Ids by parent, oldest first, for each place of `messages` that has several.

    A conversation's beginnings have the parent "".
    """
    parents = [message.parent_message_id for message in messages]
    places = list_places(session, parents, among=Message.objects.filter(withdrawn=False))
    return {
        str(parent or ""): [str(pk) for pk in ids] for parent, ids in places.items() if len(ids) > 1
    }


def list_places(
    session: ChatSession, parents: Sequence[UUID | str | None], *, among: QuerySet[Message]
) -> dict[UUID | None, list[UUID]]:
    """Ids of the messages `among` these below each of `parents`, oldest first; None: beginnings."""
    rows = among.order_by("number").values_list("parent_id", "pk")
    found = [rows.filter(parent_id__in=[pk for pk in parents if pk])]
    if None in parents:
        found.append(rows.filter(session_id=session.pk, parent=None))
    places: dict[UUID | None, list[UUID]] = {}
    for parent, pk in chain(*found):
        places.setdefault(parent, []).append(pk)
    return places
