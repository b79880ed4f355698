"""Tickets: who gets one, and what sockets they open."""

import asyncio
import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.db import connection
from django.test import Client
from django.utils import timezone
from rest_framework_simplejwt.tokens import AccessToken

from conversations.models import SocketTicket
from conversations.people.accounts import create_key
from conversations.people.privacy import purge
from conversations.people.sign_ins import LIFE, redeem_ticket
from realtime.process import Process
from realtime.routing import HandshakeAuth, websocket_urlpatterns
from tests.support.chats import make_user
from tests.support.machine import scaled
from tests.support.threads import in_thread
from tests.support.waiting import TIMEOUT_S

pytestmark = pytest.mark.django_db(transaction=True)

ADDRESS = "/api/ws-tickets/"
OWN = (b"origin", b"http://localhost")
EVIL = (b"origin", b"http://evil.example")
ANSWER = {"request_id": "x", "decision": "approve"}


@pytest.fixture(autouse=True)
def hosts(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["localhost", "testserver"]


@pytest.fixture
def ann() -> Any:
    return make_user("ann")


@pytest.fixture
def api(ann: Any) -> Client:
    client = Client()
    client.force_login(ann)
    return client


def get_ticket(client: Client, **headers: str) -> str:
    answer = client.post(ADDRESS, headers=headers)
    assert answer.status_code == 201
    return str(answer.json()["ticket"])


async def open_socket(ticket: str, *headers: tuple[bytes, bytes]) -> WebsocketCommunicator:
    communicator = WebsocketCommunicator(
        HandshakeAuth(URLRouter(websocket_urlpatterns)),
        f"/ws/agent/?token={ticket}",
        headers=[(b"host", b"localhost"), *headers],
    )
    connected, _ = await communicator.connect()
    assert connected
    return communicator


async def outcome(ticket: str, *headers: tuple[bytes, bytes]) -> Any:
    """The close code of a socket that is opened with a ticket; whose it is when it is let in."""
    communicator = await open_socket(ticket, *headers)
    first = await communicator.receive_output()
    if first["type"] == "websocket.close":
        return first["code"]
    await communicator.disconnect()
    return json.loads(first["text"])["metadata"]["user_id"]


async def test_a_ticket_opens_one_socket_of_its_user(
    process: Process, api: Client, ann: Any
) -> None:
    ticket = await in_thread(get_ticket, api)
    assert len(ticket) >= 43  # 256 bits
    assert await outcome(ticket) == str(ann.pk)
    assert await outcome(ticket) == 4001
    other = await in_thread(get_ticket, api)
    assert await outcome(other, OWN) == str(ann.pk)


async def test_only_a_hash_is_kept(api: Client) -> None:
    ticket = await in_thread(get_ticket, api)
    rows = await in_thread(list, SocketTicket.objects.values())
    assert ticket not in str(rows)


async def test_of_two_who_have_read_it_one_gets_in(api: Client, ann: Any) -> None:
    ticket = await in_thread(get_ticket, api)
    have_read = threading.Barrier(2, timeout=scaled(TIMEOUT_S))

    def hold(execute: Any, sql: str, *rest: Any) -> Any:
        done = execute(sql, *rest)
        if sql.startswith("SELECT") and SocketTicket._meta.db_table in sql:
            have_read.wait()
        return done

    def redeem() -> Any:
        with connection.execute_wrapper(hold):
            return redeem_ticket(ticket)

    found = await asyncio.gather(in_thread(redeem), in_thread(redeem))
    assert [user for user, _ in filter(None, found)] == [ann]


async def test_it_lives_for_30_seconds(process: Process, api: Client) -> None:
    assert timedelta(seconds=30) == LIFE
    ticket = await in_thread(get_ticket, api)
    row = await SocketTicket.objects.aget()
    assert row.expires_at <= timezone.now() + LIFE
    await SocketTicket.objects.aupdate(expires_at=timezone.now())
    assert await outcome(ticket) == 4001
    await in_thread(purge)
    assert not await SocketTicket.objects.aexists()


async def test_it_is_good_for_nothing_else(process: Process, api: Client) -> None:
    ticket = await in_thread(get_ticket, api)
    headers = {"Authorization": f"Bearer {ticket}"}
    answer = await in_thread(Client().get, "/api/sessions/", headers=headers)
    assert answer.status_code == 401
    await SocketTicket.objects.aupdate(audience="something-else")
    assert await outcome(ticket) == 4001


def test_it_is_asked_for_by_post_and_signed_in(api: Client, ann: Any) -> None:
    assert Client().post(ADDRESS).status_code == 401
    assert api.get(ADDRESS).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(ann)
    assert strict.post(ADDRESS).status_code == 403
    assert not SocketTicket.objects.exists()


async def test_no_other_token_is_taken_from_an_address(process: Process, ann: Any) -> None:
    token = AccessToken.for_user(ann)
    _, key = await in_thread(lambda: create_key(user=ann, name="x", scopes=["read"]))
    for text in (str(token), key, "", "nonsense", "%00"):
        assert await outcome(text) == 4001


async def test_a_token_in_the_address_is_judged_alone(process: Process, api: Client) -> None:
    cookie = (b"cookie", f"sessionid={api.cookies['sessionid'].value}".encode())
    assert await outcome("nonsense", cookie, OWN) == 4001


async def test_pages_elsewhere_need_the_setting(
    process: Process, api: Client, settings: Any
) -> None:
    ticket = await in_thread(get_ticket, api)
    for origin in (EVIL, (b"origin", b"null")):
        assert await outcome(ticket, origin) == 4403
    settings.ALLOWED_ORIGINS = ["http://*.example"]
    assert await outcome(ticket, EVIL) != 4403


async def test_a_cookie_is_no_use_to_pages_elsewhere(
    process: Process, api: Client, settings: Any
) -> None:
    settings.ALLOWED_ORIGINS = ["http://evil.example"]
    cookie = (b"cookie", f"sessionid={api.cookies['sessionid'].value}".encode())
    communicator = WebsocketCommunicator(
        HandshakeAuth(URLRouter(websocket_urlpatterns)),
        "/ws/agent/",
        headers=[(b"host", b"localhost"), cookie, EVIL],
    )
    await communicator.connect()
    assert (await communicator.receive_output())["code"] == 4403


@pytest.fixture
async def by_session(api: Client) -> str:
    return await in_thread(get_ticket, api)


async def test_its_socket_ends_with_the_sign_in(
    process: Process, api: Client, by_session: str
) -> None:
    communicator = await open_socket(by_session)
    await communicator.receive_output()
    await in_thread(api.logout)
    await process.poller.poll()
    assert await close_code(communicator) == 4401


async def test_after_signing_out_it_opens_nothing(
    process: Process, api: Client, by_session: str
) -> None:
    await in_thread(api.logout)
    assert await outcome(by_session) == 4001


async def test_a_keys_socket_does_what_the_key_may(process: Process, ann: Any) -> None:
    key, text = await in_thread(lambda: create_key(user=ann, name="x", scopes=["read"]))
    ticket = await in_thread(lambda: get_ticket(Client(), Authorization=f"Bearer {text}"))
    communicator = await open_socket(ticket)
    await communicator.receive_output()
    for frame in (
        {"type": "chat", "content": "hi"},
        {"type": "cancel", "session_id": "x"},
        {"type": "queue", "session_id": "x", "metadata": {"op": "clear"}},
        {"type": "respond", "session_id": "x", "metadata": ANSWER},
    ):
        await communicator.send_input({"type": "websocket.receive", "text": json.dumps(frame)})
        told = json.loads((await communicator.receive_output())["text"])
        assert told["metadata"]["code"] == "forbidden", frame
    key.revoked_at = timezone.now()
    await in_thread(key.save)
    await process.poller.poll()
    assert await close_code(communicator) == 4401


async def close_code(communicator: WebsocketCommunicator) -> int:
    while (output := await communicator.receive_output())["type"] != "websocket.close":
        pass
    code: int = output["code"]
    return code
