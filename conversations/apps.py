"""This app in a project: its settings with their defaults, and what it registers."""

from django.apps import AppConfig
from django.conf import settings
from django.db.models.signals import post_migrate, pre_migrate

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


class ConversationsConfig(AppConfig):
    """What is kept of every conversation."""

    name = "conversations"
    # As the migrations have it, whatever a project chooses for its own.
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from conversations import (
            changes,
            checks,  # noqa: F401  (checks registers them)
        )
        from conversations.runs import catch_up
        from conversations.sessions import search

        changes.register(catch_up.on_change)
        pre_migrate.connect(search.lift, sender=self)
        post_migrate.connect(search.install, sender=self)
