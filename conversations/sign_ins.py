"""What sockets were let in by, and whether it still holds."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from uuid import UUID

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.models import Session
from django.utils import timezone

from conversations.api_keys import holding_keys
from conversations.models import ApiKey
from conversations.queries import in_chunks
from conversations.shapes import UserId

HASHES_KEPT = 20_000
"""Of users with an open socket; beyond it, hashes are computed at every round."""


@dataclass(frozen=True)
class SignIn:
    """What a socket was let in by; `key` is a session key, `expires` the end of a token.

    `api_key` is the id of an API key, which outlives passwords, and `scopes` what it may do; None
    where a person came in, who may do all.
    """

    user_id: UserId
    auth_hash: str
    key: str | None
    expires: datetime | None
    api_key: UUID | None = None
    scopes: tuple[str, ...] | None = None

    def may(self, scope: str) -> bool:
        """Whether who came in so may do what `scope` stands for."""
        return self.scopes is None or scope in self.scopes


def sign_in_by_key(key: ApiKey) -> SignIn:
    """That of a program with an API key that holds."""
    hashed = key.owner.get_session_auth_hash()
    return SignIn(key.owner_id, hashed, None, key.expires_at, key.pk, tuple(key.scopes))


def list_ended_sign_ins(sign_ins: Iterable[SignIn]) -> set[SignIn]:
    """Those of `sign_ins` that do not hold any more."""
    given = set(sign_ins)
    hashes = _read_hashes({sign_in.user_id for sign_in in given})
    live = _read_live_keys({sign_in.key for sign_in in given if sign_in.key})
    held = _read_held_keys({sign_in.api_key for sign_in in given if sign_in.api_key})
    now = timezone.now()
    return {
        s
        for s in given
        if s.user_id not in hashes
        or (s.api_key is None and hashes[s.user_id] != s.auth_hash)
        or (s.api_key is not None and s.api_key not in held)
        or (s.key is not None and s.key not in live)
        or (s.expires is not None and s.expires <= now)
    }


def _read_hashes(user_ids: set[UserId]) -> dict[UserId, str]:
    """The hash of each active user; the others are not in it."""
    model = get_user_model()
    hashes: dict[UserId, str] = {}
    for ids in in_chunks(user_ids):
        users = model._default_manager.filter(pk__in=ids, is_active=True)  # type: ignore[misc]
        if _hashes_password_alone(model):
            secret = settings.SECRET_KEY
            rows = users.values_list("pk", "password")
            hashes.update((pk, _hash_password(password, secret)) for pk, password in rows)
        else:
            hashes.update((user.pk, user.get_session_auth_hash()) for user in users)
    return hashes


def _hashes_password_alone(model: type[AbstractBaseUser]) -> bool:
    """Whether a user model keeps Django's own hash: one of its own may depend on any column."""
    names = ("get_session_auth_hash", "_get_session_auth_hash")
    return all(getattr(model, name) is getattr(AbstractBaseUser, name) for name in names)


@lru_cache(HASHES_KEPT)
def _hash_password(password: str, secret: str) -> str:
    """Django's hash; `secret`, the settings' present key, only tells one entry from another."""
    return get_user_model()(password=password).get_session_auth_hash()


def _read_held_keys(ids: set[UUID]) -> set[UUID]:
    """The API keys that hold, among those of these ids."""
    held: set[UUID] = set()
    for some in in_chunks(ids):
        held.update(holding_keys().filter(pk__in=some).values_list("pk", flat=True))
    return held


def _read_live_keys(keys: set[str]) -> set[str]:
    now = timezone.now()
    live: set[str] = set()
    for some in in_chunks(keys):
        rows = Session.objects.filter(session_key__in=some, expire_date__gt=now)
        live.update(rows.values_list("session_key", flat=True))
    return live
