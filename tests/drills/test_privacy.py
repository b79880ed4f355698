"""What people write goes to the model that is configured, to nobody else, and not to logs."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.drills.conftest import SETTINGS
from tests.support.addresses import routes
from tests.support.approvals import ask, erase, requests
from tests.support.client import open_chat
from tests.support.provider import Provider, Reply, ToolCall
from tests.support.site import DEFAULTS, LOGIN_PATH, Site, User, run_site

SECRET = "heron-canary-47"
ANSWER = "answer-canary-48"


@pytest.fixture(params=["chat", "responses"])
def guarded_site(request: pytest.FixtureRequest, provider: Provider) -> Iterator[Site]:
    """With a key, which is all that the SDK needs to export its traces."""
    settings = SETTINGS | {
        "DJANGO_SETTINGS_MODULE": "tests.support.guarded_settings",
        "OPENAI_BASE_URL": provider.base_url,
        "OPENAI_API_KEY": "sk-for-tests-only",
        "AGENT_API": request.param,
        "LOG_LEVEL": "DEBUG",
    }
    with run_site(**settings) as site:
        yield site


async def test_nothing_leaves_but_to_the_model(guarded_site: Site, provider: Provider) -> None:
    ann = guarded_site.users["ann"]
    call = ToolCall("look_up", json.dumps({"word": SECRET}))
    provider.queue(
        Reply(tool_calls=[call]),
        Reply([f"{ANSWER} ", "found."], reasoning=[f"{ANSWER}?"]),
        Reply(error_status=401, error_code=SECRET),
        Reply([ANSWER], cut_after=1),
    )
    async with guarded_site.chat(ann) as client:
        accepted = await client.chat(f"Tell me of {SECRET}")
        assert (await client.wait_end(accepted["run_id"]))["content"] == f"{ANSWER} found."
        for _ in range(2):
            failing = await client.chat(f"And of {SECRET}", accepted["session_id"])
            assert (await client.wait_end(failing["run_id"]))["type"] == "error"
    assert guarded_site.terminate() == 0
    reached = set(re.findall(r"^outbound (.*)$", guarded_site.log, re.MULTILINE))
    assert {place for place in reached if is_foreign(place, provider.port)} == set()
    assert any(f"'127.0.0.1', {provider.port}" in place for place in reached)
    for text in (SECRET, ANSWER):
        assert text not in guarded_site.log


def is_foreign(place: str, port: int) -> bool:
    """Other than the model's server, the socket that is listened on, and files."""
    event, _, address = place.partition(" ")
    if event == "socket.connect":
        return address != f"('127.0.0.1', {port})" and not address.startswith(("'", "b'"))
    return address not in ("'127.0.0.1'", "None")


CANARY = "Say what is known about a word."
"""From the schema of a tool, which goes to the model with its instructions."""

IN_ROUTE = re.compile(r"<(?:\w+:)?(\w+)>")
ROOT = User("admin", DEFAULTS["DJANGO_SUPERUSER_PASSWORD"], 0, "")


@pytest.fixture
def open_site(provider: Provider) -> Iterator[Site]:
    with run_site(
        **SETTINGS | {"OPENAI_BASE_URL": provider.base_url, "LOG_LEVEL": "DEBUG"},
        OPENAI_API_KEY="sk-for-tests-only",
    ) as site:
        yield site


async def test_no_page_writes_texts_or_secrets_to_the_log(
    open_site: Site, provider: Provider, tmp_path: Path
) -> None:
    """Every address is visited by its owner, by staff and by a stranger, right and wrong."""
    site, ann = open_site, open_site.users["ann"]
    ids, key = await make_life(site, provider, tmp_path / SECRET)
    cookies = [site.login(user) for user in (ann, ROOT)]
    ticket = site.request("POST", "/api/ws-tickets/", user=ann).json()["ticket"]
    for text in (ticket, ticket, ann.token, key):
        async with open_chat(f"{site.ws_url}?token={text}") as client:
            await client.wait_until(lambda: client.frames or client.close_code)
    callers: list[dict[str, str]] = [
        *({"Cookie": cookie} for cookie in cookies),
        *({"Authorization": f"Bearer {text}"} for text in (ann.token, key, f"{key}x")),
        {},
    ]
    answers = [
        site.request(method, path, headers=headers)
        for path in addresses(ids)
        for headers in callers
        for method in ("GET", "PUT")
    ]
    # What the model is told, and nobody else.
    assert CANARY in json.dumps(provider.calls[0].body)
    assert [answer for answer in answers if CANARY.encode() in answer.body] == []
    assert CANARY not in site.log
    seen = {answer.status for answer in answers}
    assert {200, 302, 401, 403, 404, 405} <= seen
    assert {status for status in seen if status >= 500} == set()
    assert_unlogged(
        site, SECRET, ticket, ids["token"], ann.token, key, *cookies, sign_in_token(site)
    )


async def make_life(site: Site, provider: Provider, path: Path) -> tuple[dict[str, str], str]:
    """A conversation with an open request, a link to it, and a key; ids by their names in routes.

    The path that is to be erased, the message and the title all hold `SECRET`.
    """
    ann = site.users["ann"]
    async with site.chat(ann) as client:
        accepted = await ask(client, provider, erase(path))
        [asked] = requests(client, accepted["run_id"])
    session_id = accepted["session_id"]
    here = f"/api/sessions/{session_id}/"
    site.request("PATCH", here, user=ann, data={"title": SECRET})
    share = site.request("POST", f"{here}shares/", user=ann).json()
    body = {"name": "program", "scopes": ["read", "write", "export"]}
    key = site.request("POST", "/api/keys/", user=ann, data=body).json()
    ids = {
        "session_id": session_id,
        "object_id": session_id,
        "run_id": accepted["run_id"],
        "message_id": accepted["message_id"],
        "request_id": asked["request_id"],
        "share_id": share["id"],
        "key_id": key["id"],
        "token": share["token"],
        "word": SECRET,
        "uidb64": "MQ",
        "app_label": "conversations",
        "content_type_id": "1",
        "url": SECRET,
    }
    return ids, key["key"]


def addresses(ids: dict[str, str]) -> list[str]:
    """Every address of the site that `ids` can fill in, alone and with words to look for."""
    plain = [route.address for route in routes("/") if not re.search(r"[(^\\]", route.address)]
    paths = [
        IN_ROUTE.sub(lambda found: ids[found[1]], path)
        for path in plain
        if set(IN_ROUTE.findall(path)) <= ids.keys()
    ]
    assert len(paths) > 60
    word = quote(SECRET)
    return [f"{path}{query}" for path in paths for query in ("", f"?q={word}&search={word}")]


def sign_in_token(site: Site) -> str:
    """One of the tokens that protect forms."""
    return site.request("GET", LOGIN_PATH).cookies["csrftoken"]


def assert_unlogged(site: Site, *texts: Any) -> None:
    for text in texts:
        secret = str(text).partition("=")[2] or str(text)
        lines = [line for line in site.log.splitlines() if secret in line]
        assert lines == [], secret
