"""Two people, and all that one can ask for with the other's ids, made from what is declared.

Nothing foreign is found or changed, and every answer is the one for what does not exist.
"""

import json
import re
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import pytest
from django.test import AsyncClient

from conversations.models import ApiKey, Approval, ChatSession, Feedback, Message, Run, Share
from conversations.people.accounts import create_key
from conversations.sessions.lists import rename_session
from conversations.sessions.posting import give_feedback
from conversations.sessions.sharing import create_share
from realtime import wire_schema
from realtime.process import Process
from tests.support.addresses import routes
from tests.support.chats import CLAIM, ask, make_user, session_of, talk
from tests.support.client import ChatClient, frame_of
from tests.support.conformance import openapi
from tests.support.downloads import download
from tests.support.inprocess import open_chat_here
from tests.support.threads import in_thread
from tests.support.variants import variants
from tests.work.test_suspension import suspend

pytestmark = pytest.mark.django_db(transaction=True)

SECRET = "only-ben-knows"
UNKNOWN = "nobody-knows"
IN_DOCUMENT, IN_ROUTE = re.compile(r"{(\w+)}"), re.compile(r"<\w+:(\w+)>")
EXPORTED_AT = re.compile(r'"exported_at": "[^"]*"')
CSRF = re.compile(r'"csrfmiddlewaretoken" value="\w+"')
OF_DJANGO = {"app_label", "content_type_id", "uidb64", "url"}
"""What addresses name that belongs to no user."""

Ids = dict[str, str]


class Asked(NamedTuple):
    """A request."""

    method: str
    address: str
    body: Any


class Tenants:
    """Ann, who asks; ben, whose things are `foreign`; and ids that nobody has."""

    def __init__(self) -> None:
        self.ben, self.foreign = make_life("ben", SECRET)
        self.ann, self.own = make_life("ann", "ann")
        self.unknown = {name: str(uuid4()) for name in self.foreign}
        self.unknown |= {"token": uuid4().hex * 2, "client_message_id": "nobody-1"}
        self.unknown |= {"word": UNKNOWN}

    def disguise(self, text: str) -> str:
        """What it would be if nobody had what is ben's."""
        for name, value in self.foreign.items():
            text = text.replace(value, self.unknown[name])
        return text

    def leaks(self, text: str, sent: str = "") -> list[str]:
        """What is ben's in an answer, unless it was sent."""
        return [value for value in self.foreign.values() if value in text and value not in sent]


def make_life(name: str, word: str) -> tuple[Any, Ids]:
    """A user with one of everything, and the ids by the names that addresses give them."""
    user = make_user(name)
    session = talk(user, (word, word), (word, word))
    reply = Message.objects.filter(session=session, role="assistant").earliest("number")
    kept = {"session_id": str(session.pk), "message_id": str(reply.pk)}
    give_feedback(user=user, value="up", comment=word, **kept)
    share, _ = create_share(user=user, session_id=str(session.pk))
    key, _ = create_key(user=user, name=word, scopes=["read"])
    asking = ask(user, word, session, claim=CLAIM)
    suspend(asking)
    named: dict[str, Any] = {"client_message_id": f"{name}-1"}
    waiting = ask(user, word, session_of(asking), on_busy="enqueue", **named)
    others = {
        "run_id": str(waiting.run_id),
        "share_id": str(share.pk),
        "key_id": str(key.pk),
        "token": share.token_hash,
        "request_id": str(Approval.objects.get(run__owner=user).pk),
        "object_id": str(asking.run_id),
        "word": word,
    }
    return user, {**kept, **named, **others}


def everything(user: Any) -> list[Any]:
    """All rows of a user."""
    rows = (
        ChatSession.objects.filter(owner=user),
        Message.objects.filter(session__owner=user),
        Run.objects.filter(owner=user),
        Approval.objects.filter(run__owner=user),
        Share.objects.filter(session__owner=user),
        Feedback.objects.filter(user=user),
        ApiKey.objects.filter(owner=user),
    )
    return [list(found.order_by("pk").values()) for found in rows]


@pytest.fixture
async def tenants(process: Process, settings: Any) -> Tenants:
    settings.AGENTS = "tests.support.site_agents"
    settings.REALTIME = {**settings.REALTIME, "frames_per_minute": 100_000}
    return await in_thread(Tenants)


@pytest.fixture
async def api(tenants: Tenants) -> AsyncClient:
    client = AsyncClient()
    await client.aforce_login(tenants.ann)
    return client


def calls(own: Ids, other: Ids) -> Iterator[Asked]:
    """Every operation of the API with something of `other` in its address, query or body."""
    for path, operations in openapi()["paths"].items():
        for method, operation in operations.items():
            requests = product(
                addresses(path, IN_DOCUMENT, own, other),
                queries(operation, other) if method == "get" else [""],
                bodies(operation, other),
            )
            for address, query, body in requests:
                whole = json.dumps([address, query, body])
                if any(value in whole for value in other.values()):
                    yield Asked(method, address + query, body)


def addresses(path: str, parameter: re.Pattern[str], own: Ids, other: Ids) -> Iterator[str]:
    """The address with all mixtures of ids in it."""
    names = parameter.findall(path)
    for choice in product((other, own), repeat=len(names)):
        values = iter([ids[name] for ids, name in zip(choice, names, strict=True)])
        yield parameter.sub(lambda _, values=values: next(values), path)  # type: ignore[misc]


def queries(operation: Any, other: Ids) -> Iterator[str]:
    """None, and each parameter with what it is about, beside something of `other` to look for."""
    yield ""
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query":
            for value in parameter["schema"].get("enum", (other["word"], other["session_id"])):
                yield "?" + urlencode({"search": other["word"], parameter["name"]: value})


def bodies(operation: Any, other: Ids) -> Iterator[Any]:
    if "requestBody" not in operation:
        return iter([None])
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    return variants(schema, other, openapi()["components"]["schemas"])


async def answer_to(api: AsyncClient, asked: Asked) -> tuple[int, str]:
    """The status, and all of the body that does not change with the time."""
    if asked.method == "get":
        got = await download(api, asked.address)
        text, status = EXPORTED_AT.sub("", CSRF.sub("", got.text)), got.status_code
    else:
        send = getattr(api, asked.method)
        sent = await send(asked.address, json.dumps(asked.body), content_type="application/json")
        text, status = sent.content.decode(), sent.status_code
    return status, text


async def compare(tenants: Tenants, api: AsyncClient, foreign: Asked, unknown: Asked) -> int:
    """The status of both; raises `AssertionError` where ben's things make a difference."""
    status, text = await answer_to(api, foreign)
    assert tenants.leaks(text) == [], foreign
    assert (status, tenants.disguise(text)) == await answer_to(api, unknown), foreign
    return status


async def test_no_call_finds_or_changes_what_is_foreign(tenants: Tenants, api: AsyncClient) -> None:
    before = [await in_thread(everything, user) for user in (tenants.ann, tenants.ben)]
    tried = 0
    pairs = zip(
        calls(tenants.own, tenants.foreign), calls(tenants.own, tenants.unknown), strict=True
    )
    for foreign, unknown in pairs:
        status = await compare(tenants, api, foreign, unknown)
        only_looks = foreign.method == "get" and not tenants.leaks(urlsplit(foreign.address).path)
        assert 400 <= status < 500 or (only_looks and status == 200), foreign
        tried += 1
    assert tried > 200
    assert [await in_thread(everything, user) for user in (tenants.ann, tenants.ben)] == before


LISTS = {
    "/api/sessions/": ["", "?state=all", "?state=deleted"],
    "/api/export/": ["", "?state=all", "?state=deleted", "?export_format=csv"],
    "/api/keys/": [""],
}


@pytest.mark.parametrize("address", LISTS)
async def test_lists_are_ones_own(tenants: Tenants, api: AsyncClient, address: str) -> None:
    for query in LISTS[address]:
        status, text = await answer_to(api, Asked("get", address + query, None))
        assert status == 200
        assert tenants.leaks(text) == []


async def test_no_page_shows_what_is_foreign(tenants: Tenants, api: AsyncClient) -> None:
    shown = [route.address for route in routes("/") if not route.address.startswith("/api/")]
    tried = 0
    for path in shown:
        if set(IN_ROUTE.findall(path)) & OF_DJANGO:
            continue
        pair = [
            addresses(path, IN_ROUTE, tenants.own, ids)
            for ids in (tenants.foreign, tenants.unknown)
        ]
        for foreign, unknown in zip(*pair, strict=True):
            if tenants.leaks(foreign):
                asked = Asked("get", foreign, None), Asked("get", unknown, None)
                assert await compare(tenants, api, *asked) in (302, 404, 405), foreign
                tried += 1
    assert tried > 5


def frames(own: Ids, other: Ids) -> Iterator[Any]:
    """Every frame of a client that says something of `other`."""
    document = wire_schema.asyncapi()
    schemas = document["components"]["schemas"]
    for reference in document["operations"]["fromClient"]["messages"]:
        schema = schemas[reference["$ref"].rpartition("/")[2]]
        for session_id in (other["session_id"], own["session_id"]):
            for frame in variants(schema, other | {"session_id": session_id}, schemas):
                text = json.dumps(frame)
                # To clear one's own queue is allowed, whatever else is named beside it.
                is_free = own["session_id"] in text and '"op": "clear"' in text
                if not is_free and any(value in text for value in other.values()):
                    yield frame


async def reply_to(client: ChatClient, frame: Any, number: int) -> str:
    """All that comes before the answer to a later `ping`."""
    after = len(client.frames)
    await client.send(frame)
    await client.send({"type": "ping", "metadata": {"ts": number}})
    await client.wait_for(frame_of("pong", ts=number), after=after)
    return json.dumps(client.frames[after:-1])


async def test_no_frame_finds_or_changes_what_is_foreign(tenants: Tenants) -> None:
    before = await in_thread(everything, tenants.ben)
    pairs = zip(
        frames(tenants.own, tenants.foreign), frames(tenants.own, tenants.unknown), strict=True
    )
    tried = 0
    async with open_chat_here(tenants.ann) as client, open_chat_here(tenants.ann) as other:
        await client.ping()
        await other.ping()
        for tried, (foreign, unknown) in enumerate(pairs):
            text = await reply_to(client, foreign, tried)
            assert tenants.leaks(text, sent=json.dumps(foreign)) == [], foreign
            assert tenants.disguise(text) == await reply_to(other, unknown, tried), foreign
        assert tried > 100
        assert await in_thread(everything, tenants.ben) == before
        session_id = tenants.foreign["session_id"]
        await in_thread(rename_session, user=tenants.ben, session_id=session_id, title="new")
        assert await reply_to(client, {"type": "pong"}, -1) == "[]"
