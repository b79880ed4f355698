"""Sign-ins: limits on attempts, the sign-ins that sockets depend on, and tickets for one socket.

Attempts that must not be lost, such as guesses of a password, are counted in the database; frequent
requests are counted in the cache.
"""

import logging
import time
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache, partial
from ipaddress import IPv4Address, ip_address, ip_network
from uuid import UUID

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.db.models import Case, F, Q, Value, When
from django.http import HttpRequest
from django.utils import timezone

from conversations.apps import proxies
from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import ApiKey, Attempts, PushSubscription, SignOuts, SocketTicket
from conversations.people.accounts import hash_token, holding_keys, is_guest, make_token
from conversations.queries import User, in_chunks
from conversations.shapes import UserId

logger = logging.getLogger(__name__)


def count_attempt(what: str, *, limit: int, period: timedelta) -> float | None:
    """Count an attempt at `what` in the database; return None if it is allowed.

    Above `limit` attempts in a period, returns the seconds until the period ends, at least 1. A
    period begins with its first attempt and lasts for `period`. Refused attempts are counted too.
    """
    key, now = hash_token(what), timezone.now()
    if not _add_one(key, now, period):
        Attempts.objects.filter(until__lt=now).delete()
        Attempts.objects.get_or_create(key=key, defaults={"until": now + period})
        _add_one(key, now, period)
    row = Attempts.objects.filter(key=key).first()
    if row is None or row.count <= limit:
        return None
    return max(1.0, (row.until - now).total_seconds())


def _add_one(key: str, now: datetime, period: timedelta) -> bool:
    """Count in one statement, so that no concurrent attempt is lost; False if there is no row."""
    goes_on = Q(until__gt=now)
    updated = Attempts.objects.filter(key=key).update(
        count=Case(When(goes_on, then=F("count") + 1), default=Value(1)),
        until=Case(When(goes_on, then=F("until")), default=Value(now + period)),
    )
    return updated > 0


def forget_attempts(what: str) -> None:
    """Delete the count of `count_attempt` for the same `what`; call it after a correct attempt."""
    Attempts.objects.filter(key=hash_token(what)).delete()


def count_in_cache(what: str, *, limit: int, seconds: int) -> float | None:
    """Count `what` in Django's cache; return the seconds to wait if above `limit`, else None.

    As `count_attempt`, but for frequent requests. Periods of `seconds` begin at multiples of it by
    the clock; the wait is the rest of the period, at least 1. Processes count together only if they
    share the cache. Returns None while the cache is unavailable.
    """
    now = time.time()
    key = f"count:{hash_token(what)}:{now // seconds:.0f}"
    try:
        cache.add(key, 0, timeout=2 * seconds)
        count = cache.incr(key)
    except Exception as exc:
        logger.warning("counting a request in the cache failed: %s", type(exc).__name__)
        return None
    return None if count <= limit else max(1.0, seconds - now % seconds)


def take_place(what: str, *, places: int, seconds: int) -> Callable[[], None] | None:
    """Take one of the `places` of `what`; return a function that releases it.

    Returns None if no place is free. A place that is not released is free again `seconds` after it
    was taken, even if what took it still goes on. Processes that share Django's cache share the
    places. While the cache is unavailable there is always a place.
    """
    try:
        for place in range(places):
            key = f"place:{hash_token(what)}:{place}"
            if cache.add(key, 1, timeout=seconds):
                return partial(_give_back, key)
    except Exception as exc:
        logger.warning("reserving a place in the cache failed: %s", type(exc).__name__)
        return lambda: None
    return None


def _give_back(key: str) -> None:
    with suppress(Exception):  # The cache is unavailable: the place expires.
        cache.delete(key)


def address_of(request: HttpRequest) -> str:
    """Return the address of a request's client, in the form of `client_address`."""
    sent = request.META
    return client_address(sent.get("HTTP_X_FORWARDED_FOR", ""), str(sent.get("REMOTE_ADDR", "")))


def client_address(forwarded_for: str, peer: str) -> str:
    """Return the client's address as the outermost of our `PROXIES` saw it, else that of `peer`.

    `forwarded_for` is the header X-Forwarded-For, `peer` the address of the connection, which
    counts if `PROXIES` is 0 or the header names fewer addresses than that. An IPv6 address becomes
    its /64 network, all of which belongs to one customer. A text that is no address is returned
    unchanged, such as "" behind a Unix socket whose proxy sends no address.
    """
    forwarded, count = forwarded_for.split(","), proxies()
    seen = forwarded[-count].strip() if count and len(forwarded) >= count else ""
    return _network(seen or peer)


def _network(text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        return text
    if isinstance(address, IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((int(address), 64), strict=False))


PERIOD = timedelta(minutes=5)
TRIES_A_NAME = 20
"""Attempts at one name from one address in `PERIOD`."""

TRIES_AN_ADDRESS = 200
"""Attempts from one address in `PERIOD`; higher, since a whole office may have one address."""

TRIES_EVERYWHERE = 200
"""Attempts at one name from all addresses in `PERIOD`; above it the name counts as guessed."""

GUESSED_TRIES, GUESSED_PERIOD = 5, timedelta(hours=1)
"""Attempts that each address has in this period at a name that is guessed from many addresses."""

KEYS_AN_ADDRESS = 100
"""Invalid API keys from one address; counted apart from passwords, so that a program with an old
key locks nobody out."""

SIGN_UPS_AN_ADDRESS = 100
MAILS_A_MAILBOX = 5


def limit_sign_in(request: HttpRequest, name: str) -> None:
    """Count an attempt to sign in as `name` from the request's address, before it is tried.

    Raises `AgentSiteError(rate_limited)`, with the seconds to wait, above `TRIES_A_NAME` attempts
    at the name from this address in `PERIOD`, or above the limit of `limit_address`, which this
    function calls too. While all addresses together exceed `TRIES_EVERYWHERE` attempts at the name,
    this one has only `GUESSED_TRIES` in `GUESSED_PERIOD`. Attempts from other addresses alone never
    refuse one, so that nobody can lock out the owner of the name.
    """
    _count(_sign_in_as(name, request), TRIES_A_NAME)
    limit_address(request)
    if count_attempt(_guess(name), limit=TRIES_EVERYWHERE, period=PERIOD) is not None:
        _count(_guess(name, request), GUESSED_TRIES, GUESSED_PERIOD)


def limit_address(request: HttpRequest) -> None:
    """Count an attempt to sign in, under any name, from the request's address.

    Raises `AgentSiteError(rate_limited)` above `TRIES_AN_ADDRESS` attempts in `PERIOD`.
    """
    _count(f"sign in from {address_of(request)}", TRIES_AN_ADDRESS)


def limit_keys(address: str) -> None:
    """Count an invalid API key from `address`, which is one that `client_address` returned.

    Raises `AgentSiteError(rate_limited)` above `KEYS_AN_ADDRESS` of them in `PERIOD`.
    """
    _count(f"key from {address}", KEYS_AN_ADDRESS)


def allow_again(request: HttpRequest, name: str) -> None:
    """Reset the counts of attempts at `name` from the request's address.

    Call it after a correct password. The counts of this address under any name, and of this name
    from all addresses, stay.
    """
    forget_attempts(_sign_in_as(name, request))
    forget_attempts(_guess(name, request))


def limit_sign_up(request: HttpRequest) -> None:
    """Count a new account or guest from the request's address, before it is made.

    Raises `AgentSiteError(rate_limited)` above `SIGN_UPS_AN_ADDRESS` in `PERIOD`.
    """
    _count(f"sign up from {address_of(request)}", SIGN_UPS_AN_ADDRESS)


def limit_mail(request: HttpRequest, email: str) -> None:
    """Count a mail to `email` that the request asks for, before it is sent.

    Raises `AgentSiteError(rate_limited)` above `MAILS_A_MAILBOX` mails to this mailbox, or
    `SIGN_UPS_AN_ADDRESS` mails asked for by the request's address, in `PERIOD`.
    """
    _count(f"mail to {_plain(email)}", MAILS_A_MAILBOX)
    _count(f"mail from {address_of(request)}", SIGN_UPS_AN_ADDRESS)


def _sign_in_as(name: str, request: HttpRequest) -> str:
    return f"sign in as {_plain(name)} from {address_of(request)}"


def _guess(name: str, request: HttpRequest | None = None) -> str:
    """Return the key for attempts at a name from all addresses, or from that of `request`."""
    guess = f"guess {_plain(name)}"
    return guess if request is None else f"{guess} from {address_of(request)}"


def _plain(name: str) -> str:
    """Return one form for all spellings of a name that sign-in forms treat as the same."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def _count(what: str, limit: int, period: timedelta = PERIOD) -> None:
    if (wait := count_attempt(what, limit=limit, period=period)) is not None:
        raise AgentSiteError(ErrorCode.RATE_LIMITED, retry_after=wait)


def count_sign_outs(user_id: UserId) -> int:
    """Return how often this user has signed out, 0 if never; guests are not counted.

    A refresh token holds the number at its issue, and is refused once the number has changed.
    """
    row = SignOuts.objects.filter(user_id=user_id).first()  # type: ignore[misc]
    return row.count if row else 0


def on_sign_out(
    *, user: AbstractBaseUser | None, request: HttpRequest | None = None, **kwargs: object
) -> None:
    """Raise the user's count of sign-outs, by which all refresh tokens issued before are refused.

    The browser that signs out is notified no more, nor is any that was subscribed without a
    session. A receiver of `user_logged_out`. Access tokens stay valid until they expire. Does
    nothing for None (nobody was signed in); guests have no tokens.
    """
    if user is None:
        return
    session = getattr(request, "session", None)
    keys = ["", session.session_key] if session and session.session_key else [""]
    PushSubscription.objects.filter(owner_id=user.pk, session_key__in=keys).delete()
    if is_guest(user):
        return
    SignOuts.objects.get_or_create(pk=user.pk)
    SignOuts.objects.filter(pk=user.pk).update(count=F("count") + 1)


HASHES_KEPT = 20_000
"""Password hashes whose session hash is cached; more users with open sockets than this cost a new
computation at every check."""


@dataclass(frozen=True)
class SignIn:
    """The sign-in by which a socket or a request was authenticated.

    `auth_hash` is the user's session auth hash at that time; it changes with the password.
    `key` is the key of Django's session; None for a token or API key. `expires` is when a token or
    API key expires; None for a sign-in without such an end. `api_key` is the id of an API key,
    which stays valid when the password changes; None for a person. `scopes` are that key's scopes;
    None for a person, who may do everything.
    """

    user_id: UserId
    auth_hash: str
    key: str | None
    expires: datetime | None
    api_key: UUID | None = None
    scopes: tuple[str, ...] | None = None

    def may(self, scope: str) -> bool:
        """Return whether this sign-in has `scope`, a value of `Scope`; a person's has them all."""
        return self.scopes is None or scope in self.scopes


def sign_in_by_key(key: ApiKey) -> SignIn:
    """Return the sign-in of a program with `key`, which is not checked to be valid.

    The owner of the key should be loaded, else this is a query.
    """
    hashed = key.owner.get_session_auth_hash()
    return SignIn(key.owner_id, hashed, None, key.expires_at, key.pk, tuple(key.scopes))


def list_ended_sign_ins(sign_ins: Iterable[SignIn]) -> set[SignIn]:
    """Return those of `sign_ins` that are not valid any more.

    A sign-in ends when its user is inactive or deleted, its time is over, its session is gone, its
    API key is revoked or expired or, without an API key, the user's password has changed.
    """
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
    """Return the session auth hash of each active user; inactive users are left out."""
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
    """Return whether the model uses Django's own hash; another may depend on any column."""
    names = ("get_session_auth_hash", "_get_session_auth_hash")
    return all(getattr(model, name) is getattr(AbstractBaseUser, name) for name in names)


@lru_cache(HASHES_KEPT)
def _hash_password(password: str, secret: str) -> str:
    """Return Django's session auth hash.

    `secret` is only part of the cache's key, so that a new SECRET_KEY makes new entries.
    """
    return get_user_model()(password=password).get_session_auth_hash()


def _read_held_keys(ids: set[UUID]) -> set[UUID]:
    """Return the ids of those API keys that are valid."""
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


LIFE = timedelta(seconds=30)
"""How long a ticket is valid; short, because URLs, and so tickets in them, end up in many logs."""

AUDIENCE = "agent-socket"
"""The purpose of these tickets; a ticket with another one opens no socket."""


def issue_ticket(*, user: User, sign_in: SignIn) -> tuple[str, datetime]:
    """Create a ticket for `user`; return its text, of which only a hash is stored, and its expiry.

    The ticket expires after `LIFE`. `sign_in` is the one by which it was requested: when that ends,
    the ticket is refused, and the socket that it has opened is closed. Expired tickets of all users
    are deleted.
    """
    now = timezone.now()
    SocketTicket.objects.filter(expires_at__lt=now).delete()
    text = make_token()
    ticket = SocketTicket(
        token_hash=hash_token(text),
        audience=AUDIENCE,
        auth_hash=sign_in.auth_hash,
        session_key=sign_in.key or "",
        api_key_id=sign_in.api_key,
        sign_in_until=sign_in.expires,
        expires_at=now + LIFE,
    )
    ticket.user_id = user.pk  # type: ignore[assignment]
    ticket.save(force_insert=True)
    return text, ticket.expires_at


def redeem_ticket(text: str) -> tuple[AbstractBaseUser, SignIn] | None:
    """Use up the ticket with this text; return its user and sign-in.

    Returns None if there is no such ticket, it has expired or was used, its user is not active, or
    its sign-in has ended. Of concurrent attempts, in any processes, at most one succeeds: the one
    that deletes the row.
    """
    tickets = SocketTicket.objects.filter(
        token_hash=hash_token(text),
        audience=AUDIENCE,
        expires_at__gt=timezone.now(),
        user__is_active=True,
    )
    ticket = tickets.select_related("user", "api_key__owner").first()
    if ticket is None or not SocketTicket.objects.filter(pk=ticket.pk).delete()[0]:
        return None
    sign_in = _sign_in_of(ticket)
    return None if list_ended_sign_ins([sign_in]) else (ticket.user, sign_in)


def _sign_in_of(ticket: SocketTicket) -> SignIn:
    if ticket.api_key is not None:
        return sign_in_by_key(ticket.api_key)
    key, until = ticket.session_key or None, ticket.sign_in_until
    return SignIn(ticket.user_id, ticket.auth_hash, key, until)
