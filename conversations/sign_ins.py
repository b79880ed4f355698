"""What sockets were let in by, and whether it still holds."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.utils import timezone

from conversations.shapes import UserId


@dataclass(frozen=True)
class SignIn:
    """What a socket was let in by; `key` is a session key, `expires` the end of a token."""

    user_id: UserId
    auth_hash: str
    key: str | None
    expires: datetime | None


def list_ended_sign_ins(sign_ins: Iterable[SignIn]) -> set[SignIn]:
    """Those of `sign_ins` that do not hold any more."""
    given = set(sign_ins)
    users = get_user_model()._default_manager.filter(
        pk__in={sign_in.user_id for sign_in in given}, is_active=True
    )
    hashes: dict[UserId, str] = {user.pk: user.get_session_auth_hash() for user in users}
    now = timezone.now()
    keys = Session.objects.filter(
        session_key__in=[s.key for s in given if s.key], expire_date__gt=now
    )
    live = set(keys.values_list("session_key", flat=True))
    return {
        s
        for s in given
        if hashes.get(s.user_id) != s.auth_hash
        or (s.key is not None and s.key not in live)
        or (s.expires is not None and s.expires <= now)
    }
