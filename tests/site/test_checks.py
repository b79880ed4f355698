"""What `manage.py check` says of a project that lacks something."""

from typing import Any

import pytest
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.checks import run_checks
from django.db import connection, models

from conversations import apps

CACHED = "django.contrib.sessions.backends.cached_db"
IN_CACHE = "django.contrib.sessions.backends.cache"


class Visitor(AbstractBaseUser):
    """Somebody whom nothing here could find."""

    name = models.CharField(primary_key=True, max_length=10)

    class Meta:
        app_label = "nowhere"
        managed = False


def ids() -> list[str | None]:
    return [found.id for found in run_checks()]


@pytest.mark.parametrize("name", ["AGENTS", "AGENT_MODEL", "ASGI_APPLICATION", "CHANNEL_LAYERS"])
def test_a_setting_that_is_missing(settings: Any, name: str) -> None:
    delattr(settings, name)
    (found,) = run_checks()
    assert (found.id, found.msg) == ("realtime.E001", f"The setting {name} is missing.")


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("AGENTS", "nowhere.agents", ["realtime.E002"]),
        ("REALTIME", {"lease_s": 0, "lease": 1}, ["realtime.E003", "realtime.E003"]),
        ("USE_TZ", False, ["conversations.E004"]),
        ("SESSION_ENGINE", IN_CACHE, ["conversations.E003"]),
        ("SESSION_ENGINE", CACHED, []),
    ],
)
def test_a_setting_that_does_not_fit(settings: Any, name: str, value: Any, wanted: Any) -> None:
    setattr(settings, name, value)
    assert ids() == wanted


def test_users_that_cannot_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apps, "get_user_model", lambda: Visitor)
    found = [(found.id, found.msg) for found in apps.check_user_model(None)]
    assert found == [
        (
            "conversations.E001",
            "The primary key of nowhere.Visitor must be an integer or a UUID.",
        ),
        ("conversations.E002", "nowhere.Visitor has no field is_active."),
        ("conversations.E002", "nowhere.Visitor has no field is_staff."),
    ]


def test_databases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {})
    assert ids() == ["conversations.W001"]
    monkeypatch.setitem(connection.settings_dict, "ENGINE", "django.db.backends.sqlite3")
    assert ids() == ["conversations.W001", "conversations.W002"]
    monkeypatch.setattr(connection, "vendor", "mysql", raising=False)
    assert ids() == ["conversations.E005"]


def test_postgres_needs_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "vendor", "postgresql", raising=False)
    assert ids() == ["conversations.W003"]
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {"pool": True})
    assert ids() == []


CORE = "channels_redis.core.RedisChannelLayer"
PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"
URL = "redis://127.0.0.1/0"


@pytest.mark.parametrize(
    ("backend", "host", "wanted"),
    [
        (CORE, {"address": URL, "socket_timeout": None}, ["realtime.E004"]),
        (PUBSUB, URL, []),
        (PUBSUB, {"address": URL, "decode_responses": False}, []),
        (PUBSUB, {"address": URL, "decode_responses": True}, ["realtime.E010"]),
        (PUBSUB, f"{URL}?decode_responses=0", ["realtime.E010"]),
        (PUBSUB, {"master_name": "m", "sentinels": [("127.0.0.1", 26379)]}, []),
    ],
)
def test_layers_on_redis(settings: Any, backend: str, host: Any, wanted: list[str]) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend, "CONFIG": {"hosts": [host]}}}
    assert ids() == wanted
