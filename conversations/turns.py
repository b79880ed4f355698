"""A conversation as the model is to see it."""

import json
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Q

from conversations.models import Message, Role, Run, join_text


@dataclass(frozen=True)
class Gauge:
    """How heavy the first input of a run was, in tokens; None where it is not known.

    `estimate` is our own of what was sent, `measured` the provider's count of it, `refused` our
    own of what the model did not take for being too long.
    """

    agent: str
    model: str
    estimate: int | None = None
    measured: int | None = None
    refused: int | None = None


@dataclass(frozen=True)
class Turn:
    """One message as the model is to see it: a user's text, or the items of a reply.

    The gauge is of the run that made the reply; where a prompt is asked anew, of the runs before.
    """

    message_id: UUID
    text: str | None = None
    items: list[dict[str, Any]] = field(default_factory=list)
    gauge: Gauge | None = None


@dataclass(frozen=True)
class Path:
    """A branch from one of its messages back to the latest summary, or to the beginning.

    `turns` come newest first. `summary` stands for what was before them: None for nothing, an
    empty one for what is left out.
    """

    turns: list[Turn]
    summary: str | None


# One statement, since a first token waits for it: through the ORM it took seven and twice the
# time of all the rest. A walk ends at a message that a summary covers.
READ_PATH = """
    WITH RECURSIVE path (id, parent_id, depth) AS (
        SELECT id, parent_id, 1 FROM conversations_message WHERE id = %s
        UNION ALL
        SELECT m.id, m.parent_id, path.depth + 1
        FROM path JOIN conversations_message m ON m.id = path.parent_id
        LEFT JOIN conversations_summary s ON s.message_id = m.id
        WHERE path.depth < %s AND s.message_id IS NULL
    )
    SELECT path.id, path.parent_id, m.role, CASE WHEN m.role = 'user' THEN m.parts END,
        r.agent, COALESCE(NULLIF(r.context_model, ''), r.model), r.context_estimate,
        r.context_measured, r.context_refused,
        CASE WHEN path.depth = 1 THEN (
            SELECT MIN(other.context_refused) FROM conversations_run other
            WHERE other.prompt_id = path.id AND other.agent = %s
                AND COALESCE(NULLIF(other.context_model, ''), other.model) = %s
        ) END,
        (SELECT text FROM conversations_summary WHERE message_id = path.parent_id),
        i.payload
    FROM path JOIN conversations_message m ON m.id = path.id
    LEFT JOIN conversations_run r ON r.reply_id = path.id
    LEFT JOIN conversations_item i ON i.run_id = r.id
    ORDER BY path.depth, i.position
"""


def read_path(run: Run, leaf: UUID, limit: int) -> Path:
    """The branch that ends at `leaf`, the run's prompt or reply; at most `limit` turns of it."""
    if leaf == run.prompt_id and run.prompt.parent_id is None:
        earlier = run.prompt.runs.exclude(context_refused=None).values_list("context_refused")
        given = Q(context_model=run.model) | Q(context_model="", model=run.model)
        refused = earlier.filter(given, agent=run.agent).first()
        gauge = Gauge(run.agent, run.model, refused=refused[0]) if refused else None
        return Path([Turn(leaf, text=run.prompt.text, gauge=gauge)], None)
    key = Message._meta.pk.get_db_prep_value
    with connection.cursor() as cursor:
        cursor.execute(READ_PATH, [key(leaf, connection), limit, run.agent, run.model])
        rows = cursor.fetchall()
    turns: dict[Any, Turn] = {}
    for row in rows:
        turn = turns.get(row[0]) or turns.setdefault(row[0], _turn(run, row))
        if row[-1] is not None:
            turn.items.append(json.loads(row[-1]))
    before, summary = rows[-1][1], rows[-1][-2]
    missing = None if before is None else ""
    return Path(list(turns.values()), missing if summary is None else summary)


def _turn(run: Run, row: tuple[Any, ...]) -> Turn:
    pk, _, role, parts, agent, model, estimate, measured, refused, before, *_ = row
    message_id = Message._meta.pk.to_python(pk)
    if role == Role.USER:
        gauge = Gauge(run.agent, run.model, refused=before) if before is not None else None
        return Turn(message_id, text=join_text(json.loads(parts)), gauge=gauge)
    gauge = None if agent is None else Gauge(agent, model, estimate, measured, refused)
    return Turn(message_id, gauge=gauge)
