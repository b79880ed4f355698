"""Who gets into the REST API: keys and their scopes, tokens, and how often one may try."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.cache import cache
from django.test import Client
from django.utils import timezone
from rest_framework_simplejwt.tokens import RefreshToken

from conversations.models import ApiKey, Attempts, AuditEntry
from conversations.people import sign_ins
from conversations.people.accounts import hash_token
from conversations.people.privacy import erase_user
from conversations.people.sign_ins import address_of
from tests.support.chats import PASSWORD, make_user, talk
from tests.support.mails import mails_sent

pytestmark = pytest.mark.django_db

JSON = "application/json"


@pytest.fixture
def ann() -> Any:
    return make_user("ann")


@pytest.fixture
def api(ann: Any) -> Client:
    client = Client()
    client.force_login(ann)
    return client


def make_key(api: Client, *scopes: str) -> dict[str, Any]:
    answer = api.post("/api/keys/", {"name": "script", "scopes": scopes}, JSON)
    assert answer.status_code == 201
    made: dict[str, Any] = answer.json()
    return made


def bearer(made: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {made['key']}"}


class TestKeys:
    def test_a_key_lets_its_owner_in(self, api: Client, ann: Any, client: Client) -> None:
        talk(make_user("ben"), ("foreign", "1"))
        session = talk(ann, ("mine", "1"))
        body = client.get("/api/sessions/", headers=bearer(make_key(api, "read"))).json()
        assert [entry["id"] for entry in body["results"]] == [str(session.pk)]
        assert ApiKey.objects.get().last_used_at is not None

    @pytest.mark.parametrize(
        ("scope", "method", "address", "status"),
        [
            ("read", "get", "/api/sessions/", 200),
            ("read", "post", "/api/sessions/", 403),
            ("read", "get", "/api/keys/", 403),
            ("write", "post", "/api/sessions/", 201),
            ("write", "get", "/api/sessions/", 403),
            ("write", "post", "/api/keys/", 403),
            ("export", "get", "/api/sessions/", 403),
            ("write", "post", "/api/sessions/x/shares/", 403),
            ("share", "post", "/api/sessions/x/shares/", 404),
            ("write", "post", "/api/approvals/x/", 403),
            ("approve", "post", "/api/approvals/x/", 404),
            ("approve", "post", "/api/sessions/", 403),
        ],
    )
    def test_scopes(
        self, api: Client, client: Client, scope: str, method: str, address: str, status: int
    ) -> None:
        headers = bearer(make_key(api, scope))
        body = {"name": "x", "scopes": ["read"], "decision": "approve"}
        answer = getattr(client, method)(
            address, *([body, JSON] if method == "post" else []), headers=headers
        )
        assert answer.status_code == status

    def test_a_revoked_key_is_refused(self, api: Client, client: Client) -> None:
        made = make_key(api, "read", "write")
        assert api.delete(f"/api/keys/{made['id']}/").status_code == 204
        answer = client.get("/api/sessions/", headers=bearer(made))
        assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer")
        assert api.get("/api/keys/").json()["results"] == []

    def test_a_key_expires(self, api: Client, client: Client) -> None:
        made = make_key(api, "read")
        expires_at = ApiKey.objects.get().expires_at
        assert expires_at
        left = expires_at - timezone.now()
        assert timedelta(days=364) < left <= timedelta(days=365)
        assert client.get("/api/sessions/", headers=bearer(made)).status_code == 200
        ApiKey.objects.update(expires_at=timezone.now())
        assert client.get("/api/sessions/", headers=bearer(made)).status_code == 401
        assert api.get("/api/keys/").json()["results"] == []

    @pytest.mark.parametrize("days", [0, -1, 3_651, "x"])
    def test_no_key_is_for_ever(self, api: Client, days: object) -> None:
        body = {"name": "x", "scopes": ["read"], "days": days}
        assert api.post("/api/keys/", body, JSON).status_code == 400

    def test_bad_keys_are_throttled(
        self, api: Client, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sign_ins, "KEYS_AN_ADDRESS", 2)
        good, wrong = bearer(make_key(api, "read")), {"Authorization": "Bearer agk_0_x"}
        statuses = [client.get("/api/sessions/", headers=wrong).status_code for _ in range(4)]
        assert statuses == [401, 401, 429, 429]
        assert client.get("/api/sessions/", headers=good).status_code == 200

    def test_what_is_refused_counts_too(self, api: Client, client: Client, settings: Any) -> None:
        headers = bearer(make_key(api, "read"))
        cache.clear()
        settings.API_REQUESTS_PER_MINUTE = 2
        for expected in (403, 403, 429):
            answer = client.post("/api/sessions/", {}, JSON, headers=headers)
            assert answer.status_code == expected
        cache.clear()
        assert [client.get("/api/sessions/").status_code for _ in range(3)] == [401, 401, 429]
        cache.clear()

    def test_staff_list_and_revoke_keys(self, api: Client, client: Client) -> None:
        made = make_key(api, "read")
        staff = make_user("staff", is_staff=True)
        staff.user_permissions.add(Permission.objects.get(codename="view_apikey"))
        client.force_login(staff)
        page = "/admin/conversations/apikey/"
        assert made["prefix"] in client.get(f"{page}?q=@ann").content.decode()
        assert made["prefix"] in client.get(f"{page}?q={made['key']}").content.decode()
        assert ApiKey.objects.get().key_hash not in client.get(page).content.decode()
        form = {"action": "revoke", "_selected_action": [made["id"]]}
        client.post(page, form)
        assert ApiKey.objects.get().revoked_at is None
        staff.user_permissions.add(Permission.objects.get(codename="change_apikey"))
        client.post(page, form)
        assert ApiKey.objects.get().revoked_at is not None
        entry = AuditEntry.objects.get()
        assert (entry.action, entry.actor, entry.detail["key"]) == (
            "revoked",
            staff,
            made["prefix"],
        )

    def test_a_key_ends_with_its_account(self, api: Client, ann: Any, client: Client) -> None:
        made = make_key(api, "read")
        type(ann).objects.update(is_active=False)
        assert client.get("/api/sessions/", headers=bearer(made)).status_code == 401

    @pytest.mark.parametrize("text", ["agk_", "agk_x_y", "agk_\xff", "agk_00000000_" + "x" * 9_000])
    def test_other_texts_are_refused(self, client: Client, text: str) -> None:
        headers = {"Authorization": f"Bearer {text}"}
        assert client.get("/api/sessions/", headers=headers).status_code == 401

    def test_the_right_beginning_is_not_enough(self, api: Client, client: Client) -> None:
        made = make_key(api, "read")
        wrong = {"key": made["key"][:-1] + ("a" if made["key"][-1] != "a" else "b")}
        assert client.get("/api/sessions/", headers=bearer(wrong)).status_code == 401

    def test_only_a_hash_is_kept(self, api: Client) -> None:
        made = make_key(api, "read")
        assert made["key"] not in str(ApiKey.objects.values())
        assert made["key"] not in api.get("/api/keys/").content.decode()

    def test_nobody_revokes_anothers(self, api: Client, client: Client) -> None:
        made = make_key(api, "read")
        client.force_login(make_user("ben"))
        assert client.delete(f"/api/keys/{made['id']}/").status_code == 404

    @pytest.mark.parametrize("scopes", [[], ["admin"], "read", None, ["read"] * 9])
    def test_unknown_scopes(self, api: Client, scopes: object) -> None:
        answer = api.post("/api/keys/", {"name": "x", "scopes": scopes}, JSON)
        assert answer.status_code == 400


class TestPasswordChange:
    """Who finds an open browser does not guess the password there."""

    FORM = {"old_password": "wrong", "new_password1": "x", "new_password2": "x"}

    @pytest.mark.parametrize("path", ["/accounts/password/change/", "/admin/password_change/"])
    def test_guesses_end(self, client: Client, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
        monkeypatch.setattr(sign_ins, "TRIES_A_NAME", 2)
        client.force_login(make_user("staff", is_staff=True))
        statuses = [client.post(path, self.FORM).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        new = "a-quite-new-password"
        right = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
        Attempts.objects.all().delete()
        assert client.post(path, right).status_code == 302

    def test_strangers_are_sent_to_sign_in(self, client: Client) -> None:
        for path in ("/accounts/password/change/", "/admin/password_change/"):
            assert client.post(path, self.FORM).status_code == 302
        assert not Attempts.objects.exists()


class TestLimits:
    @pytest.fixture(autouse=True)
    def few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sign_ins, "TRIES_A_NAME", 2)
        monkeypatch.setattr(sign_ins, "SIGN_UPS_AN_ADDRESS", 2)

    def guess(self, client: Client, password: str = "wrong") -> int:
        body = {"username": "Ann", "password": password}
        return client.post("/api/token/", body, JSON).status_code

    def test_guesses_are_counted_whatever_the_way(self, client: Client, ann: Any) -> None:
        form = {"username": "ann", "password": "wrong"}
        assert client.post("/accounts/login/", form).status_code == 200
        assert self.guess(client) == 401
        assert self.guess(client) == 429
        refused = client.post("/accounts/login/", form)
        assert refused.status_code == 429
        assert int(refused["Retry-After"]) > 0

    @pytest.mark.parametrize("spelling", [" ann ", "ANN", "\uff41nn", "an\u207f\u3000"])
    def test_other_spellings_of_a_name_are_no_more_guesses(
        self, client: Client, ann: Any, spelling: str
    ) -> None:
        assert [self.guess(client), self.guess(client)] == [401, 401]
        form = {"username": spelling, "password": PASSWORD}
        assert client.post("/accounts/login/", form).status_code == 429

    def test_the_admin_is_no_way_around(self, client: Client) -> None:
        make_user("root", is_staff=True, is_superuser=True)
        form = {"username": "root", "password": "wrong", "next": "/admin/"}
        right = form | {"password": PASSWORD}
        for answers in ([200, 302], [200, 302]):
            sent = [client.post("/admin/login/", body).status_code for body in (form, right)]
            assert sent == answers
        assert client.get("/admin/").status_code == 200
        guesses = [Client().post("/admin/login/", form).status_code for _ in range(3)]
        assert guesses == [200, 200, 429]

    def test_nobodys_mailbox_is_filled(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sign_ins, "MAILS_A_MAILBOX", 2)
        make_user("ann", email="ann@example.com")
        for address, status in (("ann@", 302), ("Ann@", 302), (" ann@", 429), ("ben@", 302)):
            form = {"email": f"{address}example.com"}
            assert client.post("/accounts/password/reset/", form).status_code == status
            # Counted apart from what the address of the client may do.
            Attempts.objects.filter(key=hash_token("mail from 127.0.0.1")).delete()
        assert len(mails_sent()) == 2

    def test_who_knows_the_password_is_not_held_up(self, client: Client, ann: Any) -> None:
        body = {"username": "ann", "password": PASSWORD}
        for _ in range(5):
            assert client.post("/api/token/", body, JSON).status_code == 200
            assert client.post("/accounts/login/", body).status_code == 302

    def try_from(self, address: str, password: str = "wrong") -> int:
        body = {"username": "ann", "password": password}
        sent = Client(REMOTE_ADDR=address).post("/api/token/", body, JSON)
        return sent.status_code

    def test_nobody_is_locked_out_from_elsewhere(
        self, ann: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sign_ins, "TRIES_EVERYWHERE", 4)
        assert [self.try_from("10.0.0.1") for _ in range(3)] == [401, 401, 429]
        for number in range(10):
            self.try_from(f"10.0.1.{number}")
        assert self.try_from("192.0.2.1", PASSWORD) == 200

    def test_a_name_guessed_from_everywhere_leaves_few_tries(
        self, ann: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sign_ins, "TRIES_A_NAME", 20)
        monkeypatch.setattr(sign_ins, "TRIES_EVERYWHERE", 4)
        monkeypatch.setattr(sign_ins, "GUESSED_TRIES", 2)
        assert [self.try_from(f"10.0.0.{number}") for number in range(4)] == [401] * 4
        assert [self.try_from("10.0.1.1") for _ in range(3)] == [401, 401, 429]
        assert [self.try_from("192.0.2.1", PASSWORD) for _ in range(4)] == [200] * 4
        Attempts.objects.filter(until__lt=timezone.now() + timedelta(minutes=6)).delete()
        assert self.try_from("10.0.1.1") == 401, "the name is not guessed any more"

    def test_an_ipv6_network_is_one_address(self, ann: Any) -> None:
        tries = [self.try_from(f"2001:db8:1:2::{number}") for number in range(1, 4)]
        assert tries == [401, 401, 429]
        assert self.try_from("2001:db8:1:3::1") == 401

    def test_later_it_is_allowed_again(self, client: Client, ann: Any) -> None:
        assert [self.guess(client) for _ in range(3)] == [401, 401, 429]
        Attempts.objects.update(until=timezone.now() - timedelta(seconds=1))
        assert self.guess(client) == 401

    def test_new_accounts_and_guests(self, client: Client, settings: Any) -> None:
        settings.ALLOW_GUESTS = True
        answers = [Client().post("/accounts/guest/").status_code for _ in range(3)]
        assert answers == [200, 200, 429]
        assert client.post("/accounts/signup/", {}).status_code == 429

    @pytest.mark.parametrize(
        ("proxies", "seen"), [(0, "127.0.0.1"), (1, "10.0.0.2"), (2, "10.0.0.1"), (3, "127.0.0.1")]
    )
    def test_an_address_is_taken_from_our_own_proxies_alone(
        self, settings: Any, rf: Any, proxies: int, seen: str
    ) -> None:
        settings.PROXIES = proxies
        request = rf.get("/", headers={"X-Forwarded-For": "10.0.0.1, 10.0.0.2"})
        assert address_of(request) == seen

    @pytest.mark.parametrize(
        ("remote", "seen"),
        [
            (None, ""),
            ("", ""),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("made up", "made up"),
        ],
    )
    def test_addresses_of_connections(self, rf: Any, remote: str | None, seen: str) -> None:
        request = rf.get("/", REMOTE_ADDR=remote)
        if remote is None:
            del request.META["REMOTE_ADDR"]
        assert address_of(request) == seen

    def test_too_many_requests(self, api: Client, settings: Any) -> None:
        cache.clear()
        settings.API_REQUESTS_PER_MINUTE = 2
        answers = [api.get("/api/sessions/") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[2].json()["error"]["code"] == "rate_limited"
        # A crowd of others makes nobody's requests forgotten.
        cache.set_many({f"somebody_else_{number}": [] for number in range(2_000)})
        assert api.get("/api/sessions/").status_code == 429


@pytest.mark.parametrize("change", ["disabled", "erased", "new password"])
def test_tokens_end_with_the_account(client: Client, ann: Any, change: str) -> None:
    got = client.post("/api/token/", {"username": "ann", "password": PASSWORD}, JSON).json()
    if change == "erased":
        erase_user(ann)
    elif change == "disabled":
        type(ann).objects.update(is_active=False)
    else:
        ann.set_password("another-one-9")
        ann.save()
    renewed = client.post("/api/token/refresh/", {"refresh": got["refresh"]}, JSON)
    for access in (got["access"], renewed.json().get("access", "")):
        headers = {"Authorization": f"Bearer {access}"}
        assert client.get("/api/sessions/", headers=headers).status_code == 401
    assert renewed.status_code == (200 if change == "new password" else 401)


def test_signing_out_ends_refresh_tokens(client: Client, ann: Any) -> None:
    def get_token(name: str) -> str:
        got = client.post("/api/token/", {"username": name, "password": PASSWORD}, JSON)
        token: str = got.json()["refresh"]
        return token

    def refresh(token: str) -> int:
        return client.post("/api/token/refresh/", {"refresh": token}, JSON).status_code

    make_user("ben")
    old = str(RefreshToken.for_user(ann))
    before, other = get_token("ann"), get_token("ben")
    assert (refresh(before), refresh(old)) == (200, 200)
    browser = Client()
    browser.force_login(ann)
    browser.post("/accounts/logout/")
    assert (refresh(before), refresh(old), refresh(other)) == (401, 401, 200)
    assert refresh(get_token("ann")) == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("[1]", 400),
        ("{" * 10, 400),
        ('{"title": ' + "[" * 50_000 + "]" * 50_000 + "}", 400),
        ('{"title": NaN}', 400),
        ('"' + "x" * 300_000 + '"', 413),
    ],
)
def test_bodies_that_are_no_use(api: Client, body: str, status: int) -> None:
    assert api.post("/api/sessions/", body, JSON).status_code == status
