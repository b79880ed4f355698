"""The app's configuration: its settings with their defaults, its checks, what it registers."""

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_out
from django.contrib.sessions.backends.db import SessionStore
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as WarningMessage
from django.db import connection
from django.db.models import IntegerField, Model, UUIDField
from django.db.models.signals import post_migrate, pre_migrate

RESTORE_DAYS = 30
REQUESTS_PER_MINUTE = 600


def restore_days() -> int:
    """Return for how many days (of 24 h) a deleted session can be restored.

    `manage.py purge` deletes older ones that have no active run.
    """
    return int(getattr(settings, "RESTORE_DAYS", RESTORE_DAYS))


def retention_days() -> int | None:
    """Return for how many days (of 24 h) after its last activity a session is kept; None: for ever.

    `manage.py purge` deletes older ones that have no active run.
    """
    days: int | None = getattr(settings, "RETENTION_DAYS", None)
    return days


def proxies() -> int:
    """Return the number of trusted proxies in front of the site; 0 without any.

    Each of them must append the address of who connects to it to X-Forwarded-For.
    """
    return int(getattr(settings, "PROXIES", 0))


def requests_per_minute() -> int:
    """Return how many REST requests a minute each user may make.

    Requests without a user are counted by the client's address, and have the same limit.
    """
    return int(getattr(settings, "API_REQUESTS_PER_MINUTE", REQUESTS_PER_MINUTE))


Apps = Sequence[AppConfig] | None


@register(Tags.models)
def check_user_model(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Return an error for each fault of the user model; [] if it has none.

    E001: its primary key is neither an integer nor a UUID. E002: it has no database field
    `is_active` or, with Django's admin, `is_staff`.
    """
    model = get_user_model()
    found: list[CheckMessage] = []
    if not isinstance(_key_of(model), IntegerField | UUIDField):
        message = f"The primary key of {model._meta.label} must be an integer or a UUID."
        hint = "The search index and the names of channel groups contain it."
        found.append(Error(message, hint=hint, id="conversations.E001"))
    needed = ["is_active", *(["is_staff"] if apps.is_installed("django.contrib.admin") else [])]
    columns = {field.name for field in model._meta.concrete_fields}
    for name in [name for name in needed if name not in columns]:
        message = f"{model._meta.label} has no field {name}."
        hint = (
            "Add a database field of this name: queries filter by it, so a property is not enough."
        )
        found.append(Error(message, hint=hint, id="conversations.E002"))
    return found


def _key_of(model: type[Model]) -> Any:
    key: Any = model._meta.pk
    while key.remote_field:
        key = key.target_field
    return key


@register(Tags.security)
def check_sign_ins(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Return an error (E003) unless sign-ins are kept in Django's session table.

    A sign-in that is not in this table counts as ended, and its sockets would be closed.
    """
    # Import here: models cannot be imported yet when this module is.
    from django.contrib.sessions.models import Session

    store = import_module(settings.SESSION_ENGINE).SessionStore
    if issubclass(store, SessionStore) and store.get_model_class() is Session:
        return []
    message = f"SESSION_ENGINE {settings.SESSION_ENGINE} does not use Django's session table."
    hint = "Use django.contrib.sessions.backends.db or cached_db, else sockets are closed."
    return [Error(message, hint=hint, id="conversations.E003")]


@register(Tags.compatibility)
def check_time_zones(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Return an error (E004) unless USE_TZ is on: times are compared with the database's clock."""
    if settings.USE_TZ:
        return []
    return [Error("USE_TZ is off.", hint="Set USE_TZ = True.", id="conversations.E004")]


@register(Tags.compatibility)
def check_database(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Return an error (E005) if the default database is neither SQLite nor PostgreSQL.

    Else a warning for each setting of it that would make writes fail or the site slow: W001 and
    W002 with SQLite, W003 with PostgreSQL.
    """
    if connection.vendor == "sqlite":
        return list(_check_sqlite())
    if connection.vendor == "postgresql":
        return list(_check_postgres())
    message = f"The database {connection.display_name} is not supported."
    return [Error(message, hint="Use PostgreSQL or SQLite.", id="conversations.E005")]


def _check_sqlite() -> Iterator[CheckMessage]:
    database = connection.settings_dict
    if database["OPTIONS"].get("transaction_mode") != "IMMEDIATE":
        message = "Concurrent writes to SQLite will fail: transactions must be IMMEDIATE."
        hint = (
            'Set OPTIONS of the database to {"transaction_mode": "IMMEDIATE", "timeout": 20, '
            '"init_command": "PRAGMA journal_mode=WAL"}.'
        )
        yield WarningMessage(message, hint=hint, id="conversations.W001")
    if database["ENGINE"] != "conversations.sqlite":
        message = "Requests that write to SQLite will delay streamed replies."
        hint = 'Set ENGINE of the database to "conversations.sqlite".'
        yield WarningMessage(message, hint=hint, id="conversations.W002")


def _check_postgres() -> Iterator[CheckMessage]:
    """Check that there is a pool: under ASGI each request has its own thread, so its connection."""
    if not connection.settings_dict["OPTIONS"].get("pool"):
        message = "Every request will open its own connection to PostgreSQL."
        hint = 'Add "pool": {"max_size": 16} to OPTIONS of the database, and set CONN_MAX_AGE to 0.'
        yield WarningMessage(message, hint=hint, id="conversations.W003")


class ConversationsConfig(AppConfig):
    """The app that stores conversations, and every read and write of them."""

    name = "conversations"
    # As in the migrations, whatever a project sets as its own default.
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from conversations import changes, webhooks
        from conversations.people import sign_ins
        from conversations.runs import catch_up
        from conversations.sessions import search

        changes.register_recorder(webhooks.record)
        changes.register_recorder(webhooks.record_pushes)
        changes.register(catch_up.on_change)
        pre_migrate.connect(search.drop_triggers, sender=self)
        post_migrate.connect(search.install, sender=self)
        user_logged_out.connect(sign_ins.on_sign_out)
