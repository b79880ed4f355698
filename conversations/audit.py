"""The audit log: who of the staff looked at, changed or took away somebody's data."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser

from conversations.review_models import AuditAction, AuditEntry


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
    """One entry for each session, so that the log of a session is whole."""
    actor_id = actor.pk if actor else None
    AuditEntry.objects.bulk_create(
        [
            AuditEntry(actor_id=actor_id, action=action, session_id=session_id, detail=detail)
            for session_id in session_ids
        ],
        batch_size=500,
    )
