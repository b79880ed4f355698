import re
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.core.mail import EmailMultiAlternatives
from django.test import Client
from django.utils import timezone

from agentsite.web import accounts
from agentsite.web.accounts import SignUpForm
from conversations.models import ChatSession, Guest
from conversations.people.accounts import create_guest
from tests.support.chats import PASSWORD, make_user, talk
from tests.support.mails import mails_sent

pytestmark = pytest.mark.django_db

Users = get_user_model()._default_manager
SIGN_UP = {
    "username": "ann",
    "email": "ann@example.com",
    "password1": PASSWORD,
    "password2": PASSWORD,
}


def user_of(client: Client) -> Any:
    return Users.get(pk=client.session["_auth_user_id"])


def guest_client() -> tuple[Client, Any]:
    client = Client()
    response = client.post("/accounts/guest/")
    return client, Users.get(pk=response.json()["user"])


def test_sign_up_makes_an_account_and_signs_it_in(client: Client) -> None:
    response = client.post("/accounts/signup/", SIGN_UP)
    assert (response.status_code, response["Location"]) == (302, "/")
    assert user_of(client).get_username() == "ann"
    assert user_of(client).email == "ann@example.com"
    assert not user_of(client).is_staff


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"password1": "12345678", "password2": "12345678"}, "too common"),
        ({"password1": "short1x", "password2": "short1x"}, "too short"),
        ({"password2": "another-password"}, "didn’t match"),
        ({"username": "ben"}, "already exists"),
        ({"username": "BEN"}, "already exists"),
        ({"email": "nonsense"}, "valid email"),
        ({"username": ""}, "required"),
    ],
)
def test_a_bad_sign_up_is_explained(client: Client, change: dict[str, str], complaint: str) -> None:
    make_user("ben")
    response = client.post("/accounts/signup/", SIGN_UP | change)
    assert response.status_code == 200
    assert complaint in response.content.decode()
    assert Users.count() == 1


def test_a_form_that_is_sent_twice_at_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    is_valid = SignUpForm.is_valid

    def is_valid_and_late(form: SignUpForm) -> bool:
        is_good = is_valid(form)
        make_user("ann")
        return is_good

    monkeypatch.setattr(SignUpForm, "is_valid", is_valid_and_late)
    response = client.post("/accounts/signup/", SIGN_UP)
    assert (response.status_code, Users.count()) == (200, 1)
    assert "already exists" in response.content.decode()


def test_sign_up_gives_no_rights_that_were_not_offered(client: Client) -> None:
    client.post("/accounts/signup/", SIGN_UP | {"is_staff": "on", "is_superuser": "on"})
    assert not user_of(client).is_staff
    assert not user_of(client).is_superuser


@pytest.mark.parametrize("page", ["login", "signup"])
@pytest.mark.parametrize(
    ("asked", "reached"),
    [
        ("/s/2f7c1c1e-6a3e-4a0e-9d0a-3d9f3b1d7b11/", "/s/2f7c1c1e-6a3e-4a0e-9d0a-3d9f3b1d7b11/"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
    ],
)
def test_next_stays_on_this_site(client: Client, page: str, asked: str, reached: str) -> None:
    if page == "login":
        make_user("ann")
    form = SIGN_UP | {"password": PASSWORD, "next": asked}
    assert client.post(f"/accounts/{page}/", form)["Location"] == reached


def test_the_pages_pass_next_on(client: Client) -> None:
    for page, other in (("login", "signup"), ("signup", "login")):
        html = client.get(f"/accounts/{page}/?next=/s/x/%3Fa%3D1").content.decode()
        assert 'name="next" value="/s/x/?a=1"' in html
        assert f'href="/accounts/{other}/?next=%2Fs%2Fx%2F%3Fa%3D1"' in html


def test_a_wrong_password_is_refused(client: Client) -> None:
    make_user("ann")
    response = client.post("/accounts/login/", {"username": "ann", "password": "wrong"})
    assert response.status_code == 200
    assert "correct username and password" in response.content.decode()


def test_sign_out_is_a_post(client: Client) -> None:
    client.force_login(make_user("ann"))
    assert client.get("/accounts/logout/").status_code == 405
    assert client.post("/accounts/logout/")["Location"] == "/"
    assert "_auth_user_id" not in client.session


def test_the_password_can_be_changed(client: Client) -> None:
    ann = make_user("ann")
    client.force_login(ann)
    form = {
        "old_password": PASSWORD,
        "new_password1": "another-one-9",
        "new_password2": "another-one-9",
    }
    response = client.post("/accounts/password/change/", form, follow=True)
    assert "Password changed" in response.content.decode()
    ann.refresh_from_db()
    assert ann.check_password("another-one-9")
    assert user_of(client) == ann


def test_the_password_can_be_reset(client: Client) -> None:
    ann = make_user("ann", email="ann@example.com")
    response = client.post("/accounts/password/reset/", {"email": "ann@example.com"}, follow=True)
    assert "Look at your email" in response.content.decode()
    link = re.search(r"http://testserver(\S+)", str(mails_sent()[0].body))
    assert link
    response = client.get(link[1], follow=True)
    form = {"new_password1": "another-one-9", "new_password2": "another-one-9"}
    response = client.post(response.request["PATH_INFO"], form, follow=True)
    assert "Password set" in response.content.decode()
    ann.refresh_from_db()
    assert ann.check_password("another-one-9")
    assert "does not work any more" in client.get(link[1], follow=True).content.decode()


def test_a_reset_tells_nobody_who_has_an_account(client: Client) -> None:
    response = client.post("/accounts/password/reset/", {"email": "no@example.com"}, follow=True)
    assert "Look at your email" in response.content.decode()
    assert mails_sent() == []


def test_a_reset_takes_as_long_with_an_account(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request waits for the server of mails: it is asked behind the answer."""
    make_user("ann", email="ann@example.com")
    sent_by: list[int] = []
    monkeypatch.setattr(
        EmailMultiAlternatives, "send", lambda self: sent_by.append(threading.get_ident())
    )
    client.post("/accounts/password/reset/", {"email": "ann@example.com"})
    mails_sent()
    assert len(sent_by) == 1
    assert threading.get_ident() not in sent_by


def test_so_many_mails_wait(client: Client, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    make_user("ann", email="ann@example.com")
    monkeypatch.setattr(accounts, "mail_places", threading.BoundedSemaphore(1))
    may_go_on = threading.Event()
    monkeypatch.setattr(EmailMultiAlternatives, "send", lambda self: may_go_on.wait())
    for _ in range(2):
        client.post("/accounts/password/reset/", {"email": "ann@example.com"})
    may_go_on.set()
    mails_sent()
    assert caplog.text.count("a mail was not sent") == 1
    assert accounts.mail_places.acquire(blocking=False)


def test_a_guest_is_made_by_a_post(settings: Any) -> None:
    settings.ALLOW_GUESTS = True
    client, guest = guest_client()
    assert user_of(client) == guest
    assert Guest.objects.filter(user=guest).exists()


def test_the_same_visitor_is_one_guest(settings: Any) -> None:
    settings.ALLOW_GUESTS = True
    client, guest = guest_client()
    assert client.post("/accounts/guest/").json()["user"] == str(guest.pk)
    assert Users.count() == 1


def test_looking_makes_no_guest(client: Client, settings: Any) -> None:
    settings.ALLOW_GUESTS = True
    for path in ("/", "/accounts/login/", "/accounts/signup/", "/api/sessions/", "/robots.txt"):
        client.get(path)
    assert client.get("/accounts/guest/").status_code == 405
    assert Users.count() == 0
    assert "sessionid" not in client.cookies


def test_a_guest_is_made_only_from_this_site(settings: Any) -> None:
    settings.ALLOW_GUESTS = True
    assert Client(enforce_csrf_checks=True).post("/accounts/guest/").status_code == 403
    assert Users.count() == 0


def test_guests_may_be_forbidden(client: Client, settings: Any) -> None:
    settings.ALLOW_GUESTS = False
    response = client.post("/accounts/guest/")
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "not_authenticated"
    assert Users.count() == 0


def test_sign_up_may_be_forbidden(client: Client, settings: Any) -> None:
    settings.ALLOW_SIGN_UP, settings.ALLOW_GUESTS = False, True
    form = {"username": "eve", "password1": "a-long-password-1", "password2": "a-long-password-1"}
    assert client.get("/accounts/signup/").status_code == 404
    assert client.post("/accounts/signup/", form).status_code == 404
    assert Users.count() == 0
    for address in ("/", "/accounts/login/"):
        assert "/accounts/signup/" not in client.get(address).content.decode()


def test_what_a_guest_posts_next_has_a_valid_token(settings: Any) -> None:
    settings.ALLOW_GUESTS = True
    client = Client(enforce_csrf_checks=True)
    html = client.get("/").content.decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', html)
    assert token
    made = client.post("/accounts/guest/", headers={"X-CSRFToken": token[1]})
    assert made.status_code == 200
    again = client.post("/accounts/guest/", headers={"X-CSRFToken": made.json()["csrf_token"]})
    assert again.status_code == 200


@pytest.mark.parametrize("page", ["login", "signup"])
def test_what_a_guest_said_comes_along(page: str, settings: Any) -> None:
    settings.ALLOW_GUESTS = True
    client, guest = guest_client()
    session = talk(guest, ("one", "1"))
    if page == "login":
        make_user("ann")
    assert "come with you" in client.get(f"/accounts/{page}/").content.decode()
    client.post(f"/accounts/{page}/", SIGN_UP | {"password": PASSWORD})
    assert user_of(client).get_username() == "ann"
    assert ChatSession.objects.get() == session
    assert ChatSession.objects.get().owner == user_of(client)
    assert Users.count() == 1
    assert client.get(f"/s/{session.pk}/").status_code == 200


def test_a_failed_sign_in_leaves_the_guest(settings: Any) -> None:
    settings.ALLOW_GUESTS = True
    client, guest = guest_client()
    client.post("/accounts/login/", {"username": "ann", "password": "wrong"})
    assert user_of(client) == guest


def test_only_guests_are_moved(client: Client) -> None:
    ann, ben = make_user("ann"), make_user("ben")
    session = talk(ann, ("one", "1"))
    client.force_login(ann)
    client.post("/accounts/login/", {"username": "ben", "password": PASSWORD})
    assert user_of(client) == ben
    assert ChatSession.objects.get(pk=session.pk).owner == ann
    assert Users.count() == 2


def test_a_guest_who_comes_back_in_time_stays(settings: Any) -> None:
    settings.ALLOW_GUESTS = True
    client, _ = guest_client()
    for days_left in (1, 2):
        soon = timezone.now() + timedelta(days=days_left)
        Session.objects.update(expire_date=soon)
        client.get("/")
        # Once a day is enough.
        is_later = Session.objects.get().expire_date > soon
        assert is_later == (days_left == 1)


def test_a_guest_cannot_sign_in_by_name(client: Client) -> None:
    guest = create_guest()
    form = {"username": guest.get_username(), "password": ""}
    assert client.post("/accounts/login/", form).status_code == 200
    assert "_auth_user_id" not in client.session
