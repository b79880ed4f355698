"""Notifications by Web Push, to a push service on loopback: what it gets and can read."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from conversations import webhooks
from conversations.models import (
    Preferences,
    PushDelivery,
    PushSubscription,
    Run,
    RunStatus,
    WebhookDelivery,
    WebhookEvent,
)
from conversations.people.accounts import (
    PUSHES_EACH,
    adopt_guest,
    create_guest,
    save_preferences,
)
from conversations.people.privacy import PUSHES_KEPT, erase_user, purge
from conversations.people.sign_ins import SignIn
from realtime.work import background
from realtime.work.background import PushSender, open_session
from tests.support.chats import ask, begin, finish, make_user
from tests.support.threads import in_thread
from tests.support.waiting import poll
from tests.work.test_webhooks import Receiver, receiving

MARK = "heron-canary-48"
SECRET = base64.urlsafe_b64encode(b"0123456789abcdef").decode().rstrip("=")
BROWSER = ec.derive_private_key(int.from_bytes(b"b" * 32, "big"), ec.SECP256R1())
PUBLIC = webhooks._encode(webhooks._point(BROWSER))
BODY = {"endpoint": "https://push.example.org/1", "keys": {"p256dh": PUBLIC, "auth": SECRET}}


@pytest.fixture(autouse=True)
def on(settings: Any) -> None:
    cache.clear()
    settings.PUSH_KEY = webhooks.make_push_key()
    settings.DEFAULT_FROM_EMAIL = "The site <site@example.org>"


@pytest.fixture
async def service(settings: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    """A push service that may be connected to although it is on loopback."""
    settings.DEBUG = True
    monkeypatch.setattr(webhooks, "is_public", lambda address: True)
    async with receiving("/push/1") as receiver:
        yield receiver


def add(user: User, endpoint: str, **fields: str) -> None:
    keys = {"p256dh": PUBLIC, "auth": SECRET, "language": ""} | fields
    sign_in = SignIn(user.pk, user.get_session_auth_hash(), None, None)
    webhooks.subscribe(sign_in=sign_in, endpoint=endpoint, **keys)


def take(limit: int = 5) -> list[webhooks.Due]:
    return webhooks.take_due_pushes(limit, each=limit, under_way={})


def decrypt(body: bytes) -> Any:
    """What the browser reads, by RFC 8291."""
    salt, size, point = body[:16], int.from_bytes(body[16:20], "big"), body[21 : 21 + body[20]]
    assert len(body) <= size
    sender = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    info = b"WebPush: info\0" + webhooks._point(BROWSER) + point
    secret = BROWSER.exchange(ec.ECDH(), sender)
    shared = webhooks._derive(webhooks._decode(SECRET), info, secret, 32)
    key = webhooks._derive(salt, b"Content-Encoding: aes128gcm\0", shared, 16)
    nonce = webhooks._derive(salt, b"Content-Encoding: nonce\0", shared, 12)
    text = AESGCM(key).decrypt(nonce, body[21 + body[20] :], None)
    assert text[-1:] == b"\2"
    return json.loads(text[:-1])


async def send() -> None:
    async with open_session(is_push=True) as session:
        sender = PushSender()
        await sender.begin_due(session)
        await sender.settled()


def reply_to(user: User, status: RunStatus = RunStatus.COMPLETED) -> Run:
    posted = ask(user, f"of the {MARK}")
    finish(posted, f"The {MARK} stands still.", status=status)
    return Run.objects.get(pk=posted.run_id)


def test_messages_are_encrypted_as_the_standard_has_it() -> None:
    """The example of RFC 8291, appendix A."""
    own = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
    made = webhooks._encrypt(
        b"When I grow up, I want to be a watermelon",
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
        "BTBZMqHH6r4Tts7J_aSIgg",
        salt=webhooks._decode("DGv6ra1nlYgDCS1FRnbzlw"),
        own=ec.derive_private_key(int.from_bytes(webhooks._decode(own), "big"), ec.SECP256R1()),
    )
    assert webhooks._encode(made) == (
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS"
        "6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qu"
        "lcy4a-fN"
    )


@pytest.mark.django_db(transaction=True)
async def test_a_reply_that_ends_is_told_without_its_text(service: Receiver) -> None:
    ann, ben = await in_thread(make_user, "ann"), await in_thread(make_user, "ben")
    await in_thread(add, ann, service.url, language="de")
    await in_thread(reply_to, ben)
    await send()
    assert service.got == []
    run = await in_thread(reply_to, ann)
    await send()
    [(headers, body)] = service.got
    assert MARK.encode() not in body
    told = decrypt(body)
    assert told == {
        "title": "Assistant hat geantwortet.",
        "body": "",
        "session_id": str(run.session_id),
    }
    assert (headers["Content-Encoding"], headers["TTL"]) == ("aes128gcm", "86400")
    kind, token, key = headers["Authorization"].replace("t=", "").replace("k=", "").split()
    assert (kind, key) == ("vapid", webhooks.push_public_key())
    public = webhooks._signing_key().public_key()
    origin = service.url.removesuffix("/push/1")
    claims = jwt.decode(token.rstrip(","), public, ["ES256"], audience=origin)
    assert claims["sub"] == "mailto:site@example.org"
    assert not await PushDelivery.objects.aexists()


@pytest.mark.django_db(transaction=True)
async def test_its_beginning_is_told_to_who_wants_it(
    service: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "PUSH_CHARS", 26)
    ann = await in_thread(make_user, "ann")
    await in_thread(add, ann, service.url)
    await in_thread(save_preferences, ann, push_text=True)
    await in_thread(reply_to, ann)
    await send()
    assert decrypt(service.got[0][1])["body"] == f"The {MARK} stands"


@pytest.mark.django_db
def test_approvals_are_told_and_what_was_stopped_is_not() -> None:
    ann = make_user("ann")
    add(ann, "https://push.example.org/1")
    reply_to(ann, RunStatus.CANCELLED)
    assert not PushDelivery.objects.exists()
    run = reply_to(ann)
    [row] = PushDelivery.objects.all()
    assert row.event == WebhookEvent.RUN_ENDED
    row.event = WebhookEvent.APPROVAL_REQUESTED
    save_preferences(ann, push_text=True)
    assert webhooks._message(row) == {
        "title": "Assistant needs your approval.",
        "body": "",
        "session_id": str(run.session_id),
    }


@pytest.mark.django_db(transaction=True)
async def test_a_failure_is_tried_again_and_what_is_gone_is_forgotten(service: Receiver) -> None:
    ann = await in_thread(make_user, "ann")
    await in_thread(add, ann, service.url)
    service.statuses = [500, 201]
    await in_thread(reply_to, ann)
    await send()
    [row] = [row async for row in PushDelivery.objects.all()]
    assert row.due_at > timezone.now()
    await PushDelivery.objects.aupdate(due_at=timezone.now())
    await send()
    assert len(service.got) == 2
    assert not await PushDelivery.objects.aexists()
    service.statuses = [410]
    await in_thread(reply_to, ann)
    await send()
    assert not await PushSubscription.objects.aexists()


@pytest.mark.django_db
def test_it_is_given_up_at_last() -> None:
    ann = make_user("ann")
    add(ann, "https://push.example.org/1")
    reply_to(ann)
    results = []
    while PushDelivery.objects.exists():
        PushDelivery.objects.update(due_at=timezone.now() - timedelta(seconds=1))
        [due] = take()
        assert take() == []
        results.append(webhooks.note_push(due.id, None, "TimeoutError"))
    assert results == ["failed"] * 3 + ["given_up"]


@pytest.mark.django_db
def test_no_address_inside_is_reached(settings: Any) -> None:
    settings.WEBHOOK_PRIVATE = True
    ann = make_user("ann")
    for host in ("127.0.0.1", "10.0.0.1", "[::1]", "[fd00::1]", "[fe80::1]"):
        with pytest.raises(ValidationError):
            add(ann, f"https://{host}/x")
    with pytest.raises(ValidationError):
        add(ann, "http://a.org/")
    assert webhooks.may_connect("127.0.0.1")
    assert not webhooks.is_public("127.0.0.1")


async def test_a_name_that_leads_inside_is_not_connected_to(settings: Any) -> None:
    settings.WEBHOOK_PRIVATE = True
    asked = asyncio.Event()
    server = await asyncio.start_server(lambda *_: asked.set(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, open_session(is_push=True) as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.post(f"http://localhost:{port}/")
    assert not asked.is_set()


@pytest.mark.django_db(transaction=True)
async def test_the_sender_reaches_nothing_inside(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a name that leads there; nor what was saved under other settings."""
    settings.WEBHOOK_PRIVATE = settings.DEBUG = True
    noted: list[str] = []

    def note(_id: object, _status: object, error: str) -> str:
        noted.append(error)
        return "failed"

    monkeypatch.setattr(webhooks, "note_push", note)
    asked = asyncio.Event()
    server = await asyncio.start_server(lambda *_: asked.set(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    ann = await in_thread(make_user, "ann")
    for scheme in ("http", "https"):
        await in_thread(add, ann, f"{scheme}://localhost:{port}/")
    settings.DEBUG = False
    await in_thread(reply_to, ann)
    async with server:
        sending = asyncio.create_task(PushSender().run())
        await in_thread(poll, lambda: asked.is_set() or len(noted) == 2, "both attempts")
        sending.cancel()
        await asyncio.wait([sending])
    assert not asked.is_set()
    assert sorted(noted) == ["ClientConnectorError", "ValidationError"]


@pytest.mark.django_db
def test_the_api_adds_and_removes_a_browser(client: Client, settings: Any) -> None:
    ann, ben = make_user("ann"), make_user("ben")
    client.force_login(ann)
    body = BODY | {"expirationTime": None, "language": "fr"}
    assert client.get("/api/push/").json() == {"public_key": webhooks.push_public_key()}
    assert client.post("/api/push/", body, content_type="application/json").status_code == 204
    assert PushSubscription.objects.get().language == "fr"
    for wrong in ({"endpoint": "https://10.0.0.1/"}, {"keys": {"p256dh": "x", "auth": SECRET}}):
        answer = client.post("/api/push/", body | wrong, content_type="application/json")
        assert answer.status_code == 400
    other = Client()
    other.force_login(ben)
    gone = {"endpoint": body["endpoint"]}
    other.delete("/api/push/", gone, content_type="application/json")
    assert PushSubscription.objects.get().owner == ann
    client.delete("/api/push/", gone, content_type="application/json")
    assert not PushSubscription.objects.exists()
    settings.PUSH_KEY = None
    assert client.post("/api/push/", body, content_type="application/json").status_code == 404


@pytest.mark.django_db
def test_a_user_has_so_many_and_a_browser_one_user() -> None:
    ann, ben = make_user("ann"), make_user("ben")
    for number in range(PUSHES_EACH + 1):
        add(ann, f"https://push.example.org/{number}")
    theirs = PushSubscription.objects.filter(owner=ann)
    assert theirs.count() == PUSHES_EACH
    assert not theirs.filter(endpoint="https://push.example.org/0").exists()
    add(ben, "https://push.example.org/5")
    assert theirs.count() == PUSHES_EACH - 1
    erase_user(ann)
    assert PushSubscription.objects.get().owner == ben


@pytest.mark.django_db
def test_without_a_key_nothing_is_kept(settings: Any) -> None:
    ann = make_user("ann")
    add(ann, "https://push.example.org/1")
    settings.PUSH_KEY = None
    begin(ask(ann, "hi"))
    reply_to(ann)
    assert not PushDelivery.objects.exists()


def test_a_command_makes_the_key(capsys: pytest.CaptureFixture[str], settings: Any) -> None:
    call_command("prepare", "--push-key")
    settings.PUSH_KEY = capsys.readouterr().out.strip()
    assert len(webhooks._decode(webhooks.push_public_key())) == 65


def subscribe(client: Client, user: User) -> None:
    client.force_login(user)
    client.post("/api/push/", BODY, content_type="application/json")
    assert PushSubscription.objects.get().owner == user


@pytest.mark.django_db
def test_it_ends_as_its_browser_signs_out(client: Client) -> None:
    other = Client()
    for user in (make_user("ann"), create_guest()):
        subscribe(client, user)
        other.force_login(user)
        other.post("/accounts/logout/")
        assert PushSubscription.objects.exists()
        add(user, "https://push.example.org/by-a-token")
        client.post("/accounts/logout/")
        assert not PushSubscription.objects.exists()


def change_password(client: Client, user: User) -> None:
    user.set_password("another")
    user.save()


def disable(client: Client, user: User) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def lose_session(client: Client, user: User) -> None:
    client.session.flush()


@pytest.mark.django_db
@pytest.mark.parametrize("end", [change_password, disable, lose_session])
def test_it_ends_with_its_sign_in(client: Client, end: Any) -> None:
    ann = make_user("ann")
    subscribe(client, ann)
    reply_to(ann)
    assert len(take()) == 1
    reply_to(ann)
    end(client, ann)
    assert take() == []
    assert not PushSubscription.objects.exists()
    assert not PushDelivery.objects.exists()


@pytest.mark.django_db
def test_a_guests_browser_becomes_the_users() -> None:
    guest, ann = create_guest(), make_user("ann")
    for number in range(PUSHES_EACH):
        add(ann, f"https://push.example.org/{number}")
    add(guest, "https://push.example.org/guest")
    adopt_guest(guest, ann)
    theirs = PushSubscription.objects.filter(owner=ann)
    assert theirs.count() == PUSHES_EACH
    assert theirs.filter(endpoint="https://push.example.org/guest").exists()
    assert not theirs.filter(endpoint="https://push.example.org/0").exists()
    reply_to(ann)
    assert len(take(20)) == PUSHES_EACH


@pytest.mark.django_db
def test_a_subscription_that_goes_undoes_no_end_of_a_run() -> None:
    """What has no constraint cannot be refused as the run's last transaction commits."""
    with connection.cursor() as cursor:
        relations = connection.introspection.get_relations
        assert not relations(cursor, PushDelivery._meta.db_table)
        assert "endpoint_id" not in relations(cursor, WebhookDelivery._meta.db_table)
    ann = make_user("ann")
    run = reply_to(ann)
    PushDelivery.objects.create(subscription_id=47, run=run, event=WebhookEvent.RUN_ENDED)
    assert take() == []


@pytest.mark.django_db
def test_what_is_lost_is_purged() -> None:
    ann = make_user("ann")
    add(ann, "https://push.example.org/1")
    save_preferences(ann, theme="dark")
    run = reply_to(ann)
    PushDelivery.objects.create(subscription_id=47, run=run, event=WebhookEvent.RUN_ENDED)
    PushDelivery.objects.filter(subscription_id=47).update(due_at=timezone.now() - PUSHES_KEPT)
    Preferences.objects.create(user_id=47)
    lost = PushSubscription.objects.create(endpoint="https://push.example.org/2", owner_id=47)
    purge()
    assert Preferences.objects.get().user == ann
    assert not PushSubscription.objects.filter(pk=lost.pk).exists()
    assert PushDelivery.objects.get().subscription.owner == ann


@pytest.mark.django_db(transaction=True)
async def test_a_slow_address_delays_nobody_else(service: Receiver) -> None:
    """However much is due for it first."""
    ann, ben = await in_thread(make_user, "ann"), await in_thread(make_user, "ben")
    await in_thread(add, ann, f"{service.url}/slow")
    await in_thread(reply_to, ann)
    row = await PushDelivery.objects.aget()
    await PushDelivery.objects.abulk_create(
        PushDelivery(subscription_id=row.subscription_id, run_id=row.run_id, event=row.event)
        for _ in range(2 * background.WEBHOOK_SENDERS)
    )
    await in_thread(add, ben, service.url)
    await in_thread(reply_to, ben)
    sending = asyncio.create_task(PushSender().run())
    await in_thread(poll, lambda: service.got, "the notification of the other")
    assert not service.released.is_set()
    service.released.set()
    await in_thread(poll, lambda: not PushDelivery.objects.exists(), "all notifications")
    sending.cancel()
    await asyncio.wait([sending])
