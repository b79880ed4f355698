"""Who is let in, and how long for."""

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlencode

import jwt
import psycopg
import pytest
from rest_framework_simplejwt.tokens import AccessToken

from realtime.protocol import CLOSE_NOT_AUTHENTICATED, CLOSE_ORIGIN, CLOSE_SIGN_IN_ENDED
from tests.drills.conftest import Cluster
from tests.support.client import ChatClient, open_chat
from tests.support.machine import scaled
from tests.support.site import Site, User
from tests.support.waiting import TIMEOUT_S


def token_for(user: User, lifetime: timedelta) -> str:
    """Another access token: tests and sites share their secret key."""
    token = AccessToken(user.token)  # type: ignore[arg-type]
    token.set_exp(lifetime=lifetime)
    return str(token)


@pytest.fixture(scope="module")
def cookie(chat_site: Site) -> str:
    """Ann's, from signing in by the form."""
    return chat_site.login(chat_site.users["ann"])


WRONG_ORIGINS = [
    "null",
    "https://127.0.0.1:{port}",
    "http://127.0.0.1:{sibling}",
    "http://127.0.0.1",
    "http://localhost:{port}",
    "http://chat.127.0.0.1:{port}",
    "http://127.0.0.1.example.org:{port}",
    "http://example.org@127.0.0.1:{sibling}",
]


@pytest.mark.parametrize("origin", ["", *WRONG_ORIGINS])
async def test_cookie_from_a_foreign_page_is_refused(site: Site, cookie: str, origin: str) -> None:
    origin = origin.format(port=site.port, sibling=site.port + 1)
    async with open_chat(site.ws_url, cookie=cookie, origin=origin) as client:
        assert await client.wait_closed() == CLOSE_ORIGIN
        assert client.frames == []


@pytest.mark.parametrize("origin", WRONG_ORIGINS)
async def test_token_with_a_wrong_origin_is_refused(site: Site, ann: User, origin: str) -> None:
    origin = origin.format(port=site.port, sibling=site.port + 1)
    async with open_chat(site.ws_url, bearer=ann.token, origin=origin) as client:
        assert await client.wait_closed() == CLOSE_ORIGIN
        assert client.frames == []


async def test_the_right_ones_come_in(site: Site, ann: User, cookie: str) -> None:
    async with (
        open_chat(site.ws_url, cookie=cookie, origin=site.origin) as page,
        open_chat(site.ws_url, bearer=ann.token) as program,
        open_chat(site.ws_url, bearer=ann.token, origin=site.origin) as both,
        open_chat(site.ws_url.removesuffix("/"), bearer=ann.token) as no_slash,
    ):
        for client in (page, program, both, no_slash):
            await client.ping()


def bad_tokens(site: Site, user: User) -> Iterator[str]:
    login = {"username": user.username, "password": user.password}
    yield site.request("POST", "/api/token/", data=login).json()["refresh"]
    yield token_for(user, timedelta(seconds=-1))
    yield user.token[:-4]
    yield user.token.replace(".", "", 1)
    claims = AccessToken(user.token).payload  # type: ignore[arg-type]
    yield jwt.encode({**claims, "aud": "another-site"}, site.env["SECRET_KEY"])
    yield jwt.encode(claims, "another-key" * 5)
    nobody = AccessToken(user.token)  # type: ignore[arg-type]
    nobody["user_id"] = "999999"
    yield str(nobody)


async def test_nobody_comes_in_with_nothing_or_less(site: Site, ann: User) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(open_chat(site.ws_url, origin=site.origin)),
            await stack.enter_async_context(open_chat(site.ws_url)),
            await stack.enter_async_context(open_chat(site.ws_url, origin="http://evil.example")),
            await stack.enter_async_context(
                open_chat(site.ws_url, cookie="sessionid=nonsense", origin=site.origin)
            ),
            await stack.enter_async_context(
                open_chat(f"{site.ws_url}?token={ann.token}", origin=site.origin)
            ),
        ]
        for token in bad_tokens(site, ann):
            chat = open_chat(site.ws_url, bearer=token)
            clients.append(await stack.enter_async_context(chat))
        for client in clients:
            assert await client.wait_closed() == CLOSE_NOT_AUTHENTICATED
            assert client.frames == []


async def test_expired_token_closes_its_socket(site: Site, ann: User) -> None:
    short = token_for(ann, timedelta(seconds=scaled(3)))
    async with open_chat(site.ws_url, bearer=short) as client, site.chat(ann) as other:
        await client.ping()
        assert await client.wait_closed(within=3 + TIMEOUT_S) == CLOSE_SIGN_IN_ENDED
        await other.ping()


async def all_closed(*clients: ChatClient) -> None:
    for client in clients:
        assert await client.wait_closed() == CLOSE_SIGN_IN_ENDED


async def all_refused(cluster: Cluster, cookie: str) -> None:
    """At once, in either process: neither goes by what it has read for an earlier handshake."""
    for site in (cluster.one, cluster.two):
        async with site.chat_by_cookie(cookie) as again:
            assert await again.wait_closed() == CLOSE_NOT_AUTHENTICATED


async def test_sign_out_closes_sockets_of_that_sign_in(cluster: Cluster) -> None:
    ann = cluster.ann
    leaving, staying = [await asyncio.to_thread(cluster.one.login, ann) for _ in range(2)]
    async with (
        cluster.one.chat_by_cookie(leaving) as one,
        cluster.two.chat_by_cookie(leaving) as two,
        cluster.two.chat_by_cookie(staying) as other,
    ):
        for client in (one, two, other):
            await client.ping()
        post_form(cluster.one, "/accounts/logout/", leaving)
        await all_refused(cluster, leaving)
        await all_closed(one, two)
        await other.ping()


async def test_changed_password_closes_all_other_sockets(cluster: Cluster) -> None:
    carl = await asyncio.to_thread(cluster.one.make_user, "carl")
    here, there = [await asyncio.to_thread(cluster.one.login, carl) for _ in range(2)]
    async with (
        cluster.one.chat_by_cookie(there) as one,
        cluster.two.chat_by_cookie(there) as two,
        cluster.two.chat(carl) as program,
        cluster.two.chat(cluster.ann) as other,
    ):
        for client in (one, two, program, other):
            await client.ping()
        new = "an-entirely-different-one"
        fields = {"old_password": carl.password, "new_password1": new, "new_password2": new}
        post_form(cluster.one, "/accounts/password/change/", here, **fields)
        await all_refused(cluster, there)
        await all_closed(one, two, program)
        await other.ping()
        async with cluster.two.chat(carl) as again:
            assert await again.wait_closed() == CLOSE_NOT_AUTHENTICATED


async def test_disabled_account_is_out_everywhere(cluster: Cluster) -> None:
    dan = await asyncio.to_thread(cluster.one.make_user, "dan")
    cookie = await asyncio.to_thread(cluster.one.login, dan)
    async with (
        cluster.one.chat_by_cookie(cookie) as one,
        cluster.two.chat_by_cookie(cookie) as two,
        cluster.two.chat(dan) as program,
        cluster.two.chat(cluster.ann) as other,
    ):
        for client in (one, two, program, other):
            await client.ping()
        with psycopg.connect(cluster.one.env["DATABASE_URL"]) as connection:
            connection.execute("UPDATE auth_user SET is_active = false WHERE id = %s", [dan.pk])
        await all_refused(cluster, cookie)
        await all_closed(one, two, program)
        await other.ping()


def post_form(site: Site, path: str, cookie: str, **fields: str) -> None:
    """As a signed-in page does; raises unless it is redirected."""
    token = site.request("GET", "/accounts/login/").cookies["csrftoken"]
    form = urlencode({"csrfmiddlewaretoken": token, **fields})
    headers = {
        "Cookie": f"{cookie}; csrftoken={token}",
        "Origin": site.origin,
        "Content-Type": "application/x-www-form-urlencoded",
    }
    answer = site.request("POST", path, data=form.encode(), headers=headers)
    assert answer.status == 302, answer
