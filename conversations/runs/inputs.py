"""What a worker reads to start or resume a run: turns, their items, decided approvals, steps."""

import json
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NotRequired, TypedDict
from uuid import UUID

from django.db import connection

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
from conversations.sessions.parts import PartsFolder, fold

Item = dict[str, Any]

CALL = "function_call"
OUTPUT = "function_call_output"
REASONING = "reasoning"

STOPPED_OUTPUT = "The user stopped this before it had finished."
LOST_OUTPUT = "The server stopped before this had finished."


def mend(items: Iterable[Item], missing: str = STOPPED_OUTPUT) -> list[Item]:
    """Return a list of `items` with an output for each call, and a call id that no other call has.

    Each output follows its call; those of adjacent calls, which were made together, follow the last
    of these calls. A call without an output gets one with the text `missing`. Outputs without a
    call are dropped. Of calls with the same id, the first has the first output with it, and so on,
    and later calls get a new id with their output. The given items are not changed.
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
    """Return the outputs by call id, in order: some servers reuse the same ids in every turn."""
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
    """Return a list with the one item for a text of the model; [] for an empty text."""
    return [{"role": "assistant", "content": text}] if text else []


def items_of_parts(parts: Iterable[dict[str, Any]]) -> list[Item]:
    """Build the model's items from the parts of a reply, for replies without stored items.

    Only text and tool calls become items, and call ids are made unique. A call whose part has no
    output (None; "" is an output) gets `LOST_OUTPUT`; arguments that are not valid JSON, as when
    they were shortened, become "{}".
    """
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
    if output is None:
        return [call]
    return [call, {"type": OUTPUT, "call_id": call_id, "output": output}]


def whole_json(arguments: str) -> str:
    """Return `arguments`, or "{}" if they are not valid JSON: empty, or shortened.

    Models reject invalid JSON.
    """
    try:
        json.loads(arguments)
    except ValueError:
        return "{}"
    return arguments


@dataclass(frozen=True)
class Gauge:
    """The tokens of the first input of a run by `agent` and `model`; None if not known.

    `estimate` is our estimate of what was sent, `measured` the provider's count of the same input,
    `refused` our estimate of an input that the model refused as too long.
    """

    agent: str
    model: str
    estimate: int | None = None
    measured: int | None = None
    refused: int | None = None


@dataclass(frozen=True)
class Turn:
    """One message as the model is to see it: a user's `text`, or the `items` of a reply.

    A reply's `text` is None, and its `gauge` is that of its run. A prompt has a `gauge` only if it
    is the newest turn and the model refused the input of another run for it, by the same agent and
    model; then only `refused` is set, to the smallest such estimate.
    """

    message_id: UUID
    text: str | None = None
    items: list[dict[str, Any]] = field(default_factory=list)
    gauge: Gauge | None = None


def items_of(turn: Turn) -> list[Item]:
    """Return the input items of one turn: one for a prompt, the list `turn.items` for a reply."""
    return turn.items if turn.text is None else [{"role": "user", "content": turn.text}]


@dataclass(frozen=True)
class Path:
    """A branch from one of its messages back to the latest summary, the limit, or the beginning.

    `turns` are newest first. `summary` stands for all messages before them; None if there are no
    messages before them, "" if these are left out without a text in their place. `instructions` are
    the user's own for agents; "" for none.
    """

    turns: list[Turn]
    summary: str | None
    instructions: str = ""


INSTRUCTIONS = "(SELECT instructions FROM conversations_preferences WHERE user_id = %s)"

# One statement, because the first token waits for it: the ORM needed seven statements, and twice
# the time of everything else. The recursion ends below the message that has a summary.
READ_PATH = f"""
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
        i.payload, CASE WHEN path.depth = 1 THEN {INSTRUCTIONS} END
    FROM path JOIN conversations_message m ON m.id = path.id
    LEFT JOIN conversations_run r ON r.reply_id = path.id
    LEFT JOIN conversations_item i ON i.run_id = r.id
    ORDER BY path.depth, i.position
"""  # noqa: S608

READ_REFUSED = f"""
    SELECT MIN(context_refused), {INSTRUCTIONS} FROM conversations_run
    WHERE prompt_id = %s AND agent = %s AND COALESCE(NULLIF(context_model, ''), model) = %s
"""  # noqa: S608


def read_path(run: Run, leaf: UUID, limit: int) -> Path:
    """Read the last turns of the branch that ends at `leaf`, at most `limit`.

    Stops below the latest message before `leaf` that has a summary; the summary stands for that
    message and all before it. `leaf` is the prompt or the reply of `run`, which is not checked; the
    prompt must be loaded.
    """
    pk = Message._meta.pk.get_db_prep_value(leaf, connection)
    user = Run._meta.get_field("owner").get_db_prep_value(run.owner_id, connection)
    with connection.cursor() as cursor:
        if leaf == run.prompt_id and run.prompt.parent_id is None:
            cursor.execute(READ_REFUSED, [user, pk, run.agent, run.model])
            refused, own = cursor.fetchone()
            gauge = None if refused is None else Gauge(run.agent, run.model, refused=refused)
            return Path([Turn(leaf, text=run.prompt.text, gauge=gauge)], None, own or "")
        cursor.execute(READ_PATH, [pk, limit, run.agent, run.model, user])
        rows = cursor.fetchall()
    turns: dict[Any, Turn] = {}
    for row in rows:
        turn = turns.get(row[0]) or turns.setdefault(row[0], _turn(run, row))
        if (item := row[-2]) is not None:
            turn.items.append(json.loads(item))
    _, before, *_, summary, _, _ = rows[-1]
    *_, own = rows[0]
    missing = None if before is None else ""
    return Path(list(turns.values()), missing if summary is None else summary, own or "")


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
    """The decision about the tool call with `args_hash`.

    `approved` is False for every decision but `Decision.APPROVE`. `message` is for the model if
    the call was rejected; "" without one.
    """

    tool_call_id: str
    args_hash: str
    approved: bool
    message: str


class Spent(TypedDict):
    """The usage, the cost and the last model of a run so far: columns of its row, as JSON.

    `cost` is a decimal number as a string; None if it is not known.
    """

    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None
    reasoning_tokens: int | None
    usage_source: str
    cost: str | None
    model: str


class Step(TypedDict):
    """What the worker of a run keeps with an event, so that another worker can go on behind it.

    `items` are the reply's items since the step before: at most those of a model call, one call of
    a tool, and its output. Without `spent`, that of the step before counts.
    """

    items: list[Item]
    spent: NotRequired[Spent]


STREAMED_KINDS = ("token", "reasoning.delta")
TOOL_ENDS = ("tool.finished", "tool.failed")


@dataclass(frozen=True)
class Checkpoint:
    """The last event of a run behind which another worker can go on, and what that needs.

    `items` are the reply's items up to the event `seq`, with an output for each call, which is
    `LOST_OUTPUT` for one that has none; `spent` are columns of the run's row as `Spent` has them,
    {} if no step has them. `unfinished` are the calls that had begun and not finished, as payloads
    of `tool.failed`.
    """

    seq: int
    items: list[Item]
    spent: dict[str, Any]
    unfinished: list[dict[str, Any]]


StepRow = tuple[int, str, dict[str, Any], Step | None]
"""Seq, kind, payload and step of an event."""


def find_checkpoint(run: Run) -> Checkpoint | None:
    """Find the last event of a run behind which another worker can go on; None if it must not.

    It must not if a step is missing of what has happened: no step was kept at all, a tool that must
    not be called twice had begun and not finished, another agent took over in a way that cannot be
    repeated, or an answered request has not had its effect yet.
    """
    rows = RunEvent.objects.filter(run_id=run.pk, epoch=run.epoch).exclude(kind__in=STREAMED_KINDS)
    events = list(rows.order_by("seq").values_list("seq", "kind", "payload", "step"))
    steps: list[Step] = [step for *_, step in events if step is not None]
    seq = max((seq for seq, *_, step in events if step is not None), default=0)
    if not steps or not _is_whole(events, seq):
        return None
    items = mend((item for step in steps for item in step["items"]), LOST_OUTPUT)
    return Checkpoint(seq, items, _spent(steps), _list_unfinished(events))


def _is_whole(events: list[StepRow], last: int) -> bool:
    """Return whether no step is missing up to the seq `last`, nor has anything begun after it."""
    kept: dict[str, bool] = {}
    for seq, kind, payload, step in events:
        if kind == "tool.started":
            kept[payload["tool_call_id"]] = step is not None
        elif kind in TOOL_ENDS and step is not None:
            kept.pop(payload["tool_call_id"], None)
        elif kind in ("tool.finished", "agent.changed") and step is None:
            # A failure without a step is that of a call whose worker was lost.
            return False
        elif kind == "input.requested" and seq > last:
            return False
    return all(kept.values())


def _list_unfinished(events: list[StepRow]) -> list[dict[str, Any]]:
    unfinished: dict[str, dict[str, Any]] = {}
    for _, kind, payload, _ in events:
        if kind == "tool.started":
            call_id = payload["tool_call_id"]
            unfinished[call_id] = {"tool_call_id": call_id, "name": payload["name"]}
        elif kind in TOOL_ENDS:
            unfinished.pop(payload["tool_call_id"], None)
    return list(unfinished.values())


def _spent(steps: list[Step]) -> dict[str, Any]:
    """Return the columns of the last step that has them; {} if none has."""
    known = [step["spent"] for step in steps if "spent" in step]
    if not known:
        return {}
    cost = known[-1]["cost"]
    return {**known[-1], "cost": None if cost is None else Decimal(cost)}


@dataclass(frozen=True)
class Resumption:
    """What a run is resumed from: after it was suspended, or behind the steps of a lost worker.

    `state` is the SDK's state, and `answers` are the decisions in the order of the requests.
    Without `state`, `answers` is empty, and the run goes on behind `checkpoint`, which is None
    otherwise. `folder` has the parts shown up to there, `items` are the reply's items up to there,
    and `agent` is the name of the agent that is to go on.
    """

    folder: PartsFolder
    items: list[dict[str, Any]]
    agent: str
    state: dict[str, Any] | None = None
    answers: list[RequestAnswer] = field(default_factory=list)
    checkpoint: Checkpoint | None = None


def load_resumption(run: Run) -> Resumption | None:
    """Read what a worker needs to resume a run, and count the attempt in its `RunState`, if any.

    Returns None if the run starts anew: it has no `RunState`, and `find_checkpoint` finds nothing
    behind which it can go on.

    Call it in the transaction that claims the run.
    """
    state = RunState.objects.filter(run_id=run.pk).first()
    if state is None:
        return _load_checkpoint(run)
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


def _load_checkpoint(run: Run) -> Resumption | None:
    checkpoint = find_checkpoint(run)
    if checkpoint is None:
        return None
    kept = RunEvent.objects.filter(run_id=run.pk, epoch=run.epoch, seq__lte=checkpoint.seq)
    folder = fold(kept.order_by("seq").values_list("kind", "payload"))
    for call in checkpoint.unfinished:
        folder.apply("tool.failed", call)
    agent = _last_agent(run)
    return Resumption(folder, checkpoint.items, agent, checkpoint=checkpoint)


def _last_agent(run: Run) -> str:
    changes = RunEvent.objects.filter(run_id=run.pk, epoch=run.epoch, kind="agent.changed")
    last = changes.order_by("-seq").first()
    return last.payload["name"] if last else run.agent


def _answer(approval: Approval) -> RequestAnswer:
    approved = approval.decision == Decision.APPROVE
    return RequestAnswer(approval.tool_call_id, approval.args_hash, approved, approval.message)
