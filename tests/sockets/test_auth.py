"""Who may open a socket."""

import asyncio
import json
from typing import Any

import jwt
import pytest
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import OperationalError
from django.test import Client
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken

from conversations.people.accounts import create_key, revoke_key
from conversations.people.sign_ins import list_ended_sign_ins
from realtime import routing
from realtime.process import BUSY_S, Process
from realtime.routing import (
    HandshakeAuth,
    _from_cookie,
    _from_header,
    is_own_origin,
    websocket_urlpatterns,
)
from realtime.sockets import limits
from realtime.sockets.limits import Handshakes
from tests.support.machine import scaled
from tests.support.threads import in_thread

HOST = (b"host", b"localhost:8000")
OWN = (b"origin", b"http://localhost:8000")


@pytest.fixture(autouse=True)
def hosts(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["localhost"]


async def close_code(headers: list[tuple[bytes, bytes]]) -> int | None:
    """How a handshake with these headers ends; None when it is let in."""
    application = HandshakeAuth(URLRouter(websocket_urlpatterns))
    communicator = WebsocketCommunicator(application, "/ws/agent/", headers=[HOST, *headers])
    connected, _ = await communicator.connect()
    assert connected, "a browser sees the code of an accepted socket only"
    first = await communicator.receive_output()
    if first["type"] == "websocket.close":
        code: int = first["code"]
        return code
    await communicator.disconnect()
    return None


@pytest.fixture
def cookie(transactional_db: None) -> tuple[bytes, bytes]:
    client = Client()
    client.force_login(get_user_model().objects.create_user("ada"))
    return b"cookie", f"sessionid={client.cookies['sessionid'].value}".encode()


@pytest.fixture
def token(transactional_db: None) -> AccessToken:
    refresh = RefreshToken.for_user(get_user_model().objects.create_user("bob"))
    assert isinstance(refresh, RefreshToken)
    return refresh.access_token


def bearer(token: object) -> tuple[bytes, bytes]:
    return b"authorization", f"Bearer {token}".encode()


async def test_a_cookie_with_the_own_origin(process: Process, cookie: Any) -> None:
    assert await close_code([cookie, OWN]) is None


@pytest.mark.parametrize(
    "origin",
    [
        None,
        b"null",
        b"https://localhost:8000",
        b"http://localhost:8001",
        b"http://localhost",
        b"http://sub.localhost:8000",
        b"http://localhost:8000.evil.example",
        b"http://evil.example",
        b"http://[",
    ],
)
async def test_a_cookie_with_another_origin(process: Process, cookie: Any, origin: Any) -> None:
    headers = [cookie] if origin is None else [cookie, (b"origin", origin)]
    assert await close_code(headers) == 4403


@pytest.mark.parametrize(
    "other", [b'theme={"dark": true}', b"words=two words", b"lonely", b"k@x=1", b"caf\xc3\xa9=1"]
)
async def test_cookies_of_others_are_no_hindrance(
    process: Process, cookie: Any, other: bytes
) -> None:
    name, own = cookie
    assert await close_code([(name, other + b"; " + own), OWN]) is None


@pytest.mark.parametrize(
    ("origin", "trusted"),
    [
        ("https://app.example.org", True),
        ("https://a.b.example.org", True),
        ("https://example.org", True),
        ("https://app.example.org:8443", False),
        ("http://app.example.org", False),
        ("https://example.org.evil.example", False),
        ("https://evilexample.org", False),
        ("https://exact.example.net", True),
        ("https://sub.exact.example.net", False),
        ("https://[", False),
        ("null", False),
    ],
)
def test_trusted_origins_are_read_as_django_reads_them(
    settings: Any, origin: str, trusted: bool
) -> None:
    settings.CSRF_TRUSTED_ORIGINS = ["https://*.example.org", "https://exact.example.net"]
    assert is_own_origin({"scheme": "wss"}, {b"host": "localhost"}, origin) is trusted


async def test_nobody_is_told_so(process: Process) -> None:
    assert await close_code([OWN]) == 4001
    assert await close_code([OWN, (b"cookie", b"sessionid=made-up")]) == 4001
    assert await close_code([OWN, (b"cookie", b"sessionid=\xff; x")]) == 4001


async def test_a_token_needs_no_origin_but_no_wrong_one(process: Process, token: Any) -> None:
    assert await close_code([bearer(token)]) is None
    assert await close_code([bearer(token), OWN]) is None
    assert await close_code([bearer(token), (b"origin", b"http://evil.example")]) == 4403


async def test_tokens_that_do_not_hold(process: Process, token: AccessToken) -> None:
    for change in (
        {},
        {"exp": 1},
        {"nbf": token.payload["exp"]},
        {"aud": "another"},
        {"token_type": "refresh"},
    ):
        signed = jwt.encode({"aud": "agentsite", **token.payload, **change}, settings.SECRET_KEY)
        assert await close_code([bearer(signed)]) == (4001 if change else None), change
    assert await close_code([bearer("nonsense")]) == 4001
    assert await close_code([(b"authorization", b"Basic YTpi")]) == 4001


async def test_a_cookie_from_before_the_secret_key_changed(
    process: Process, cookie: Any, settings: Any
) -> None:
    """It stays good: a handshake cannot send the browser another one."""
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another secret key of this site, from now on"
    for _ in range(2):
        assert await close_code([cookie, OWN]) is None
    found = await in_thread(_from_cookie, cookie[1].decode())
    assert found is not None
    assert await in_thread(list_ended_sign_ins, [found[1]]) == set()


async def test_a_disabled_account_is_not_let_in(process: Process, cookie: Any) -> None:
    await get_user_model().objects.aupdate(is_active=False)
    assert await close_code([cookie, OWN]) == 4001


async def test_nobody_is_let_in_while_the_database_is_away(
    process: Process, cookie: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def fail(*args: Any) -> None:
        raise OperationalError("the connection is gone")

    monkeypatch.setattr(routing, "_from_cookie", fail)
    assert await close_code([cookie, OWN]) == 4013
    (record,) = [record for record in caplog.records if record.name == routing.__name__]
    assert record.getMessage() == "authenticating a socket failed: OperationalError"
    assert record.exc_info is None


@pytest.mark.parametrize(
    ("origin", "host", "forwarded", "own"),
    [
        ("https://chat.example.org", "chat.example.org", "https", True),
        ("https://chat.example.org:443", "chat.example.org", "https", True),
        ("http://chat.example.org", "chat.example.org", "https", False),
        ("https://chat.example.org", "chat.example.org", "http", False),
        ("https://chat.example.org", "evil.example", "https", False),
        ("https://evil.example", "evil.example", "https", False),
        ("https://partner.example", "chat.example.org", "https", True),
    ],
)
def test_behind_a_proxy(settings: Any, origin: str, host: str, forwarded: str, own: bool) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.ALLOWED_HOSTS = ["chat.example.org"]
    settings.CSRF_TRUSTED_ORIGINS = ["https://partner.example"]
    headers = {b"host": host, b"x-forwarded-proto": forwarded}
    assert is_own_origin({"scheme": "ws"}, headers, origin) is own


def test_the_forwarded_scheme_is_not_trusted_by_default(settings: Any) -> None:
    settings.SECURE_PROXY_SSL_HEADER = None
    headers = {b"host": "localhost", b"x-forwarded-proto": "https"}
    assert not is_own_origin({"scheme": "ws"}, headers, "https://localhost")
    assert is_own_origin({"scheme": "wss"}, headers, "https://localhost")


async def test_another_address_is_refused(process: Process, cookie: Any) -> None:
    application = HandshakeAuth(URLRouter(websocket_urlpatterns))
    communicator = WebsocketCommunicator(application, "/ws/other/", headers=[HOST, cookie, OWN])
    connected, _ = await communicator.connect()
    assert not connected


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], 4403),
        ([(b"x-forwarded-proto", b"http")], 4403),
        ([(b"x-forwarded-proto", b"https")], None),
    ],
)
async def test_where_pages_need_tls_sockets_do(
    process: Process, token: AccessToken, settings: Any, headers: Any, code: int | None
) -> None:
    """A token would be sent for everybody on the way to read."""
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert await close_code([bearer(token), *headers]) == code


async def test_with_no_credentials_that_is_what_is_told(process: Process) -> None:
    for headers in ([], [OWN], [(b"origin", b"http://evil.example")], [(b"cookie", b"theme=1")]):
        assert await close_code(headers) == 4001


async def test_an_api_key_opens_a_socket_until_it_is_revoked(process: Process, cookie: Any) -> None:
    ada = await get_user_model().objects.aget()
    key, text = await in_thread(lambda: create_key(user=ada, name="x", scopes=["read"]))
    _, other = await in_thread(lambda: create_key(user=ada, name="x", scopes=["write"]))
    assert await close_code([bearer(text)]) is None
    assert await close_code([bearer(other)]) == 4001
    found = await in_thread(_from_header, f"Bearer {text}")
    assert found is not None
    sign_in = found[1]
    # A new password ends the sign-ins that were got with the old one, and no key.
    ada.set_password("another")
    await ada.asave()
    assert await in_thread(list_ended_sign_ins, [sign_in]) == set()
    await in_thread(lambda: revoke_key(user=ada, key_id=str(key.pk)))
    assert await in_thread(list_ended_sign_ins, [sign_in]) == {sign_in}
    assert await close_code([bearer(text)]) == 4001


class TestHowMany:
    """The newest is refused, so that nobody is pushed out."""

    @pytest.fixture(autouse=True)
    def few(self, settings: Any) -> None:
        settings.REALTIME = {**settings.REALTIME, "sockets_per_user": 2, "sockets_per_address": 3}

    async def open(self, *headers: tuple[bytes, bytes]) -> tuple[WebsocketCommunicator, Any]:
        """A socket, and the code with which it is closed at once, if it is."""
        application = HandshakeAuth(URLRouter(websocket_urlpatterns))
        communicator = WebsocketCommunicator(application, "/ws/agent/", headers=[HOST, *headers])
        communicator.scope["client"] = ["192.0.2.7", 1]
        await communicator.connect()
        return communicator, (await communicator.receive_output()).get("code")

    async def test_of_one_user(self, process: Process, token: AccessToken) -> None:
        opened = [await self.open(bearer(token)) for _ in range(4)]
        assert [code for _, code in opened] == [None, None, 4429, 4429]
        await opened[0][0].disconnect()
        again, code = await self.open(bearer(token))
        assert code is None
        for communicator in (opened[1][0], again):
            await communicator.disconnect()
        assert not process.places

    async def test_of_one_address(self, process: Process, token: AccessToken, cookie: Any) -> None:
        ways = [[bearer(token)], [cookie, OWN], [cookie, OWN], [bearer(token)]]
        opened = [await self.open(*headers) for headers in ways]
        assert [code for _, code in opened] == [None, None, None, 4429]
        for communicator, _ in opened[:3]:
            await communicator.disconnect()

    async def test_all_at_once(self, process: Process, token: AccessToken) -> None:
        opened = await asyncio.gather(*(self.open(bearer(token)) for _ in range(6)))
        assert sorted(str(code) for _, code in opened) == ["4429"] * 4 + ["None"] * 2
        for communicator, code in opened:
            if code is None:
                await communicator.disconnect()


async def test_handshakes_take_turns_and_only_so_many_wait(
    process: Process, token: AccessToken, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REALTIME = {**settings.REALTIME, "handshakes_waiting": 2}
    # Only the test ends a turn.
    monkeypatch.setattr(limits, "HANDSHAKE_PAUSE_S", 3_600)
    application = HandshakeAuth(URLRouter(websocket_urlpatterns))
    sockets = [
        WebsocketCommunicator(application, "/ws/agent/", headers=[HOST, bearer(token)])
        for _ in range(4)
    ]
    opening = [asyncio.create_task(socket.connect(scaled(30))) for socket in sockets]
    await opening[0]
    refused = sockets[3]
    await opening[3]
    error = json.loads(await refused.receive_from())
    assert (error["type"], error["metadata"]["code"]) == ("error", "unavailable")
    assert BUSY_S <= error["metadata"]["retry_after"] <= 2 * BUSY_S
    assert (await refused.receive_output())["code"] == 4013
    for number in (1, 2):
        assert not any(task.done() for task in opening[number:3])
        process.handshakes._call_next()
        assert (await opening[number])[0]
    for socket in sockets[:3]:
        await socket.disconnect()


async def test_an_address_with_many_handshakes_keeps_no_other_out(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REALTIME = {**settings.REALTIME, "handshakes_waiting": 4}
    monkeypatch.setattr(limits, "HANDSHAKE_PAUSE_S", 3_600)
    handshakes = Handshakes()
    assert await handshakes.enter("crowd")
    crowd = [asyncio.create_task(handshakes.enter("crowd")) for _ in range(4)]
    await asyncio.sleep(0)
    assert not await handshakes.enter("crowd")
    single = asyncio.create_task(handshakes.enter("single"))
    gone = asyncio.create_task(handshakes.enter("gone"))
    await asyncio.sleep(0)
    assert [await task for task in crowd[2:]] == [False, False]
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    order = []
    for _ in range(3):
        handshakes._call_next()
        await asyncio.sleep(0)
        waiting = {"crowd 0": crowd[0], "crowd 1": crowd[1], "single": single}
        order.append({name for name, task in waiting.items() if task.done()})
    assert order == [{"crowd 0"}, {"crowd 0", "single"}, {"crowd 0", "crowd 1", "single"}]
    assert (handshakes._waiting, len(handshakes._lines)) == (0, 0)
