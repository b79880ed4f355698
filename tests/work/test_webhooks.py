"""Webhooks to a real receiver: what is sent, how it is signed, and where it is never sent."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ValidationError
from django.test import Client
from django.utils import timezone

from conversations import webhooks
from conversations.models import Run, WebhookDelivery, WebhookEndpoint, WebhookEvent
from conversations.people import privacy
from conversations.sessions.posting import give_feedback
from realtime.work import background
from realtime.work.background import WebhookSender, open_session
from tests.support.chats import ask, finish, make_user
from tests.support.threads import in_thread
from tests.support.waiting import poll

MARK = "heron-canary-47"


@dataclass
class Receiver:
    """A server on loopback; answers `statuses`, one a request, then 204.

    Requests to a path with `/slow` are answered once `released` is set.
    """

    url: str = ""
    released: asyncio.Event = field(default_factory=asyncio.Event)
    statuses: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        if request.path.endswith("/slow"):
            await self.released.wait()
        self.got.append((dict(request.headers), await request.read()))
        return web.Response(
            status=self.statuses.pop(0) if self.statuses else 204, headers={"Location": "/again"}
        )


@asynccontextmanager
async def receiving(path: str) -> AsyncIterator[Receiver]:
    """Have a receiver listen on loopback at any path; its `url` has this one."""
    receiver, app = Receiver(), web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://localhost:{runner.addresses[0][1]}{path}"
    try:
        yield receiver
    finally:
        await runner.cleanup()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving("/hook") as receiver:
        yield receiver


@pytest.fixture
def on(settings: Any) -> None:
    settings.WEBHOOKS = settings.DEBUG = settings.WEBHOOK_PRIVATE = True


def add_endpoint(url: str, **fields: Any) -> WebhookEndpoint:
    fields = {"events": list(WebhookEvent.values), **fields}
    endpoint: WebhookEndpoint = WebhookEndpoint.objects.create(url=url, **fields)
    return endpoint


def reply_to(user: User) -> Run:
    finish(ask(user, f"of the {MARK}"), f"The {MARK} stands still.")
    return Run.objects.get()


async def send() -> None:
    async with open_session() as session:
        sender = WebhookSender()
        await sender.begin_due(session)
        await sender.settled()


async def due_again(*, after: timedelta) -> None:
    """Move the next attempt to now; raises `AssertionError` if it was not planned `after` now."""
    row = await WebhookDelivery.objects.aget()
    assert row.due_at is not None
    assert abs(row.due_at - timezone.now() - after) < timedelta(minutes=1)
    await WebhookDelivery.objects.aupdate(due_at=timezone.now())


class TestSending:
    async def test_a_reply_that_has_ended(
        self, transactional_db: None, on: None, receiver: Receiver
    ) -> None:
        endpoint = await in_thread(lambda: add_endpoint(receiver.url))
        run = await in_thread(lambda: reply_to(make_user("ann")))
        await send()
        [(headers, body)] = receiver.got
        told = json.loads(body)
        assert told["type"] == "run.ended"
        assert told["data"] == {
            "session_id": str(run.session_id),
            "run_id": str(run.pk),
            "message_id": str(run.reply_id),
            "user_id": str(run.owner_id),
            "agent": run.agent,
            "status": "completed",
            "reason": "",
            "error_code": "",
        }
        assert MARK not in body.decode()
        # As a receiver checks it, by the text of Standard Webhooks.
        key = base64.b64decode(endpoint.secret.removeprefix("whsec_"))
        signed = b".".join(
            [headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body]
        )
        digest = hmac.new(key, signed, hashlib.sha256).digest()
        assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
        await send()
        assert len(receiver.got) == 1
        assert (await WebhookDelivery.objects.aget()).delivered_at is not None

    async def test_who_was_told_is_forgotten(
        self, transactional_db: None, on: None, receiver: Receiver
    ) -> None:
        await in_thread(lambda: add_endpoint(receiver.url))
        await in_thread(lambda: reply_to(make_user("ann")))
        async with open_session() as session:
            sender = WebhookSender()
            assert await sender.begin_due(session) == 1
            await sender.settled()
        assert not sender._under_way

    async def test_text_only_where_it_is_asked_for(
        self, transactional_db: None, on: None, receiver: Receiver
    ) -> None:
        await in_thread(lambda: add_endpoint(receiver.url, has_text=True))
        await in_thread(lambda: reply_to(make_user("ann")))
        await send()
        assert json.loads(receiver.got[0][1])["data"]["text"] == f"The {MARK} stands still."

    async def test_is_repeated_with_the_same_id_until_it_is_taken(
        self, transactional_db: None, on: None, receiver: Receiver
    ) -> None:
        receiver.statuses = [500, 302]
        await in_thread(lambda: add_endpoint(receiver.url))
        await in_thread(lambda: reply_to(make_user("ann")))
        for pause in webhooks.PAUSES[:2]:
            await send()
            await due_again(after=pause)
        await send()
        assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
        assert [headers.get("Location") for headers, _ in receiver.got] == [None] * 3
        row = await WebhookDelivery.objects.aget()
        assert (row.attempts, row.last_status, row.due_at) == (3, 204, None)

    async def test_is_given_up_after_the_last_attempt(
        self, transactional_db: None, on: None, receiver: Receiver
    ) -> None:
        receiver.statuses = [503]
        await in_thread(lambda: add_endpoint(receiver.url))
        await in_thread(lambda: reply_to(make_user("ann")))
        await WebhookDelivery.objects.aupdate(attempts=len(webhooks.PAUSES))
        await send()
        row = await WebhookDelivery.objects.aget()
        assert (row.due_at, row.delivered_at, row.last_status) == (None, None, 503)

    async def test_what_nobody_notes_is_sent_again(
        self, transactional_db: None, on: None, receiver: Receiver
    ) -> None:
        """As after the death of the process that had taken it."""
        await in_thread(lambda: add_endpoint(receiver.url))
        await in_thread(lambda: reply_to(make_user("ann")))
        assert len(await in_thread(lambda: webhooks.take_due(8, each=8, under_way={}))) == 1
        await send()
        assert receiver.got == []
        await due_again(after=webhooks.LEASE)
        await send()
        assert len(receiver.got) == 1

    async def test_a_slow_endpoint_delays_no_other(
        self, transactional_db: None, on: None, receiver: Receiver
    ) -> None:
        """However much is due for it first."""
        await in_thread(lambda: add_endpoint(f"{receiver.url}/slow"))
        await in_thread(lambda: reply_to(make_user("ann")))
        row = await WebhookDelivery.objects.aget()
        await WebhookDelivery.objects.abulk_create(
            WebhookDelivery(endpoint_id=row.endpoint_id, run_id=row.run_id, event=row.event)
            for _ in range(3 * background.WEBHOOK_SENDERS)
        )
        other = await in_thread(lambda: add_endpoint(receiver.url))
        later = await WebhookDelivery.objects.acreate(
            endpoint=other, run_id=row.run_id, event=row.event
        )
        sending = asyncio.create_task(WebhookSender().run())
        await in_thread(poll, lambda: receiver.got, "the message to the other")
        assert not await WebhookDelivery.objects.exclude(last_error="").aexists()
        receiver.released.set()
        assert receiver.got[0][0]["webhook-id"] == str(later.pk)
        left = WebhookDelivery.objects.filter(delivered_at=None)
        await in_thread(poll, lambda: not left.exists(), "the other messages")
        sending.cancel()
        await asyncio.wait([sending])


class TestWhere:
    @pytest.mark.parametrize(
        "host",
        [
            *("localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "2130706433", "0177.0.0.1", "0"),
            *("１２７.0.0.1", "127。0。0。1", "①②⑦.0.0.1"),
        ],
    )
    async def test_a_private_address_in_any_spelling(
        self, transactional_db: None, on: None, settings: Any, receiver: Receiver, host: str
    ) -> None:
        settings.WEBHOOK_PRIVATE = False
        await in_thread(lambda: add_endpoint(receiver.url.replace("localhost", host)))
        await in_thread(lambda: reply_to(make_user("ann")))
        await send()
        assert receiver.got == []
        row = await WebhookDelivery.objects.aget()
        assert (row.last_status, row.attempts) == (None, 1)
        assert "Error" in row.last_error

    @pytest.mark.parametrize(
        "url",
        [
            *("http://example.org/", "ftp://example.org/", "https://ann:pw@example.org/"),
            *("https://127.0.0.1/", "https://10.0.0.1/", "https://169.254.169.254/latest"),
            *("https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://[64:ff9b::a00:1]/"),
            *("https://[fe80::1]/", "https://0.0.0.0/", "https://100.64.0.1/", "https://[/"),
            *("https://[::10.0.0.1]/", "https://[64:ff9b:1::a00:1]/", "https://[2002:a00:1::]/"),
        ],
    )
    def test_addresses_that_are_refused(self, url: str) -> None:
        with pytest.raises(ValidationError):
            webhooks.check_url(url)

    def test_addresses_that_are_taken(self) -> None:
        webhooks.check_url("https://example.org/hook")
        webhooks.check_url("https://8.8.8.8/hook")

    async def test_a_name_that_has_a_public_address_too(
        self,
        transactional_db: None,
        on: None,
        receiver: Receiver,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The connection goes to it, whatever other addresses the name has."""
        looked_up: list[str] = []

        async def resolve(host: str, port: int, **kwargs: Any) -> list[Any]:
            looked_up.append(host)
            places = [(address, port) for address in ("127.0.0.2", "127.0.0.1")]
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", place) for place in places]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        monkeypatch.setattr(webhooks, "may_connect", lambda address: address == "127.0.0.1")
        await in_thread(lambda: add_endpoint(receiver.url.replace("localhost", "example.org")))
        await in_thread(lambda: reply_to(make_user("ann")))
        await send()
        assert looked_up == ["example.org"]
        assert [headers["Host"].partition(":")[0] for headers, _ in receiver.got] == ["example.org"]


@pytest.mark.django_db(transaction=True)
class TestFacts:
    def test_none_without_the_setting(self) -> None:
        add_endpoint("https://example.org/")
        reply_to(make_user("ann"))
        assert not WebhookDelivery.objects.exists()

    def test_only_to_active_endpoints_that_ask_for_them(self, on: None) -> None:
        add_endpoint("https://example.org/1", events=["feedback.given"])
        add_endpoint("https://example.org/2", is_active=False)
        add_endpoint("https://example.org/3")
        run = reply_to(make_user("ann"))
        give_feedback(
            user=run.owner,
            session_id=str(run.session_id),
            message_id=str(run.reply_id),
            value="up",
            comment=MARK,
        )
        told = [(row.event, row.endpoint.url[-1]) for row in WebhookDelivery.objects.order_by("pk")]
        assert sorted(told) == [
            ("feedback.given", "1"),
            ("feedback.given", "3"),
            ("run.ended", "3"),
        ]
        assert MARK not in str([row.data for row in WebhookDelivery.objects.all()])

    def test_are_rolled_back_with_what_they_tell(
        self, on: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A process that dies before the commit has told nothing; after it, nothing is lost."""
        add_endpoint("https://example.org/")
        user = make_user("ann")
        posted = ask(user, "one")
        monkeypatch.setattr(WebhookDelivery.objects, "bulk_create", _refuse)
        with pytest.raises(RuntimeError):
            finish(posted, "an end")
        assert Run.objects.get().status == "running"

    def test_go_with_age_and_with_the_conversation(self, on: None) -> None:
        add_endpoint("https://example.org/")
        run = reply_to(make_user("ann"))
        old = timezone.now() - privacy.DELIVERIES_KEPT - timedelta(days=1)
        WebhookDelivery.objects.create(
            endpoint=WebhookEndpoint.objects.get(), run=run, event="run.ended"
        )
        WebhookDelivery.objects.filter(data={}).update(created_at=old)
        privacy.purge()
        assert WebhookDelivery.objects.count() == 1
        privacy.erase_user(run.owner)
        assert not WebhookDelivery.objects.exists()


def _refuse(*args: Any) -> None:
    raise RuntimeError


@pytest.mark.django_db
class TestAdmin:
    def test_an_endpoint_is_entered_and_its_secret_shown(self) -> None:
        client = staff("add_webhookendpoint", "change_webhookendpoint", "view_webhookendpoint")
        address = "/admin/conversations/webhookendpoint/add/"
        form = {"url": "https://127.0.0.1/", "events": ["run.ended"], "is_active": "on"}
        assert "private" in client.post(address, form).content.decode()
        form |= {"url": "https://example.org/hook", "has_text": "on"}
        assert client.post(address, form).status_code == 302
        endpoint = WebhookEndpoint.objects.get()
        # Whoever may not read what was said has it sent to nobody.
        assert (endpoint.events, endpoint.has_text) == (["run.ended"], False)
        change = f"/admin/conversations/webhookendpoint/{endpoint.pk}/change/"
        assert endpoint.secret in client.get(change).content.decode()
        WebhookEndpoint.objects.update(has_text=True)
        assert client.post(change, form).status_code == 403
        assert endpoint.secret not in client.get(change).content.decode()

    def test_needs_the_permission(self) -> None:
        client = staff("view_run")
        for name in ("webhookendpoint", "webhookdelivery"):
            assert client.get(f"/admin/conversations/{name}/").status_code == 403

    def test_deliveries_are_listed(self, on: None) -> None:
        add_endpoint("https://example.org/hook")
        reply_to(make_user("ann"))
        page = staff("view_webhookdelivery").get("/admin/conversations/webhookdelivery/")
        assert "https://example.org/hook" in page.content.decode()
        assert MARK not in page.content.decode()


def staff(*permissions: str) -> Client:
    user = make_user("staff", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


async def test_the_service_goes_on_after_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = asyncio.Event()
    results: list[Any] = [RuntimeError(), 0]

    async def begin_due(self: WebhookSender, session: Any) -> int:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        sent.set()
        return 0

    monkeypatch.setattr(background, "WEBHOOK_POLL_S", 0.0)
    monkeypatch.setattr(WebhookSender, "begin_due", begin_due)
    results.extend([0] * 1_000)
    task = asyncio.create_task(WebhookSender().run())
    await sent.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_room_that_comes_while_what_is_due_is_read_is_used_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began: list[int] = []

    async def begin_due(self: WebhookSender, session: Any) -> int:
        began.append(1)
        if len(began) == 1:
            self._has_room.set()  # as an attempt does that ends now
        return 0

    monkeypatch.setattr(background, "WEBHOOK_POLL_S", 3_600.0)
    monkeypatch.setattr(WebhookSender, "begin_due", begin_due)
    task = asyncio.create_task(WebhookSender().run())
    await in_thread(poll, lambda: len(began) > 1, "the second reading")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
