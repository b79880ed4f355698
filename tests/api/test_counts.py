"""What is counted in the cache: for all processes together, and for nobody while it is away."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.cache import cache
from django.test import AsyncClient, Client
from pydantic import SecretStr

from agentsite import settings as site_settings
from conversations.exports.formats import AT_ONCE, take_place_to_export
from conversations.people.sign_ins import count_in_cache, take_place
from tests.support.chats import make_user, talk
from tests.support.downloads import download
from tests.support.servers import Valkey
from tests.support.threads import in_thread

TRIES = 50


@pytest.fixture
def shared(valkey: Valkey, settings: Any) -> None:
    """The cache of a site with several processes: each has connections of its own."""
    settings.CACHES = {"default": site_settings.cache(SecretStr(valkey.url))}


@pytest.fixture
def away(settings: Any) -> None:
    settings.CACHES = {"default": site_settings.cache(SecretStr("redis://127.0.0.1:1/0"))}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


def at_once(count: Any) -> list[Any]:
    with ThreadPoolExecutor(TRIES) as pool:
        return list(pool.map(count, range(TRIES)))


@pytest.mark.parametrize("kind", ["alone", "shared"])
def test_no_try_of_many_at_once_is_missed(request: Any, kind: str) -> None:
    if kind == "shared":
        request.getfixturevalue("shared")
    waits = at_once(lambda _: count_in_cache("tries", limit=10, seconds=86_400))
    assert waits.count(None) == 10
    assert all(wait is None or wait >= 1 for wait in waits)


@pytest.mark.parametrize("kind", ["alone", "shared"])
def test_no_place_is_taken_twice(request: Any, kind: str) -> None:
    if kind == "shared":
        request.getfixturevalue("shared")
    taken = [free for free in at_once(lambda _: take_place("x", places=3, seconds=60)) if free]
    assert len(taken) == 3
    taken[0]()
    assert take_place("x", places=3, seconds=60) is not None
    assert take_place("x", places=3, seconds=60) is None


@pytest.mark.django_db
def test_an_outage_of_the_cache_refuses_nobody(away: None, settings: Any) -> None:
    settings.API_REQUESTS_PER_MINUTE = 1
    client = Client()
    client.force_login(make_user("ann"))
    assert [client.get("/api/sessions/").status_code for _ in range(3)] == [200] * 3
    take_place_to_export(1)()


@pytest.mark.django_db(transaction=True)
async def test_a_user_exports_so_much_at_once() -> None:
    ann = await in_thread(make_user, "ann")
    await in_thread(talk, ann, ("one", "1"))
    api = AsyncClient()
    await api.aforce_login(ann)
    for _ in range(AT_ONCE + 1):
        # Each gives its place back when it is read to the end.
        assert (await download(api, "/api/export/")).status_code == 200
    held = [take_place_to_export(ann.pk) for _ in range(AT_ONCE)]
    assert (await download(api, "/api/export/")).status_code == 429
    held[0]()
    assert (await download(api, "/api/export/")).status_code == 200
    assert (await download(api, "/api/export/?state=x")).status_code == 400
    assert (await download(api, "/api/export/")).status_code == 200


@pytest.mark.django_db
def test_staff_export_so_much_at_once() -> None:
    root = make_user("root", is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(root)
    held = [take_place_to_export(root.pk) for _ in range(AT_ONCE)]
    form = {"export_format": "json"}
    address = "/admin/conversations/chatsession/export/"
    assert client.post(address, form).status_code == 429
    held[0]()
    answer = client.post(address, form)
    assert answer.status_code == 200
    answer.close()
