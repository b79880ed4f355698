"""What a server makes of headers and bodies from outside."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pytest

from tests.support.machine import scaled
from tests.support.site import LOGIN_PATH, Answer, Site, User, run_site
from tests.support.waiting import TIMEOUT_S

SESSIONS = "/api/sessions/"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with run_site() as running:
        yield running


@pytest.fixture
def ann(site: Site) -> User:
    return site.users["ann"]


def send_chunked(site: Site, path: str, body: bytes, **headers: str) -> Answer:
    """A request whose body has no length, in two chunks."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=scaled(TIMEOUT_S))
    half = len(body) // 2
    with closing(connection):
        connection.request(
            "POST", path, iter([body[:half], body[half:]]), headers, encode_chunked=True
        )
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


def error_of(answer: Answer) -> Any:
    return answer.json()["error"]


@pytest.mark.parametrize("name", ["Daphne-Root-Path", "daphne-root-path", "Daphne_Root_Path"])
def test_nobody_chooses_the_prefix_of_addresses(site: Site, name: str) -> None:
    headers = {name: "/evil", "X-Script-Name": "/evil", "Script-Name": "/evil"}
    assert site.request("GET", "/evil/admin/login/", headers=headers).status == 404
    assert b"/evil" not in site.request("GET", LOGIN_PATH, headers=headers).body


def test_forwarded_names_change_nothing(site: Site) -> None:
    headers = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Port": "1", "Forwarded": "host=e"}
    assert b"evil.example" not in site.request("GET", LOGIN_PATH, headers=headers).body
    answer = site.request("GET", "/admin/", headers=headers)
    assert answer.headers["Location"] == "/admin/login/?next=/admin/"


def test_a_chunked_body_is_read(site: Site, ann: User) -> None:
    body = json.dumps({"title": "hello"}).encode()
    headers = {"Authorization": f"Bearer {ann.token}", "Content-Type": "application/json"}
    answer = send_chunked(site, SESSIONS, body, **headers)
    assert (answer.status, answer.json()["title"]) == (201, "hello")


@pytest.mark.parametrize("size", [300_000, 3 * MIB])
@pytest.mark.parametrize("path", [SESSIONS, "/api/token/", "/api/chat/"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large(
    site: Site, ann: User, size: int, path: str, chunked: bool
) -> None:
    headers = {"Authorization": f"Bearer {ann.token}", "Content-Type": "application/json"}
    body = json.dumps({"title": "x" * size}).encode()
    if chunked:
        answer = send_chunked(site, path, body, **headers)
    else:
        answer = site.request("POST", path, data=body, headers=headers)
    assert answer.status == 413
    assert (error_of(answer)["code"], error_of(answer)["retryable"]) == ("too_large", False)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_form_that_is_too_large(site: Site, chunked: bool) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    body = b"username=" + b"x" * (3 * MIB)
    if chunked:
        answer = send_chunked(site, LOGIN_PATH, body, **headers)
    else:
        answer = site.request("POST", LOGIN_PATH, data=body, headers=headers)
    assert 400 <= answer.status < 500


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "multipart/form-data"])
def test_a_form_that_is_none(site: Site, ann: User, kind: str) -> None:
    headers = {"Authorization": f"Bearer {ann.token}", "Content-Type": kind}
    answer = site.request("POST", SESSIONS, data=b"no form", headers=headers)
    assert (answer.status, error_of(answer)["code"]) == (415, "unsupported_type")
    assert 400 <= site.request("POST", LOGIN_PATH, data=b"no form", headers=headers).status < 500


@pytest.mark.parametrize("encoding", ["gzip", "br", "made-up"])
def test_a_compressed_body_is_refused(site: Site, ann: User, encoding: str) -> None:
    headers = {
        "Authorization": f"Bearer {ann.token}",
        "Content-Type": "application/json",
        "Content-Encoding": encoding,
    }
    answer = site.request("POST", SESSIONS, data=b'{"title": "x"}', headers=headers)
    assert (answer.status, error_of(answer)["code"]) == (415, "unsupported_type")


@pytest.mark.parametrize("body", [b"", b"\xff", b'{"title"', b"[]", b"[" * 50_000, b"null"])
def test_a_malformed_body_is_refused(site: Site, ann: User, body: bytes) -> None:
    headers = {"Authorization": f"Bearer {ann.token}", "Content-Type": "application/json"}
    answer = site.request("POST", "/api/keys/", data=body, headers=headers)
    assert (answer.status, error_of(answer)["code"]) == (400, "bad_frame")


def test_no_secret_of_an_address_is_logged(site: Site, ann: User) -> None:
    token = "T0ken-" * 7
    paths = (f"/shared/{token}/", f"/accounts/password/reset/MQ/{token}/", f"/api/shared/{token}/")
    for path in paths:
        assert site.request("PUT", path, headers={"Referer": path}).status in (403, 405)
        site.request("GET", path)
    assert site.request("GET", f"/nothing/?token={token}").status == 404
    assert "/shared/<str:token>/" in site.log
    assert token not in site.log


class TestSilence:
    """Who connects and does not come to ask for anything is cut off; others take their time."""

    def connect(self, site: Site, sent: bytes) -> socket.socket:
        there = ("127.0.0.1", site.port)
        connection = socket.create_connection(there, timeout=scaled(TIMEOUT_S))
        connection.sendall(sent)
        return connection

    @pytest.mark.parametrize(
        "sent", [b"", b"GET /ws", b"GET /ws/agent/ HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: w"]
    )
    def test_is_cut_off(self, site: Site, sent: bytes) -> None:
        with self.connect(site, sent) as connection, suppress(ConnectionResetError):
            assert connection.recv(1) == b""

    def test_a_slow_body_is_not(self, site: Site) -> None:
        """Nor is a connection that is kept for the next request."""
        head = b"POST /accounts/login/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\n\r\n"
        with self.connect(site, head) as slow, self.connect(site, b"") as silent:
            with suppress(ConnectionResetError):
                assert silent.recv(1) == b""
            slow.sendall(b"x")
            assert slow.recv(12) == b"HTTP/1.1 403"
