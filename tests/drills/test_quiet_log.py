"""A crawler at `LOG_LEVEL=DEBUG`: whatever is asked for, the log holds no text and no secret.

All texts that people write or a model answers hold `SECRET`, in calls that succeed and in such that
fail. The tests share one server, and each reads the whole of its log.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests

from realtime import wire_schema
from tests.drills.conftest import SETTINGS
from tests.support import approvals
from tests.support.addresses import routes
from tests.support.client import open_chat
from tests.support.conformance import openapi
from tests.support.provider import Provider, Reply, ToolCall, echo
from tests.support.servers import scratch_dir
from tests.support.site import DEFAULTS, LOGIN_PATH, Site, User, run_site
from tests.support.variants import variants

SECRET = "heron-canary-47"
CANARY = "Say what is known about a word."
"""From the schema of a tool, which goes to the model with its instructions."""

PROVIDER_KEY = "sk-for-tests-only-5f1d9c"
ADMIN = User("admin", DEFAULTS["DJANGO_SUPERUSER_PASSWORD"], 0, "")
IN_ROUTE, IN_DOCUMENT = re.compile(r"<(?:\w+:)?(\w+)>"), re.compile(r"{(\w+)}")
WORD = quote(SECRET)
SEARCHES = ("", f"?q={WORD}&search={WORD}", f"?cursor={WORD}&state={WORD}&branch={WORD}")


@dataclass
class Life:
    """A site where something of everything is there, and what its log must not hold."""

    site: Site
    provider: Provider
    ids: dict[str, str]
    key: str
    cookies: dict[str, str]
    secrets: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def request(self, method: str, path: str, **more: Any) -> int:
        """The status of an answer, which is kept."""
        answer = self.site.request(method, path, **more)
        self.bodies.append(answer.body)
        self.secrets += answer.cookies.values()
        return answer.status

    def check(self) -> None:
        """Raises `AssertionError` with the lines that hold what they must not."""
        log = self.site.log
        assert " DEBUG " in log
        for text in {SECRET, CANARY, PROVIDER_KEY, *filter(None, self.secrets)}:
            lines = [line for line in log.splitlines() if text in line] if text in log else []
            assert lines == [], text
        # What the model is told, and nobody else.
        assert [body for body in self.bodies if CANARY.encode() in body] == []


@pytest.fixture(scope="module")
def life(shared_provider: Provider) -> Iterator[Life]:
    shared_provider.forget()
    shared_provider.script = echo
    settings = SETTINGS | {
        "OPENAI_BASE_URL": shared_provider.base_url,
        "OPENAI_API_KEY": PROVIDER_KEY,
        "LOG_LEVEL": "DEBUG",
        "REST_WAIT_S": "0.1",
        "ALLOW_GUESTS": "1",
        "TITLES": "model",
        "SUMMARIES": "model",
    }
    with scratch_dir("quiet") as path, run_site(**settings) as site:
        yield asyncio.run(make_life(site, shared_provider, path / SECRET))


async def make_life(site: Site, provider: Provider, path: Path) -> Life:
    """A conversation with an open request, a link to it, and a key; ids by their names in routes.

    The path that is to be erased, the message and the title all hold `SECRET`.
    """
    ann = site.users["ann"]
    async with site.chat(ann) as client:
        accepted = await approvals.ask(client, provider, approvals.erase(path))
        [asked] = approvals.requests(client, accepted["run_id"])
    session_id = accepted["session_id"]
    here = f"/api/sessions/{session_id}/"
    site.request("PATCH", here, user=ann, data={"title": SECRET})
    share = site.request("POST", f"{here}shares/", user=ann).json()
    body = {"name": SECRET, "scopes": ["read", "write", "export"]}
    key = site.request("POST", "/api/keys/", user=ann, data=body).json()
    ids = {
        "session_id": session_id,
        "run_id": accepted["run_id"],
        "message_id": accepted["message_id"],
        "request_id": asked["request_id"],
        "share_id": share["id"],
        "key_id": key["id"],
        "client_message_id": f"{SECRET}-1",
        "token": share["token"],
        "word": SECRET,
        "uidb64": "MQ",
        "app_label": "conversations",
        "content_type_id": "1",
        "url": SECRET,
        # Staff rename this one and set a password.
        "id": str(site.make_user("carl").pk),
    }
    cookies = {name: site.login(user) for name, user in (("ann", ann), ("staff", ADMIN))}
    secrets = [share["token"], key["key"], ann.token, ann.password, ADMIN.password]
    secrets += [cookie.partition("=")[2] for cookie in cookies.values()]
    return Life(site, provider, ids, key["key"], cookies, secrets)


def addresses(ids: dict[str, str]) -> list[str]:
    """Every address of the site that `ids` can fill in."""
    plain = [route.address for route in routes("/") if not re.search(r"[(^\\]", route.address)]
    filled = {
        IN_ROUTE.sub(lambda found: ids[found[1]], path)
        for path in plain
        if set(IN_ROUTE.findall(path)) <= ids.keys()
    }
    return sorted(filled - {"/accounts/logout/", "/admin/logout/"})


def test_no_page_writes_texts_or_secrets(life: Life) -> None:
    """Every address is visited by its owner, by staff and by a stranger, right and wrong."""
    ann = life.site.users["ann"]
    callers: list[dict[str, str]] = [
        *({"Cookie": cookie} for cookie in life.cookies.values()),
        *({"Authorization": f"Bearer {text}"} for text in (ann.token, life.key, f"{life.key}x")),
        {"User-Agent": SECRET, "Referer": f"http://{SECRET}/", "X-Forwarded-For": SECRET},
        {"Cookie": f"sessionid={SECRET}; csrftoken={SECRET}", "Authorization": f"Bearer {SECRET}"},
    ]
    paths = addresses({**life.ids, "object_id": life.ids["session_id"]})
    assert len(paths) > 60
    seen = {
        life.request(method, f"{path}{query}", headers=headers)
        for path in paths
        for headers, query in zip(callers, [*SEARCHES, *SEARCHES, ""], strict=True)
        for method in ("GET", "PUT")
    }
    assert {200, 302, 401, 403, 404, 405} <= seen
    assert {status for status in seen if status >= 500} == set()
    assert CANARY in json.dumps(life.provider.calls[0].body)
    life.check()


def test_no_page_for_staff_does(life: Life) -> None:
    """Each list, searched in every way, each row's pages, and each action."""
    staff = Browser(life, life.cookies["staff"])
    rows = ("session_id", "run_id", "request_id", "key_id", "id")
    paths = {
        path
        for name in rows
        for path in addresses({**life.ids, "object_id": life.ids[name]})
        if path.startswith("/admin/") and "/password_change/" not in path
    }
    seen = {staff.get(f"{path}{query}") for path in sorted(paths) for query in SEARCHES}
    row = {"_selected_action": life.ids["session_id"], "select_across": "0", "index": "0"}
    for path in sorted(path for path in paths if "/delete/" not in path):
        for action in ("assign_to_me", "mark_reviewed", "revoke", SECRET):
            if path in ("/admin/conversations/chatsession/", "/admin/conversations/apikey/"):
                seen.add(staff.post(path, action=action, **row))
        texts = ("name", "note", "username", "email", "password1", "password2", "old_password")
        seen.add(staff.post(path, **dict.fromkeys(texts, SECRET), labels=SECRET, reviewed="on"))
    assert {200, 302, 403, 404} <= seen
    assert {status for status in seen if status >= 500} == set()
    life.check()


async def test_no_call_does(life: Life) -> None:
    """Every operation of the API with its bodies, whole, malformed and of a wrong shape."""
    ann, seen = life.site.users["ann"], set()
    operations = [
        (method, path, operation)
        for path, methods in openapi()["paths"].items()
        for method, operation in methods.items()
    ]
    unknown = {**life.ids, "request_id": "0" * 32, "share_id": "0" * 32, "key_id": "0" * 32}
    for method, path, operation in sorted(operations, key=lambda entry: entry[0] == "delete"):
        address = IN_DOCUMENT.sub(lambda found: unknown[found[1]], path)
        for body in bodies(operation, life.ids):
            for headers in ({"Authorization": f"Bearer {ann.token}"}, {}):
                sent = headers | {"Content-Type": "application/json"}
                seen.add(life.request(method.upper(), address, data=body, headers=sent))
    tokens = {"username": ann.username, "password": ann.password}
    pair = life.site.request("POST", "/api/token/", data=tokens).json()
    refreshed = life.site.request("POST", "/api/token/refresh/", data={"refresh": pair["refresh"]})
    ticket = life.site.request("POST", "/api/ws-tickets/", user=ann).json()["ticket"]
    life.secrets += [*pair.values(), *refreshed.json().values(), ticket]
    for text in (ticket, ticket, ann.token, life.key, pair["refresh"], SECRET):
        async with open_chat(f"{life.site.ws_url}?token={text}&x={SECRET}") as client:
            await client.wait_until(lambda: client.frames or client.close_code)
    assert {200, 201, 204, 400, 401, 404, 415} - {415} <= seen
    assert {status for status in seen if status >= 500} == set()
    life.check()


def bodies(operation: Any, ids: dict[str, str]) -> Iterator[bytes]:
    """None, each variant of what is declared with marked texts, and what is no such thing."""
    yield b""
    yield f'{{"{SECRET}'.encode()
    yield json.dumps([SECRET]).encode()
    if "requestBody" not in operation:
        return
    content = operation["requestBody"]["content"]["application/json"]
    for body in variants(content["schema"], ids, openapi()["components"]["schemas"]):
        yield json.dumps(marked(body)).encode()
    for wrong in (SECRET, [SECRET], {SECRET: SECRET}, 10**30, None):
        yield json.dumps(dict.fromkeys(body, wrong) | {SECRET: wrong}).encode()


def marked(value: Any) -> Any:
    """The same, its examples of texts being marked."""
    if isinstance(value, dict):
        return {name: marked(part) for name, part in value.items()}
    if isinstance(value, list):
        return [marked(part) for part in value]
    return f"{SECRET} {SECRET}" if value == "x" else value


def test_no_form_does(life: Life) -> None:
    """Signing up, in and out, passwords, keys: right and wrong, with and without a CSRF token."""
    password = f"{SECRET}-Password"
    mail = f"{SECRET}@example.org"
    visitor = Browser(life)
    seen = {
        visitor.post(LOGIN_PATH, username=SECRET, password=password),
        visitor.post(LOGIN_PATH, username="ann", password=password),
        visitor.post("/accounts/guest/", next=f"/{SECRET}"),
        visitor.post(
            "/accounts/signup/", username="eve", password1=password, password2=SECRET, email=SECRET
        ),
        visitor.post(
            "/accounts/signup/", username="eve", password1=password, password2=password, email=mail
        ),
        visitor.post("/accounts/keys/", name=SECRET, scopes="read"),
        visitor.post("/accounts/keys/", name=SECRET * 50, scopes=SECRET),
        visitor.post("/accounts/password/change/", old_password=SECRET, new_password1=SECRET),
        visitor.post(
            "/accounts/password/change/",
            old_password=password,
            new_password1=f"{password}2",
            new_password2=f"{password}2",
        ),
        visitor.post("/accounts/password/reset/", email=mail),
        visitor.post("/accounts/password/reset/", email=f"nobody-{mail}"),
        visitor.get(f"/accounts/password/reset/MQ/{SECRET}/"),
        visitor.post(f"/accounts/password/reset/MQ/{SECRET}/", new_password1=SECRET),
        visitor.post("/accounts/logout/"),
        visitor.post(LOGIN_PATH, csrf=SECRET, username="ann", password=password),
        visitor.post(LOGIN_PATH, csrf="", username="ann", password=password),
        visitor.post(f"/{SECRET}/", text=SECRET),
        visitor.post("/admin/login/", username=SECRET, password=password),
    }
    assert {200, 302, 403, 404} <= seen
    life.check()


class Browser:
    """Keeps cookies and answers forms as a page of the site does."""

    def __init__(self, life: Life, cookie: str = "") -> None:
        self._life = life
        self._http = requests.Session()
        self.get(LOGIN_PATH)
        if cookie:
            name, _, value = cookie.partition("=")
            self._http.cookies.set(name, value, domain="127.0.0.1", path="/")

    def get(self, path: str) -> int:
        """The status of a page."""
        return self._took(self._http.get(f"{self._life.site.origin}{path}", allow_redirects=False))

    def post(self, path: str, *, csrf: str | None = None, **fields: str) -> int:
        """The status of an answer to a form."""
        token = self._http.cookies.get("csrftoken") if csrf is None else csrf
        return self._took(
            self._http.post(
                f"{self._life.site.origin}{path}",
                data={"csrfmiddlewaretoken": token, **fields},
                headers={"Origin": self._life.site.origin},
                allow_redirects=False,
            )
        )

    def _took(self, answer: requests.Response) -> int:
        self._life.bodies.append(answer.content)
        self._life.secrets += [value for value in self._http.cookies.values() if value]
        return answer.status_code


async def test_no_frame_does(life: Life) -> None:
    """Every frame of a client, with marked texts; and what is none."""
    document = wire_schema.asyncapi()
    schemas = document["components"]["schemas"]
    references = [it["$ref"] for it in document["operations"]["fromClient"]["messages"]]
    wrong = [f'{{"{SECRET}', SECRET, "[" * 500 + SECRET, json.dumps([SECRET]), f'"{SECRET}"']
    async with life.site.chat(life.site.users["ann"]) as client:
        for reference in references:
            schema = schemas[reference.rpartition("/")[2]]
            for frame in variants(schema, life.ids, schemas):
                await client.send(marked(frame))
                for name in ("content", "session_id", "metadata", SECRET):
                    wrong.append(json.dumps({**frame, name: SECRET}))
                    wrong.append(json.dumps({**frame, name: {SECRET: SECRET}}))
        for text in [*dict.fromkeys(wrong), f'{{"type": "{SECRET}"}}']:
            await client.send_text(text)
        await client.send_text(SECRET.encode())
        await client.ping("end")
        assert client.close_code is None
    life.check()


async def test_no_fault_of_a_model_or_a_tool_does(life: Life) -> None:
    """Errors of a provider that quote what they were sent, and tools that raise."""
    word = json.dumps({"word": SECRET})
    quoted = f"Incorrect API key provided: {PROVIDER_KEY}. You sent: {SECRET}"
    calls = [
        ToolCall("look_up", word),
        ToolCall("look_up", f'{{"word": "{SECRET}'),
        ToolCall("look_up", json.dumps({"word": [SECRET]})),
        ToolCall("read_file", json.dumps({"path": f"/{SECRET}"})),
        ToolCall("read_file", json.dumps({"path": f"/{SECRET}\0"})),
        ToolCall(SECRET, word),
        ToolCall("fail", word),
    ]
    faults = [
        *(Reply(error_status=status, error_code=SECRET, error_message=quoted)
          for status in (400, 401, 403, 404, 413, 429, 500, 503)),
        Reply([SECRET], stream_error=SECRET),
        Reply([f"{SECRET} "] * 3, cut_after=1),
        Reply([f"{SECRET} "] * 3, end_after=1),
        Reply([SECRET], reasoning=[SECRET], finish_reason="length"),
        Reply([SECRET], finish_reason="content_filter"),
    ]  # fmt: skip
    async with life.site.chat(life.site.users["ben"]) as client:
        for fault in [*faults, *(Reply([SECRET], tool_calls=[call]) for call in calls)]:
            life.provider.queue(fault)
            accepted = await client.chat(f"Tell me of {SECRET}")
            await client.wait_end(accepted["run_id"])
    life.check()


def test_nothing_does_at_the_end(life: Life) -> None:
    """While it stops, it says what is left."""
    assert life.site.terminate() == 0
    life.check()
