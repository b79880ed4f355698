"""Guests, people's own settings, API keys, random tokens, and the audit log."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast
from django.utils import timezone

from conversations.changes import ChangeBuilder, lock_runs, lock_session
from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import (
    ApiKey,
    Approval,
    AuditAction,
    AuditEntry,
    ChatSession,
    Feedback,
    Guest,
    Preferences,
    PushSubscription,
    Run,
)
from conversations.queries import User, parse_id
from conversations.runs.usage import move_user_totals
from conversations.shapes import UserId
from conversations.text import clean_text

TOKEN_BYTES = 32


def make_token() -> str:
    """Return a new secret of 256 random bits that can be part of a URL."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def hash_token(token: str) -> str:
    """Return the SHA-256 of a text, in hexadecimal, which is what is stored of a token.

    With 256 random bits it need not be a slow hash; for what people choose it is too fast.
    """
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


STEP = 500


def record(
    actor: AbstractBaseUser | AnonymousUser | None,
    action: AuditAction,
    session_id: UUID | None = None,
    **detail: Any,
) -> None:
    """Write one entry of the audit log; `actor` None: a command or the site itself.

    `session_id` None: it is about no one session. `detail` must be what JSON can hold, without text
    of a conversation.
    """
    AuditEntry.objects.create(
        actor_id=actor.pk if actor else None, action=action, session_id=session_id, detail=detail
    )


def record_each(
    actor: AbstractBaseUser | AnonymousUser | None,
    action: AuditAction,
    session_ids: Sequence[UUID],
    **detail: Any,
) -> None:
    """Write one entry of the audit log for each session, so that each session's log is complete.

    Written in batches of `STEP` rows, each a transaction of its own unless one is open already.
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
    """Write one entry of the audit log for all sessions whose titles `actor` saw on a page.

    One for each session would fill the log. Without sessions, writes none.
    """
    if session_ids:
        record(actor, AuditAction.LISTED, sessions=[str(pk) for pk in session_ids])


def entries_about(entries: QuerySet[AuditEntry], session_id: UUID) -> QuerySet[AuditEntry]:
    """Return those of `entries` about a session, and the `LISTED` ones that name it.

    A `LISTED` entry is about all sessions whose titles somebody saw on one page.
    """
    listed = entries.filter(action=AuditAction.LISTED).annotate(words=Cast("detail", TextField()))
    pages = listed.filter(words__contains=str(session_id)).values("pk")
    return entries.filter(Q(session_id=session_id) | Q(pk__in=pages))


NAME_BYTES = 8


@transaction.atomic
def create_guest() -> Any:
    """Create a user with a random name and no password, mark it as a guest, and return it."""
    model = get_user_model()
    name = f"guest-{secrets.token_hex(NAME_BYTES)}"
    user = model._default_manager.create(**{model.USERNAME_FIELD: name})
    user.set_unusable_password()
    user.save(update_fields=["password"])
    Guest.objects.create(user=user)
    return user


def is_guest(user: User) -> bool:
    """Return whether `user` is marked as a guest; a visitor without a user is not one."""
    return user.is_authenticated and Guest.objects.filter(user_id=user.pk).exists()


@transaction.atomic
def adopt_guest(guest_user: AbstractBaseUser, user: AbstractBaseUser) -> None:
    """Move the data of `guest_user` to `user`, and delete the guest if it still exists.

    The caller must have checked that `guest_user` is a guest. The data are the sessions with their
    runs and ratings, also deleted sessions; the decisions of approvals; the used tokens that daily
    limits count; browsers that are notified; and own settings, unless `user` has some. A run whose
    client message id `user` has used too loses that id. Locks the sessions, then their active runs,
    then the guest's row.
    """
    _move_sessions(guest_user, user)
    Approval.objects.filter(decided_by_id=guest_user.pk).update(decided_by_id=user.pk)
    # This lock keeps new sessions out, since inserting one locks its owner's row; a session that
    # was created after the first move is moved now.
    guests = get_user_model()._default_manager.select_for_update().filter(pk=guest_user.pk)
    if (guest_row := guests.first()) is not None:
        _move_sessions(guest_user, user)
        move_user_totals(guest_user.pk, user.pk)
        _move_preferences(guest_user, user)
        _move_browsers(guest_user, user)
        guest_row.delete()


def _move_preferences(guest_user: AbstractBaseUser, user: AbstractBaseUser) -> None:
    if not Preferences.objects.filter(pk=user.pk).exists():
        Preferences.objects.filter(pk=guest_user.pk).update(user_id=user.pk)


def _move_browsers(guest_user: AbstractBaseUser, user: AbstractBaseUser) -> None:
    # The session by which `user` signs in has no key yet.
    sign_in = {"auth_hash": user.get_session_auth_hash(), "session_key": ""}
    theirs = PushSubscription.objects.filter(owner_id=guest_user.pk)
    theirs.update(owner_id=user.pk, **sign_in)
    forget_oldest_browsers(user.pk)


PUSHES_EACH = 10
"""Browsers of a user that are notified; a further one replaces the oldest."""


def forget_oldest_browsers(user_id: UserId) -> None:
    """Delete those subscriptions of a user that are beyond `PUSHES_EACH`, the oldest ones."""
    theirs = PushSubscription.objects.filter(owner_id=user_id)  # type: ignore[misc]
    oldest = list(theirs.order_by("-pk").values_list("pk", flat=True)[PUSHES_EACH:])
    PushSubscription.objects.filter(pk__in=oldest).delete()


def _move_sessions(guest_user: AbstractBaseUser, user: AbstractBaseUser) -> None:
    theirs = ChatSession.objects.filter(owner_id=guest_user.pk)
    ids = list(theirs.order_by("pk").values_list("pk", flat=True))
    sessions = [
        lock_session(session_id, user=guest_user, with_deleted=True, is_activity=False)
        for session_id in ids
    ]
    lock_runs(ids)
    for session in sessions:
        _move_session(session, user)


def _move_session(session: ChatSession, user: AbstractBaseUser) -> None:
    runs = session.runs.order_by("pk")
    taken = Run.objects.filter(owner_id=user.pk, client_message_id__isnull=False)
    runs.filter(client_message_id__in=taken.values("client_message_id")).update(
        client_message_id=None
    )
    runs.update(owner_id=user.pk)
    Feedback.objects.filter(message__session=session).update(user_id=user.pk)
    session.owner_id = user.pk
    session.save(update_fields=["owner"])
    if session.deleted_at is None:
        ChangeBuilder(session).announce("created")


def get_preferences(user: User) -> Preferences:
    """Return a user's own settings; those of a user or visitor without any are the defaults."""
    stored = Preferences.objects.filter(pk=user.pk).first() if user.is_authenticated else None
    return stored or Preferences(user_id=user.pk)  # type: ignore[misc]


def save_preferences(user: User, **changes: Any) -> Preferences:
    """Change some of a user's own settings, which the caller has checked; return all of them."""
    if "instructions" in changes:
        changes["instructions"] = clean_text(changes["instructions"])
    return Preferences.objects.update_or_create(pk=user.pk, defaults=changes)[0]


def read_instructions(user_id: UserId) -> str:
    """Return the user's own instructions for agents; "" for none."""
    own = Preferences.objects.filter(pk=user_id)  # type: ignore[misc]
    return own.values_list("instructions", flat=True).first() or ""


MARK = "agk_"
"""The beginning of every key: tells it from other tokens, and lets scanners find leaked keys."""

KEYS_MAX = 50

DAYS, DAYS_MAX = 365, 3_650
"""How many days a new key is valid, by default and at most."""

USED_EVERY = timedelta(minutes=1)
"""The precision of `last_used_at`: a key does not cause a write with every request."""


def list_keys(user: User) -> QuerySet[ApiKey]:
    """Return the user's valid keys, newest first."""
    return holding_keys().filter(owner_id=user.pk).order_by("-created_at")


def holding_keys() -> QuerySet[ApiKey]:
    """Return the valid keys of all users: neither revoked nor expired.

    Keys of users who are not active are among them. A key without `expires_at`, from before keys
    could expire, does not expire.
    """
    in_time = Q(expires_at=None) | Q(expires_at__gt=timezone.now())
    return ApiKey.objects.filter(in_time, revoked_at=None)


@transaction.atomic
def create_key(
    *, user: User, name: str, scopes: Iterable[str], days: int = DAYS
) -> tuple[ApiKey, str]:
    """Create a key that expires after `days`; return it with its text, which is not stored.

    The caller must have checked `scopes` and `days`. Raises `AgentSiteError(forbidden)` for a
    guest, and for a user who has `KEYS_MAX` valid keys already.
    """
    # Of several at once each counts those before it.
    users = get_user_model()._default_manager.select_for_update(no_key=True)
    users.filter(pk=user.pk).first()  # type: ignore[misc]
    if is_guest(user) or list_keys(user).count() >= KEYS_MAX:
        raise AgentSiteError(ErrorCode.FORBIDDEN)
    prefix = f"{MARK}{secrets.token_hex(4)}"
    text = f"{prefix}_{make_token()}"
    key = ApiKey(
        name=clean_text(name),
        prefix=prefix,
        key_hash=hash_token(text),
        scopes=sorted(set(scopes)),
        expires_at=timezone.now() + timedelta(days=days),
    )
    key.owner_id = user.pk  # type: ignore[assignment]
    key.save()
    return key, text


def revoke_key(*, user: User, key_id: str) -> None:
    """Revoke one of the user's valid keys.

    Raises `AgentSiteError(not_found)` for any other id, also that of a revoked or expired key.
    """
    if not list_keys(user).filter(pk=parse_id(key_id)).update(revoked_at=timezone.now()):
        raise AgentSiteError(ErrorCode.NOT_FOUND)


def revoke_keys(*, staff: User, keys: QuerySet[ApiKey]) -> int:
    """Revoke those of `keys`, of any users, that are not revoked yet; return how many.

    Writes an entry of the audit log for each, with `staff` as its actor.
    """
    ended = 0
    for key in keys.filter(revoked_at=None):
        key.revoked_at = timezone.now()
        key.save(update_fields=["revoked_at"])
        record(staff, AuditAction.REVOKED, key=key.prefix, owner=key.owner_id)
        ended += 1
    return ended


def find_key(text: str) -> ApiKey | None:
    """Return the valid key with this text, with its owner loaded; None if there is none.

    A key whose owner is not active is not found. Updates the stored `last_used_at` of the key at
    most once in `USED_EVERY`.
    """
    prefix = "_".join(text.split("_")[:2])
    keys = holding_keys().filter(prefix=prefix, owner__is_active=True)
    key = keys.select_related("owner").first()
    if key is None or not hmac.compare_digest(key.key_hash, hash_token(text)):
        return None
    _note_use(key)
    return key


def _note_use(key: ApiKey) -> None:
    now = timezone.now()
    stale = Q(last_used_at=None) | Q(last_used_at__lt=now - USED_EVERY)
    if key.last_used_at is None or key.last_used_at < now - USED_EVERY:
        ApiKey.objects.filter(stale, pk=key.pk).update(last_used_at=now)
