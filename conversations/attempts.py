"""How often something may be tried, counted for all processes together.

In the database what must not be forgotten, such as guesses of a password; in the cache what is
frequent.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from ipaddress import IPv4Address, ip_address, ip_network

from django.core.cache import cache
from django.db.models import Case, F, Q, Value, When
from django.http import HttpRequest
from django.utils import timezone

from conversations.conf import proxies
from conversations.models import Attempts
from conversations.secrets import hash_token

logger = logging.getLogger(__name__)


def count_attempt(what: str, *, limit: int, period: timedelta) -> float | None:
    """Count one more try of `what`; the seconds to wait when that was more than `limit`."""
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
    """Count in one statement, so that tries at once are all counted; False without a row."""
    goes_on = Q(until__gt=now)
    updated = Attempts.objects.filter(key=key).update(
        count=Case(When(goes_on, then=F("count") + 1), default=Value(1)),
        until=Case(When(goes_on, then=F("until")), default=Value(now + period)),
    )
    return updated > 0


def forget_attempts(what: str) -> None:
    """Begin to count anew, after a try that was right."""
    Attempts.objects.filter(key=hash_token(what)).delete()


def count_in_cache(what: str, *, limit: int, seconds: int) -> float | None:
    """Count one more of what is frequent; the seconds to wait when that was more than `limit`.

    In Django's cache, which all processes share where there are several, in periods of `seconds`
    by the clock. None while the cache is away: nobody is refused for that.
    """
    now = time.time()
    key = f"count:{hash_token(what)}:{now // seconds:.0f}"
    try:
        cache.add(key, 0, timeout=2 * seconds)
        count = cache.incr(key)
    except Exception as exc:
        logger.warning("not counted: %s", type(exc).__name__)
        return None
    return None if count <= limit else max(1.0, seconds - now % seconds)


def take_place(what: str, *, places: int, seconds: int) -> Callable[[], None] | None:
    """Hold one of the `places` of `what`, in all processes together; None where none is free.

    What is returned gives it back; that of a process which died is free again after `seconds`.
    """
    try:
        for place in range(places):
            key = f"place:{hash_token(what)}:{place}"
            if cache.add(key, 1, timeout=seconds):
                return partial(_give_back, key)
    except Exception as exc:
        logger.warning("not counted: %s", type(exc).__name__)
        return lambda: None
    return None


def _give_back(key: str) -> None:
    with suppress(Exception):  # The cache is away: it ends by itself.
        cache.delete(key)


def address_of(request: HttpRequest) -> str:
    """The address of who sent a request, as `client_address` has it."""
    sent = request.META
    return client_address(sent.get("HTTP_X_FORWARDED_FOR", ""), str(sent.get("REMOTE_ADDR", "")))


def client_address(forwarded_for: str, peer: str) -> str:
    """The client's address: as the outermost of our own `PROXIES` saw it, or the connection's.

    IPv6 as its /64 network, all of which one customer has. "" behind a Unix socket whose proxy
    says nothing.
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
