"""The settings of this app, each with what holds in a project that does not have it."""

from django.conf import settings

RESTORE_DAYS = 30
REQUESTS_PER_MINUTE = 600


def restore_days() -> int:
    """Days in which a deleted session can be restored."""
    return int(getattr(settings, "RESTORE_DAYS", RESTORE_DAYS))


def retention_days() -> int | None:
    """Days after its last use in which `manage.py purge` leaves a session; None: for ever."""
    days: int | None = getattr(settings, "RETENTION_DAYS", None)
    return days


def proxies() -> int:
    """How many of our own proxies stand before the site, each adding to X-Forwarded-For."""
    return int(getattr(settings, "PROXIES", 0))


def requests_per_minute() -> int:
    """REST requests a minute of one user, or of one address without one."""
    return int(getattr(settings, "API_REQUESTS_PER_MINUTE", REQUESTS_PER_MINUTE))
