"""What a worker reads to begin or resume a run: the turns, their items, the answers."""

import json
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Q

from conversations.models import (
    Approval,
    Decision,
    Message,
    Role,
    Run,
    RunEvent,
    RunState,
    join_text,
)
from conversations.models import Item as ItemRow
from conversations.queries import read_parts
from conversations.sessions.parts import PartsFolder

Item = dict[str, Any]

CALL = "function_call"
OUTPUT = "function_call_output"
REASONING = "reasoning"

STOPPED_OUTPUT = "The user stopped this before it had finished."
LOST_OUTPUT = "The server stopped before this had finished."


def mend(items: Iterable[Item], missing: str = STOPPED_OUTPUT) -> list[Item]:
    """Every call followed by its output, under an id that occurs once; `missing` where it has none.

    Calls that stand together were made together: their outputs come after the last of them.
    Outputs without a call are left out.
    """
    items = list(items)
    outputs = _outputs(items)
    mended: list[Item] = []
    answers: list[Item] = []
    taken: set[str] = set()
    for item in items:
        if item.get("type") != CALL:
            mended += answers
            answers = []
        if item.get("type") == CALL:
            waiting = outputs[item["call_id"]]
            answer = waiting.popleft() if waiting else {"type": OUTPUT, "output": missing}
            call_id = _fresh(item["call_id"], taken)
            mended.append(item | {"call_id": call_id})
            answers.append(answer | {"call_id": call_id})
        elif item.get("type") != OUTPUT:
            mended.append(item)
    return mended + answers


def _outputs(items: list[Item]) -> dict[str, deque[Item]]:
    """By id, in order: some servers give the same one to a call in every turn."""
    outputs: dict[str, deque[Item]] = defaultdict(deque)
    for item in items:
        if item.get("type") == OUTPUT:
            outputs[item["call_id"]].append(item)
    return outputs


def _fresh(call_id: str, taken: set[str]) -> str:
    number, fresh = 1, call_id or "call"
    while fresh in taken:
        number += 1
        fresh = f"{call_id or 'call'}_{number}"
    taken.add(fresh)
    return fresh


def text_items(text: str) -> list[Item]:
    """The model's own text, if there is any."""
    return [{"role": "assistant", "content": text}] if text else []


def items_of_parts(parts: Iterable[dict[str, Any]]) -> list[Item]:
    """What the model is told of a reply whose own items were lost with its worker."""
    items: list[Item] = []
    for part in parts:
        if part["type"] == "text":
            items += text_items(part["text"])
        elif part["type"] == "tool":
            items += _pair(part)
    return mend(items, LOST_OUTPUT)


def _pair(part: dict[str, Any]) -> list[Item]:
    call_id = part["tool_call_id"]
    arguments = whole_json(part.get("arguments") or "")
    call = {"type": CALL, "call_id": call_id, "name": part["name"], "arguments": arguments}
    output = part.get("output")
    return [call, {"type": OUTPUT, "call_id": call_id, "output": output}] if output else [call]


def whole_json(arguments: str) -> str:
    """`arguments`, or an empty object for what is no JSON, such as the beginning of long ones.

    Models refuse it.
    """
    try:
        json.loads(arguments)
    except ValueError:
        return "{}"
    return arguments


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


@dataclass(frozen=True)
class RequestAnswer:
    """What was decided about the call with `args_hash`; `message` is for the model."""

    tool_call_id: str
    args_hash: str
    approved: bool
    message: str


@dataclass(frozen=True)
class Resumption:
    """The SDK's state, the answers in the order of the requests, and what there was before.

    `agent` is the one that has asked; `items` are what the model is given if nothing is added.
    """

    state: dict[str, Any]
    answers: list[RequestAnswer]
    folder: PartsFolder
    items: list[dict[str, Any]]
    agent: str


def load_resumption(run: Run) -> Resumption | None:
    """What a worker needs to go on with a run that has awaited input; counts the attempt."""
    state = RunState.objects.filter(run_id=run.pk).first()
    if state is None:
        return None
    state.attempts += 1
    state.save(update_fields=["attempts"])
    asked = Approval.objects.filter(run_id=run.pk, seq__gte=state.seq).order_by("seq")
    items = ItemRow.objects.filter(run_id=run.pk).order_by("position")
    return Resumption(
        state=json.loads(state.payload),
        answers=[_answer(approval) for approval in asked],
        folder=read_parts(run),
        items=list(items.values_list("payload", flat=True)),
        agent=_last_agent(run),
    )


def _last_agent(run: Run) -> str:
    changes = RunEvent.objects.filter(run_id=run.pk, epoch=run.epoch, kind="agent.changed")
    last = changes.order_by("-seq").first()
    return last.payload["name"] if last else run.agent


def _answer(approval: Approval) -> RequestAnswer:
    approved = approval.decision == Decision.APPROVE
    return RequestAnswer(approval.tool_call_id, approval.args_hash, approved, approval.message)
