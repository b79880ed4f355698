"""Deleting for good: what is too old, and all there is of one person."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.models import Session
from django.db import connection, transaction
from django.db.models import Exists, Field, OuterRef, Q, QuerySet
from django.utils import timezone

from conversations.apps import restore_days, retention_days
from conversations.changes import lock_runs
from conversations.errors import AgentSiteError
from conversations.models import (
    ACTIVE,
    ApiKey,
    AuditAction,
    ChatSession,
    Feedback,
    Run,
    Share,
    SiteUsage,
    SocketTicket,
    UserUsage,
)
from conversations.people import accounts
from conversations.runs.usage import find_slot
from conversations.sessions.lists import delete_session

SESSIONS_A_BATCH = 20
"""Few, because on SQLite nobody else writes meanwhile."""

GUESTS_A_BATCH = 100

USAGE_KEPT = timedelta(days=2)
"""Of what a user has spent when; limits look back one day."""


def list_expired(now: datetime) -> QuerySet[ChatSession]:
    """Sessions that have been deleted for `RESTORE_DAYS`, or quiet for `RETENTION_DAYS`.

    One with a reply at work is not among them.
    """
    expired = Q(deleted_at__lt=now - timedelta(days=restore_days()))
    if (kept := retention_days()) is not None:
        expired |= Q(active_at__lt=now - timedelta(days=kept))
    at_work = Run.objects.filter(session=OuterRef("pk"), status__in=ACTIVE)
    return ChatSession.objects.filter(expired).exclude(Exists(at_work))


def purge() -> int:
    """Delete what is too old; how many sessions that were."""
    deleted = sum(_delete_sessions(list_expired(timezone.now())))
    Session.objects.filter(expire_date__lt=timezone.now()).delete()
    SocketTicket.objects.filter(expires_at__lt=timezone.now()).delete()
    for usage in (UserUsage, SiteUsage):
        usage._default_manager.filter(slot__lt=find_slot(timezone.now() - USAGE_KEPT)).delete()
    if deleted:
        forget_words()
        accounts.record(None, AuditAction.PURGED, sessions=deleted)
    _delete_guests(timezone.now())
    return deleted


def _delete_sessions(sessions: QuerySet[ChatSession]) -> Iterator[int]:
    """With all that hangs on them, in small transactions; the size of each."""
    # Locked, so that nobody writes in one between the look at it and its end.
    ids = sessions.order_by("pk").select_for_update().values_list("pk", flat=True)
    while True:
        with transaction.atomic():
            batch = list(ids[:SESSIONS_A_BATCH])
            lock_runs(batch)
            ChatSession.objects.filter(pk__in=batch).delete()
        if not batch:
            return
        yield len(batch)


def _delete_guests(now: datetime) -> None:
    """Visitors of some time ago who have left nothing."""
    since = now - timedelta(seconds=settings.SESSION_COOKIE_AGE)
    users = get_user_model()._default_manager
    lost = users.filter(guest__created_at__lt=since, chat_sessions=None).order_by("pk")
    while batch := list(lost.values_list("pk", flat=True)[:GUESTS_A_BATCH]):
        users.filter(pk__in=batch).delete()


def erase_user(user: AbstractBaseUser, *, by: AbstractBaseUser | None = None) -> int:
    """Delete the account and all there is of this person; how many sessions there were.

    The audit log says that it was done, and `by` whom of the staff; None for a command. Replies at
    work are stopped, sockets are closed; entries of the audit log stay, without a name.
    Raises `ProtectedError` or `RestrictedError` at the very end where rows of another app keep the
    account, which is disabled then.
    """
    users = get_user_model()._default_manager.filter(pk=user.pk)
    users.update(is_active=False)
    theirs = ChatSession.objects.filter(owner_id=user.pk)
    for session_id in list(theirs.filter(deleted_at=None).values_list("pk", flat=True)):
        _take_off_lists(user, session_id)
    deleted = sum(_delete_sessions(theirs))
    _end_sign_ins(user.pk)
    _forget_admin_log(user.pk)
    forget_words()
    accounts.record(by, AuditAction.ERASED, sessions=deleted)
    users.delete()
    return deleted


def _take_off_lists(user: AbstractBaseUser, session_id: UUID) -> None:
    with suppress(AgentSiteError):  # deleted meanwhile
        delete_session(user=user, session_id=str(session_id))


def _end_sign_ins(user_id: Any) -> None:
    """Sign-ins name their user inside their data alone."""
    for session in Session.objects.iterator(chunk_size=500):
        if str(session.get_decoded().get("_auth_user_id")) == str(user_id):
            session.delete()


def _forget_admin_log(user_id: Any) -> None:
    """The admin's own log names the accounts that were changed there."""
    if apps.is_installed("django.contrib.admin"):
        account = get_user_model()._meta
        kind = {
            "content_type__app_label": account.app_label,
            "content_type__model": account.model_name,
        }
        entries = apps.get_model("admin", "LogEntry")._default_manager
        entries.filter(**kind, object_id=str(user_id)).delete()


def forget_words() -> None:
    """SQLite's index keeps the words of what was deleted until its parts are merged."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO conversations_searchindex (conversations_searchindex)"
                " VALUES ('optimize')"
            )


def _readable(field: Field, user: AbstractBaseUser) -> Any:
    """A value as JSON takes it; of those that it does not know, such as a file, their text."""
    value = field.value_from_object(user)
    known = isinstance(value, str | int | float | date | UUID | None)
    return value if known else field.value_to_string(user)


def read_account(user: AbstractBaseUser) -> dict[str, Any]:
    """What is kept of a person beside conversations; no secrets."""
    fields = [field for field in user._meta.concrete_fields if field.name != "password"]
    return {
        "account": {field.name: _readable(field, user) for field in fields},
        "shares": list(
            Share.objects.filter(session__owner_id=user.pk).values(
                "session_id", "created_at", "revoked_at"
            )
        ),
        "feedback": list(
            Feedback.objects.filter(user_id=user.pk).values(
                "message_id", "value", "comment", "created_at", "updated_at"
            )
        ),
        "api_keys": list(
            ApiKey.objects.filter(owner_id=user.pk).values(
                "name", "prefix", "scopes", "created_at", "last_used_at", "expires_at", "revoked_at"
            )
        ),
    }
