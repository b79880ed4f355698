"""What people decide about tool calls that need their approval."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from conversations.changes import ChangeBuilder, lock_run, update_reply
from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import Approval, ChatSession, RunStatus
from conversations.notify import RunReady
from conversations.queries import User, parse_id, sessions_of
from conversations.shapes import ApprovalView, RunRef, approval_view, resolved_payload, run_ref
from conversations.suspension import end_expired, has_expired
from conversations.text import clean_text
from conversations.unowned import write_unowned

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


@transaction.atomic
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
    change, run = lock_run(found.run_id, found.run.session_id)
    approval = mine.get(pk=found.pk)
    if approval.decision or run is None:
        transaction.set_rollback(True)
        return _decided(approval, duplicate=True)
    if has_expired(run):
        end_expired(change, run)
    else:
        approval.run = run
        _record(approval, user, verdict, message)
        _go_on(change, approval, viewed_for)
    _announce(change)
    return _decided(mine.get(pk=found.pk), duplicate=approval.decided_by is None)


def _decided(approval: Approval, *, duplicate: bool) -> Decided:
    return Decided(approval_view(approval), run_ref(approval.run), duplicate)


def _record(approval: Approval, user: User, verdict: Verdict, message: str) -> None:
    approval.decision = verdict
    approval.decided_by_id = user.pk
    approval.decided_at = timezone.now()
    approval.message = clean_text(message.strip())[:MESSAGE_LENGTH]
    approval.save(update_fields=["decision", "decided_by", "decided_at", "message"])


def _go_on(change: ChangeBuilder, approval: Approval, viewed_for: timedelta | None) -> None:
    """Tell of the answer; with the last one the run is queued, before all that waits."""
    run, event = approval.run, ("input.resolved", resolved_payload(approval))
    if Approval.objects.filter(run_id=run.pk, decision="").exists():
        write_unowned(change, run, [event])
        return
    write_unowned(change, run, [event], status=RunStatus.QUEUED, queued_at=timezone.now())
    update_reply(change, run)
    change.session.viewed_until = None if viewed_for is None else timezone.now() + viewed_for
    change.session.save(update_fields=["viewed_until"])


def _announce(change: ChangeBuilder) -> None:
    if change.claimable is not None:
        change.add(RunReady(change.claimable))
    change.announce("activity")
