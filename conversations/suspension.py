"""A run that awaits its user's answers, from its requests until it is queued again or expires."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from conversations.changes import (
    ChangeBuilder,
    EventRow,
    RunLostError,
    lock_run,
    update_reply,
    write_events,
    write_items,
)
from conversations.lifecycle import Claimed
from conversations.models import Approval, EndReason, Run, RunState, RunStatus
from conversations.notify import RunAdvanced
from conversations.shapes import request_payload
from conversations.text import clean_text
from conversations.unowned import end_unowned
from conversations.usage import UNKNOWN_USAGE, TokenUsage, usage_columns


@dataclass(frozen=True)
class Request:
    """A tool call that needs approval; `description` says what the tool does."""

    tool_call_id: str
    tool: str
    arguments: str
    description: str = ""

    @property
    def args_hash(self) -> str:
        """What a decision is bound to: the tool and its exact arguments."""
        asked = json.dumps([self.tool, self.arguments])
        return hashlib.sha256(asked.encode()).hexdigest()


@dataclass(frozen=True)
class Suspension:
    """What a run has come to; `items` are what the model is given if it never goes on.

    `state` is what the SDK goes on from, as JSON.
    """

    requests: Sequence[Request]
    state: dict[str, Any]
    items: list[dict[str, Any]]
    expires_in: timedelta
    usage: TokenUsage = UNKNOWN_USAGE
    first_token_at: datetime | None = None
    last_token_at: datetime | None = None
    retries: int = 0


@transaction.atomic
def suspend_run(
    claimed: Claimed, *, last_seq: int, events: Sequence[EventRow], suspension: Suspension
) -> bool:
    """Write the last events, the requests and the state, and give up the lease.

    `last_seq` is the last one committed, `events` go on from it. False, and nothing written, when
    the run was asked to stop meanwhile. Raises `RunLostError`.
    """
    change, run = lock_run(claimed.run.pk, claimed.run.session_id)
    if run is None or (run.claim, run.last_seq) != (claimed.run.claim, last_seq):
        raise RunLostError
    if run.cancel_requested_at is not None:
        transaction.set_rollback(True)
        return False
    first = last_seq + len(events) + 1
    asked = _make_approvals(run, suspension, first)
    rows = [*events, *((row.seq, "input.requested", request_payload(row)) for row in asked)]
    _give_up_lease(run, suspension, rows[-1][0])
    write_events(run, rows)
    Approval.objects.bulk_create(asked)
    write_items(run, suspension.items)
    kept = {"seq": first, "payload": json.dumps(suspension.state), "attempts": 0}
    RunState.objects.update_or_create(run_id=run.pk, defaults=kept)
    update_reply(change, run)
    change.add(RunAdvanced(run, rows))
    change.announce("activity")
    return True


def _make_approvals(run: Run, suspension: Suspension, first: int) -> list[Approval]:
    now = timezone.now()
    return [
        Approval(
            run=run,
            seq=seq,
            tool_call_id=request.tool_call_id,
            tool=request.tool,
            description=clean_text(request.description),
            arguments=clean_text(request.arguments),
            args_hash=request.args_hash,
            created_at=now,
            expires_at=now + suspension.expires_in,
        )
        for seq, request in enumerate(suspension.requests, first)
    ]


def _give_up_lease(run: Run, suspension: Suspension, last_seq: int) -> None:
    """Fenced once more: a commit of text does not take the session's lock."""
    mine = Run.objects.filter(
        pk=run.pk, claim=run.claim, last_seq=run.last_seq, status=RunStatus.RUNNING
    )
    fields = {
        **usage_columns(suspension.usage, run.model),
        "status": RunStatus.AWAITING_INPUT,
        "last_seq": last_seq,
        "first_token_at": suspension.first_token_at,
        "last_token_at": suspension.last_token_at,
        "retries": suspension.retries,
        "worker": "",
        "lease_until": None,
    }
    if not mine.update(**fields):
        raise RunLostError
    for name, value in fields.items():
        setattr(run, name, value)


@transaction.atomic
def expire_run(run_id: UUID) -> UUID | None:
    """End a run whose requests were not answered in time; the id of the session's next run."""
    change, run = lock_run(run_id)
    if run is None or not has_expired(run):
        transaction.set_rollback(True)
        return None
    end_expired(change, run)
    change.announce("activity")
    return change.claimable


def end_expired(change: ChangeBuilder, run: Run) -> None:
    """The model is not asked again: what was said is the reply."""
    end_unowned(change, run, RunStatus.INTERRUPTED, EndReason.APPROVAL_EXPIRED)


def has_expired(run: Run) -> bool:
    """Whether it awaits an answer that should have come by now, by the database's clock."""
    late = Approval.objects.filter(run_id=run.pk, decision="", expires_at__lt=Now())
    return run.status == RunStatus.AWAITING_INPUT and late.exists()
