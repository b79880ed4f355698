"""How often something may be tried, counted in the database for all processes together."""

from datetime import datetime, timedelta
from ipaddress import IPv4Address, ip_address, ip_network

from django.db.models import Case, F, Q, Value, When
from django.http import HttpRequest
from django.utils import timezone

from conversations.conf import proxies
from conversations.models import Attempts
from conversations.secrets import hash_token


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
