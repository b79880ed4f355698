"""Pages of other origins and the API: those that the setting names, never with a cookie."""

from typing import Any

import pytest
from django.test import Client

from conversations.people.accounts import create_key
from tests.support.chats import make_user

pytestmark = pytest.mark.django_db

ALLOW = "Access-Control-Allow-Origin"
HERE = "https://app.example.org"


@pytest.fixture(autouse=True)
def origins(settings: Any) -> None:
    settings.ALLOWED_ORIGINS = ["https://*.example.org", "https://other.example:8443"]


@pytest.fixture
def key() -> dict[str, str]:
    _, text = create_key(user=make_user("ann"), name="widget", scopes=["read"])
    return {"Authorization": f"Bearer {text}"}


@pytest.mark.parametrize(
    ("origin", "is_let"),
    [
        (HERE, True),
        ("https://other.example:8443", True),
        ("https://other.example", False),
        ("http://app.example.org", False),
        ("https://app.example.org.evil.example", False),
        ("https://evilexample.org", False),
        ("null", False),
        ("https://[", False),
    ],
)
def test_the_origins_of_the_setting(
    client: Client, key: dict[str, str], origin: str, is_let: bool
) -> None:
    answer = client.get("/api/sessions/", headers={"Origin": origin, **key})
    assert answer.get(ALLOW) == (origin if is_let else None)
    assert "origin" in answer["Vary"].lower()
    asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    preflight = client.options("/api/ws-tickets/", headers=asks)
    assert preflight.get(ALLOW) == (origin if is_let else None)
    if is_let:
        assert "authorization" in preflight["Access-Control-Allow-Headers"]
        assert "Retry-After" in answer["Access-Control-Expose-Headers"]


def test_a_cookie_is_not_for_pages_elsewhere(client: Client) -> None:
    client.force_login(make_user("ann"))
    for method in ("get", "options"):
        asks = {"Origin": HERE, "Access-Control-Request-Method": "POST"}
        answer = getattr(client, method)("/api/sessions/", headers=asks)
        assert "Access-Control-Allow-Credentials" not in answer


@pytest.mark.parametrize("address", ["/", "/accounts/login/", "/admin/login/", "/healthz/"])
def test_pages_are_read_by_none(client: Client, address: str) -> None:
    assert ALLOW not in client.get(address, headers={"Origin": HERE})


def test_without_the_setting_there_is_none(
    client: Client, key: dict[str, str], settings: Any
) -> None:
    settings.ALLOWED_ORIGINS = []
    assert ALLOW not in client.get("/api/sessions/", headers={"Origin": HERE, **key})
