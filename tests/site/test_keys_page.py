"""The page on which people look after their API keys."""

import re
from typing import Any

import pytest
from django.test import Client

from conversations.models import ApiKey
from conversations.people import accounts
from conversations.people.accounts import create_guest, create_key
from tests.support.chats import make_user

pytestmark = pytest.mark.django_db

PAGE = "/accounts/keys/"


@pytest.fixture
def ann() -> Any:
    return make_user("ann")


@pytest.fixture
def hers(client: Client, ann: Any) -> Client:
    client.force_login(ann)
    return client


def text_of(response: Any) -> str:
    assert response.status_code == 200
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def test_a_key_is_shown_once_and_works(hers: Client, ann: Any) -> None:
    made = hers.post(PAGE, {"name": "backup", "scopes": ["read", "export"], "days": "90"})
    found = re.search(r">(agk_[^<]+)<", made.content.decode())
    assert found
    assert "no-store" in made["Cache-Control"]
    page = hers.get(PAGE)
    assert found[1] not in page.content.decode()
    assert "backup Read conversations · Export transcripts agk_" in text_of(page)
    assert "never used" in text_of(page)
    bearer = {"Authorization": f"Bearer {found[1]}"}
    assert Client().get("/api/sessions/", headers=bearer).status_code == 200
    assert "last used" in text_of(hers.get(PAGE))


def test_a_revoked_key_is_gone(hers: Client, ann: Any) -> None:
    key, text = create_key(user=ann, name="backup", scopes=["read"])
    answer = hers.post(f"/accounts/keys/{key.pk}/revoke/", follow=True)
    assert "The key is revoked." in text_of(answer)
    assert "You have no keys yet." in text_of(answer)
    bearer = {"Authorization": f"Bearer {text}"}
    assert Client().get("/api/sessions/", headers=bearer).status_code == 401
    assert "The key is revoked." not in text_of(hers.get(PAGE))


def test_nobody_elses_is_shown_or_revoked(hers: Client) -> None:
    key, _ = create_key(user=make_user("ben"), name="ben’s own", scopes=["read"])
    assert "ben" not in text_of(hers.get(PAGE))
    assert hers.post(f"/accounts/keys/{key.pk}/revoke/").status_code == 404
    assert ApiKey.objects.get().revoked_at is None


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        ({"name": "", "scopes": ["read"], "days": "90"}, "This field is required."),
        ({"name": "x"}, "This field is required."),
        ({"name": "x" * 101, "scopes": ["read"], "days": "90"}, "at most 100 characters"),
        ({"name": "x", "scopes": ["admin"], "days": "90"}, "Select a valid choice."),
    ],
)
def test_what_is_wrong_is_told(hers: Client, sent: dict[str, Any], complaint: str) -> None:
    assert complaint in text_of(hers.post(PAGE, sent))
    assert not ApiKey.objects.exists()


def test_too_many(hers: Client, ann: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "KEYS_MAX", 1)
    create_key(user=ann, name="the first", scopes=["read"])
    answer = hers.post(PAGE, {"name": "another", "scopes": ["read"], "days": "90"})
    assert "You have as many keys as one may have." in text_of(answer)
    assert ApiKey.objects.count() == 1


def test_names_are_text(hers: Client) -> None:
    answer = hers.post(PAGE, {"name": "<b>bold</b>", "scopes": ["read"], "days": "90"})
    assert "&lt;b&gt;bold&lt;/b&gt;" in answer.content.decode()


def test_who_is_not_signed_in_has_none(client: Client) -> None:
    form = {"name": "x", "scopes": ["read"], "days": "90"}
    for answer in (client.get(PAGE), client.post(PAGE, form)):
        assert (answer.status_code, answer["Location"]) == (302, f"/accounts/login/?next={PAGE}")


def test_guests_have_none(client: Client) -> None:
    client.force_login(create_guest())
    assert client.get(PAGE)["Location"] == f"/accounts/signup/?next={PAGE}"
    body = {"name": "x", "scopes": ["read"], "days": "90"}
    assert client.post(PAGE, body).status_code == 302
    assert client.post("/api/keys/", body, "application/json").status_code == 403
    assert not ApiKey.objects.exists()


def test_a_foreign_page_makes_none(ann: Any) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(ann)
    assert client.post(PAGE, {"name": "x", "scopes": ["read"], "days": "90"}).status_code == 403
    assert not ApiKey.objects.exists()


def test_the_way_there(hers: Client) -> None:
    assert f'href="{PAGE}"' in hers.get("/").content.decode()
