"""The app's configuration: its settings with their defaults, and what it registers at start."""

from django.apps import AppConfig
from django.conf import settings
from django.contrib.auth.signals import user_logged_out
from django.db.models.signals import post_migrate, pre_migrate

RESTORE_DAYS = 30
REQUESTS_PER_MINUTE = 600


def restore_days() -> int:
    """Return for how many days a deleted session can be restored."""
    return int(getattr(settings, "RESTORE_DAYS", RESTORE_DAYS))


def retention_days() -> int | None:
    """Return for how many days after its last activity a session is kept; None: for ever.

    `manage.py purge` deletes older ones that have no active run.
    """
    days: int | None = getattr(settings, "RETENTION_DAYS", None)
    return days


def proxies() -> int:
    """Return the number of trusted proxies in front of the site.

    Each of them must append to X-Forwarded-For.
    """
    return int(getattr(settings, "PROXIES", 0))


def requests_per_minute() -> int:
    """Return how many REST requests a minute each user may make.

    Requests without a user are counted by the client's address, and have the same limit.
    """
    return int(getattr(settings, "API_REQUESTS_PER_MINUTE", REQUESTS_PER_MINUTE))


class ConversationsConfig(AppConfig):
    """The app that stores conversations, and every read and write of them."""

    name = "conversations"
    # As in the migrations, whatever a project sets as its own default.
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from conversations import (
            changes,
            checks,  # noqa: F401  (checks registers them)
        )
        from conversations.people import sign_ins
        from conversations.runs import catch_up
        from conversations.sessions import search

        changes.register(catch_up.on_change)
        pre_migrate.connect(search.drop_triggers, sender=self)
        post_migrate.connect(search.install, sender=self)
        user_logged_out.connect(sign_ins.on_sign_out)
