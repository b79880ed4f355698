"""Where a run goes on whose requests have been answered."""

import json
from dataclasses import dataclass
from typing import Any

from conversations.models import Approval, Decision, Item, Run, RunEvent, RunState
from conversations.parts import PartsFolder
from conversations.queries import read_parts


@dataclass(frozen=True)
class Answer:
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
    answers: list[Answer]
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
    items = Item.objects.filter(run_id=run.pk).order_by("position")
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


def _answer(approval: Approval) -> Answer:
    approved = approval.decision == Decision.APPROVE
    return Answer(approval.tool_call_id, approval.args_hash, approved, approval.message)
