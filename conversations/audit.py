"""The audit log: who of the staff looked at, changed or took away somebody's data."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast

from conversations.review_models import AuditAction, AuditEntry

STEP = 500


def record(
    actor: AbstractBaseUser | AnonymousUser | None,
    action: AuditAction,
    session_id: UUID | None = None,
    **detail: Any,
) -> None:
    """Write one entry; `actor` None for what the site did by itself."""
    AuditEntry.objects.create(
        actor_id=actor.pk if actor else None, action=action, session_id=session_id, detail=detail
    )


def record_each(
    actor: AbstractBaseUser | AnonymousUser | None,
    action: AuditAction,
    session_ids: Sequence[UUID],
    **detail: Any,
) -> None:
    """One entry for each session, so that the log of a session is whole.

    In transactions of at most `STEP` rows, unless the caller has one around it.
    """
    actor_id = actor.pk if actor else None
    for start in range(0, len(session_ids), STEP):
        AuditEntry.objects.bulk_create(
            [
                AuditEntry(actor_id=actor_id, action=action, session_id=session_id, detail=detail)
                for session_id in session_ids[start : start + STEP]
            ]
        )


def record_list(actor: AbstractBaseUser | AnonymousUser, session_ids: Sequence[UUID]) -> None:
    """One entry for a page of a list that showed titles: an entry for each would fill the log."""
    if session_ids:
        record(actor, AuditAction.LISTED, sessions=[str(pk) for pk in session_ids])


def entries_about(entries: QuerySet[AuditEntry], session_id: UUID) -> QuerySet[AuditEntry]:
    """Those of a session, pages of lists with its title among them."""
    listed = entries.filter(action=AuditAction.LISTED).annotate(words=Cast("detail", TextField()))
    pages = listed.filter(words__contains=str(session_id)).values("pk")
    return entries.filter(Q(session_id=session_id) | Q(pk__in=pages))
