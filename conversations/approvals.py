"""What people decide about tool calls that need their approval."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from django.db.models import QuerySet
from django.utils import timezone

from conversations import run_states
from conversations.changes import ChangeBuilder, RunLostError, locked_run
from conversations.errors import AgentSiteError, ErrorCode
from conversations.lifecycle import has_expired
from conversations.models import Approval, ChatSession
from conversations.queries import User, parse_id, sessions_of
from conversations.shapes import ApprovalView, RunRef, approval_view, resolved_payload, run_ref
from conversations.text import clean_text

Verdict = Literal["approve", "reject"]
VERDICTS: tuple[Verdict, ...] = ("approve", "reject")

MESSAGE_LENGTH = 2_000


@dataclass(frozen=True)
class Decided:
    """What holds now; `duplicate` when it had been decided before."""

    approval: ApprovalView
    run: RunRef
    duplicate: bool


def list_approvals(session: ChatSession) -> list[ApprovalView]:
    """Every request of the session's runs, oldest first."""
    rows = Approval.objects.filter(run__session=session).select_related("run", "decided_by")
    return [approval_view(row) for row in rows.order_by("created_at", "seq")]


def _approvals_of(user: User) -> QuerySet[Approval]:
    rows = Approval.objects.filter(run__session__in=sessions_of(user))
    return rows.select_related("run", "decided_by")


def decide(
    *,
    user: User,
    request_id: str,
    verdict: Verdict,
    message: str = "",
    session_id: str | None = None,
    viewed_for: timedelta | None,
) -> Decided:
    """Answer a request; the run is queued again with its last answer.

    What was decided before, or has ended meanwhile, stays as it is. Somebody watches for at least
    `viewed_for`, as for `post_chat`. Raises `AgentSiteError(not_found)`.
    """
    mine = _approvals_of(user)
    if session_id is not None:
        mine = mine.filter(run__session_id=parse_id(session_id))
    found = mine.filter(pk=parse_id(request_id)).first()
    if found is None:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    if found.decision:
        return _decided(found, duplicate=True)
    with suppress(RunLostError), locked_run(found.run_id, found.run.session_id) as (change, run):
        approval = mine.get(pk=found.pk)
        if approval.decision:
            raise RunLostError("decided meanwhile")
        if has_expired(run):
            run_states.expire(change, run)
        else:
            approval.run = run
            _record(approval, user, verdict, message)
            _write_answer(change, approval, viewed_for)
        return _decided(mine.get(pk=found.pk), duplicate=approval.decided_by is None)
    # Its session may have been deleted meanwhile.
    if (found := mine.filter(pk=found.pk).first()) is None:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    return _decided(found, duplicate=True)


def _decided(approval: Approval, *, duplicate: bool) -> Decided:
    return Decided(approval_view(approval), run_ref(approval.run), duplicate)


def _record(approval: Approval, user: User, verdict: Verdict, message: str) -> None:
    approval.decision = verdict
    approval.decided_by_id = user.pk
    approval.decided_at = timezone.now()
    approval.message = clean_text(message.strip())[:MESSAGE_LENGTH]
    approval.save(update_fields=["decision", "decided_by", "decided_at", "message"])


def _write_answer(change: ChangeBuilder, approval: Approval, viewed_for: timedelta | None) -> None:
    """Write the answer to the journal; with the last one the run is queued."""
    is_last = not Approval.objects.filter(run_id=approval.run_id, decision="").exists()
    event = "input.resolved", resolved_payload(approval)
    run_states.answer(change, approval.run, event, is_last=is_last)
    if is_last:
        change.session.viewed_until = None if viewed_for is None else timezone.now() + viewed_for
        change.session.save(update_fields=["viewed_until"])
