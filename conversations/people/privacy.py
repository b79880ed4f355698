"""Permanent deletion of what is too old or of one person's data, and the export of an account."""

import secrets
from collections.abc import Iterator
from contextlib import suppress
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.hashers import make_password
from django.contrib.sessions.models import Session
from django.db import connection, transaction
from django.db.models import (
    Exists,
    Field,
    Model,
    OuterRef,
    ProtectedError,
    Q,
    QuerySet,
    RestrictedError,
)
from django.forms.models import model_to_dict
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
    Guest,
    Preferences,
    PushDelivery,
    PushSubscription,
    Run,
    Share,
    SignOuts,
    SiteUsage,
    SocketTicket,
    UserUsage,
    WebhookDelivery,
)
from conversations.people import accounts
from conversations.runs.usage import find_slot
from conversations.sessions.lists import delete_session

SESSIONS_A_BATCH = 20
"""Few, because on SQLite no other connection can write during the transaction."""

GUESTS_A_BATCH = 100

USAGE_KEPT = timedelta(days=2)
"""How long rows of used tokens are kept; limits look back one day."""

DELIVERIES_KEPT = timedelta(days=30)
"""How long rows of webhooks are kept, delivered or not."""

PUSHES_KEPT = timedelta(days=1)
"""How long notifications are kept after the attempt that was due; only lost ones get so old."""

OWNED: list[tuple[type[Model], str]] = [
    (ApiKey, "owner"),
    (SocketTicket, "user"),
    (SignOuts, "user"),
    (UserUsage, "user"),
    (Preferences, "user"),
    (PushSubscription, "owner"),
    (Guest, "user"),
]
"""What belongs to an account and to none of its sessions, and the column that names the account."""


def list_expired(now: datetime) -> QuerySet[ChatSession]:
    """Return sessions deleted more than `RESTORE_DAYS` before `now`, or inactive for too long.

    Too long is longer than `RETENTION_DAYS`, if that is set. Sessions with an active run are left
    out.
    """
    expired = Q(deleted_at__lt=now - timedelta(days=restore_days()))
    if (kept := retention_days()) is not None:
        expired |= Q(active_at__lt=now - timedelta(days=kept))
    at_work = Run.objects.filter(session=OuterRef("pk"), status__in=ACTIVE)
    return ChatSession.objects.filter(expired).exclude(Exists(at_work))


def purge() -> int:
    """Delete for good what has expired; return how many sessions were deleted.

    Deletes the sessions of `list_expired`, expired sign-ins and tickets, rows of used tokens older
    than `USAGE_KEPT`, deliveries of webhooks older than `DELIVERIES_KEPT`, notifications that were
    due more than `PUSHES_KEPT` ago, settings and subscriptions of accounts that are gone, and
    guests without sessions who were made more than SESSION_COOKIE_AGE seconds ago, except those
    whom rows of another app protect. If sessions were deleted, the audit log gets one entry with
    their number.
    """
    deleted = sum(_delete_sessions(list_expired(timezone.now())))
    Session.objects.filter(expire_date__lt=timezone.now()).delete()
    SocketTicket.objects.filter(expires_at__lt=timezone.now()).delete()
    WebhookDelivery.objects.filter(created_at__lt=timezone.now() - DELIVERIES_KEPT).delete()
    PushDelivery.objects.filter(due_at__lt=timezone.now() - PUSHES_KEPT).delete()
    _delete_ownerless()
    for usage in (UserUsage, SiteUsage):
        usage._default_manager.filter(slot__lt=find_slot(timezone.now() - USAGE_KEPT)).delete()
    if deleted:
        optimize_search_index()
        accounts.record(None, AuditAction.PURGED, sessions=deleted)
    _delete_guests(timezone.now())
    return deleted


def _delete_sessions(sessions: QuerySet[ChatSession]) -> Iterator[int]:
    """Delete sessions with their rows in other tables, in small transactions; yield each's size."""
    # Locked, so that no chat is posted in a session between this read and its deletion.
    ids = sessions.order_by("pk").select_for_update().values_list("pk", flat=True)
    while True:
        with transaction.atomic():
            batch = list(ids[:SESSIONS_A_BATCH])
            lock_runs(batch)
            ChatSession.objects.filter(pk__in=batch).delete()
        if not batch:
            return
        yield len(batch)


def _delete_ownerless() -> None:
    """Delete what processes that do not know the tables left of the accounts they deleted."""
    users = get_user_model()._default_manager
    Preferences.objects.exclude(Exists(users.filter(pk=OuterRef("user_id")))).delete()
    PushSubscription.objects.exclude(Exists(users.filter(pk=OuterRef("owner_id")))).delete()


def _delete_guests(now: datetime) -> None:
    """Delete guests without sessions that were created more than SESSION_COOKIE_AGE ago.

    Those that rows of another app protect stay.
    """
    since = now - timedelta(seconds=settings.SESSION_COOKIE_AGE)
    users = get_user_model()._default_manager
    lost = users.filter(guest__created_at__lt=since, chat_sessions=None).order_by("pk")
    ids = list(lost.values_list("pk", flat=True)[:GUESTS_A_BATCH])
    while ids:
        _delete_unprotected(users.filter(pk__in=ids))
        ids = list(lost.filter(pk__gt=ids[-1]).values_list("pk", flat=True)[:GUESTS_A_BATCH])


def _delete_unprotected(users: QuerySet[Any]) -> None:
    try:
        users.delete()
    except (ProtectedError, RestrictedError):
        for user in users:
            with suppress(ProtectedError, RestrictedError):
                user.delete()


def disable_user(user: AbstractBaseUser) -> None:
    """Keep an account that is to be erased from signing in; its sockets are closed soon after."""
    get_user_model()._default_manager.filter(pk=user.pk).update(is_active=False)


def erase_user_by_id(user_id: str, *, by_id: str) -> int:
    """Erase the account `user_id` by `erase_user`; return 0 if there is none.

    The staff member `by_id` is the one that the audit log names, if that account still exists.
    """
    users = get_user_model()._default_manager
    user = users.filter(pk=user_id).first()
    return 0 if user is None else erase_user(user, by=users.filter(pk=by_id).first())


def erase_user(user: AbstractBaseUser, *, by: AbstractBaseUser | None = None) -> int:
    """Delete the account and all data of this person; return how many sessions were deleted.

    That number includes sessions that the person had deleted. Running replies are stopped; the
    person's sockets are closed at the poller's next check. The audit log gets an entry with the
    staff member `by` (None for a command); its older entries stay, without the person's name.
    Raises `ProtectedError` or `RestrictedError` if rows of another app that may not be deleted
    refer to the account: then the person's data in this app has been deleted, and the account is
    disabled, called `erased-...`, and has lost its e-mail address, other names and password.
    """
    users = get_user_model()._default_manager.filter(pk=user.pk)
    disable_user(user)
    theirs = ChatSession.objects.filter(owner_id=user.pk)
    for session_id in list(theirs.filter(deleted_at=None).values_list("pk", flat=True)):
        _take_off_lists(user, session_id)
    deleted = sum(_delete_sessions(theirs))
    _end_sign_ins(user.pk)
    _forget_admin_log(user.pk)
    for model, owner in OWNED:
        model._default_manager.filter(**{owner: user.pk}).delete()
    optimize_search_index()
    accounts.record(by, AuditAction.ERASED, sessions=deleted)
    try:
        users.delete()
    except (ProtectedError, RestrictedError):
        users.update(**_no_name())
        raise
    return deleted


def _no_name() -> dict[str, str]:
    """Return values for those columns of an account that tell who it was, or sign in to it."""
    model, name = get_user_model(), f"erased-{secrets.token_hex(6)}"
    told = {model.get_email_field_name(), "first_name", "last_name"}
    fields = [field for field in model._meta.concrete_fields if field.name in told]
    values = {field.name: name if field.unique else "" for field in fields}
    return values | {model.USERNAME_FIELD: name, "password": make_password(None)}


def _take_off_lists(user: AbstractBaseUser, session_id: UUID) -> None:
    with suppress(AgentSiteError):  # deleted meanwhile
        delete_session(user=user, session_id=session_id)


def _end_sign_ins(user_id: Any) -> None:
    """Delete the user's sign-ins; reads all sign-ins, since only their data names the user."""
    for session in Session.objects.iterator(chunk_size=500):
        if str(session.get_decoded().get("_auth_user_id")) == str(user_id):
            session.delete()


def _forget_admin_log(user_id: Any) -> None:
    """Delete the entries about the account in the admin's own log, which contain its name."""
    if apps.is_installed("django.contrib.admin"):
        account = get_user_model()._meta
        kind = {
            "content_type__app_label": account.app_label,
            "content_type__model": account.model_name,
        }
        entries = apps.get_model("admin", "LogEntry")._default_manager
        entries.filter(**kind, object_id=str(user_id)).delete()


def optimize_search_index() -> None:
    """Merge SQLite's search index, which keeps words of deleted rows until it is merged.

    Does nothing on Postgres.
    """
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO conversations_searchindex (conversations_searchindex)"
                " VALUES ('optimize')"
            )


def _readable(field: Field, user: AbstractBaseUser) -> Any:
    """Return a value that JSON can hold; for other types, such as a file, its text."""
    value = field.value_from_object(user)
    known = isinstance(value, str | int | float | date | UUID | None)
    return value if known else field.value_to_string(user)


def read_account(user: AbstractBaseUser) -> dict[str, Any]:
    """Return the columns of an account, and the settings, shares, ratings and keys of its person.

    The keys are `account` and `preferences`, dictionaries, and `shares`, `feedback` and `api_keys`,
    lists of dictionaries. Left out are the password and the hashes of keys and shares; any other
    secret in a column of the site's own user model is not. Values are those of the rows, such as
    datetimes and UUIDs, which `DjangoJSONEncoder` can write; other types in `account` become text.
    """
    fields = [field for field in user._meta.concrete_fields if field.name != "password"]
    return {
        "account": {field.name: _readable(field, user) for field in fields},
        "preferences": model_to_dict(accounts.get_preferences(user), exclude=["user"]),
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
