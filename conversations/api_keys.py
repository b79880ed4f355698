"""Keys with which programs come in as a user, made, found and revoked."""

import hmac
import secrets
from collections.abc import Iterable
from datetime import timedelta

from django.db.models import Q, QuerySet
from django.utils import timezone

from conversations import audit
from conversations.errors import AgentSiteError, ErrorCode
from conversations.guests import is_guest
from conversations.models import ApiKey
from conversations.queries import User, parse_id
from conversations.review_models import AuditAction
from conversations.secrets import hash_token, make_token
from conversations.text import clean_text

MARK = "agk_"
"""What every key begins with, so that it is told from a token, and found where it has leaked."""

KEYS_MAX = 50

DAYS, DAYS_MAX = 365, 3_650
"""For how long a new key is good, by default and at most."""

USED_EVERY = timedelta(minutes=1)
"""How exact `last_used_at` is: a key in use does not write with every request."""


def list_keys(user: User) -> QuerySet[ApiKey]:
    """Those that hold, the newest first."""
    return holding_keys().filter(owner_id=user.pk).order_by("-created_at")


def holding_keys() -> QuerySet[ApiKey]:
    """Those that are neither revoked nor expired; keys from before there was an end have none."""
    in_time = Q(expires_at=None) | Q(expires_at__gt=timezone.now())
    return ApiKey.objects.filter(in_time, revoked_at=None)


def create_key(
    *, user: User, name: str, scopes: Iterable[str], days: int = DAYS
) -> tuple[ApiKey, str]:
    """A new key that expires after `days`, and its text, which is not kept.

    Raises `AgentSiteError(forbidden)` for a guest, and at too many.
    """
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
    """End a key; raises `AgentSiteError(not_found)`."""
    if not list_keys(user).filter(pk=parse_id(key_id)).update(revoked_at=timezone.now()):
        raise AgentSiteError(ErrorCode.NOT_FOUND)


def revoke_keys(*, staff: User, keys: QuerySet[ApiKey]) -> int:
    """End keys of anybody, as staff may; how many. The audit log names each."""
    ended = 0
    for key in keys.filter(revoked_at=None):
        key.revoked_at = timezone.now()
        key.save(update_fields=["revoked_at"])
        audit.record(staff, AuditAction.REVOKED, key=key.prefix, owner=key.owner_id)
        ended += 1
    return ended


def find_key(text: str) -> ApiKey | None:
    """The key of that text with its owner, if it holds; notes that it was used."""
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
