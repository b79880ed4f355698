"""Two people, every address of REST, every mixture of their ids: nothing foreign is found."""

import json
import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from django.test import AsyncClient

from conversations.api_keys import create_key
from conversations.feedback import give_feedback
from conversations.models import ApiKey, ChatSession, Feedback, Message, Run, Share
from conversations.sharing import create_share
from realtime.process import Process
from tests.support.addresses import routes
from tests.support.chats import make_user, talk
from tests.support.downloads import download
from tests.support.threads import in_thread

METHODS = ("get", "post", "put", "patch", "delete")
SECRET = "only-ben-knows"
PARAMETER = re.compile(r"<\w+:(\w+)>")


def make_life(name: str, word: str) -> tuple[Any, dict[str, str]]:
    """A user with one of everything, and the ids by the names that addresses give them."""
    user = make_user(name)
    session = talk(user, (word, word), (word, word))
    reply = Message.objects.filter(session=session, role="assistant").earliest("number")
    ids = {"session_id": str(session.pk), "message_id": str(reply.pk)}
    give_feedback(user=user, value="up", comment=word, **ids)
    share, _ = create_share(user=user, session_id=ids["session_id"])
    key, _ = create_key(user=user, name=word, scopes=["read"])
    ids |= {
        "run_id": str(reply.run.pk),
        "share_id": str(share.pk),
        "key_id": str(key.pk),
        "token": share.token_hash,
        "request_id": str(reply.run.pk),
    }
    return user, ids


def addresses(own: dict[str, str], foreign: dict[str, str]) -> Iterator[str]:
    """Every address with all mixtures of ids in it."""
    for route in routes("/api/"):
        names = PARAMETER.findall(route.address)
        for choice in product((foreign, own), repeat=len(names)):
            if names and all(ids is own for ids in choice):
                continue
            values = iter([ids[name] for ids, name in zip(choice, names, strict=True)])
            yield PARAMETER.sub(lambda _, values=values: next(values), route.address)  # type: ignore[misc]


def everything(user: Any) -> list[Any]:
    """All rows of a user."""
    return [
        list(ChatSession.objects.filter(owner=user).values()),
        list(Message.objects.filter(session__owner=user).order_by("pk").values()),
        list(Run.objects.filter(owner=user).order_by("pk").values()),
        list(Share.objects.filter(session__owner=user).values()),
        list(Feedback.objects.filter(user=user).values()),
        list(ApiKey.objects.filter(owner=user).values()),
    ]


@pytest.mark.django_db(transaction=True)
async def test_nothing_foreign_is_found_or_changed(process: Process, settings: Any) -> None:
    settings.AGENTS = "tests.support.site_agents"
    ben, foreign = await in_thread(make_life, "ben", SECRET)
    ann, own = await in_thread(make_life, "ann", "ann")
    before = await in_thread(everything, ben)
    api = AsyncClient()
    await api.aforce_login(ann)
    body = {
        "content": "x",
        "value": "up",
        "title": "x",
        "decision": "approve",
        "name": "x",
        "scopes": ["read"],
        "wait": False,
        "position": 1,
        **{name: foreign[name] for name in ("session_id", "run_id", "message_id")},
        "parent_message_id": foreign["message_id"],
    }
    tried = 0
    for address in addresses(own, foreign):
        for method in METHODS:
            if method == "get":
                answer = await download(api, address)
                text, status = answer.text, answer.status_code
            else:
                sent = await getattr(api, method)(
                    address, json.dumps(body), content_type="application/json"
                )
                text, status = sent.content.decode(), sent.status_code
            tried += 1
            found = [value for value in (SECRET, *foreign.values()) if value in text]
            assert found == [], f"{method} {address}"
            if any(value in address for value in foreign.values()):
                assert status in (401, 404, 405), f"{method} {address}: {status}"
    assert tried > 150
    assert await in_thread(everything, ben) == before


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("query", ["", "?state=all", f"?search={SECRET}", "?state=deleted"])
async def test_lists_and_exports_are_ones_own(process: Process, query: str) -> None:
    ann, _ = await in_thread(make_life, "ann", "ann")
    await in_thread(make_life, "ben", SECRET)
    api = AsyncClient()
    await api.aforce_login(ann)
    for address in ("/api/sessions/", "/api/export/"):
        assert SECRET not in (await download(api, address + query)).text
