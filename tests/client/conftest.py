"""One server for all of these tests, whose model is the stand-in."""

from collections.abc import AsyncIterator, Iterator

import pytest

from agentsite.client import Client
from tests.drills.conftest import SETTINGS
from tests.support.provider import Provider, echo, run_provider
from tests.support.relay import Relay, relay_to
from tests.support.site import Site, User, run_site


@pytest.fixture(scope="package")
def shared_provider() -> Iterator[Provider]:
    with run_provider() as running:
        yield running


@pytest.fixture(scope="package")
def shared_site(shared_provider: Provider) -> Iterator[Site]:
    changes = {
        "OPENAI_BASE_URL": shared_provider.base_url,
        "ALLOW_GUESTS": "1",
        # Who has missed more is given a snapshot.
        "REPLAY_EVENTS": "2",
    }
    with run_site(**SETTINGS | changes) as site:
        yield site
    assert "Traceback" not in site.log


@pytest.fixture
def provider(shared_provider: Provider) -> Iterator[Provider]:
    shared_provider.forget()
    shared_provider.script = echo
    yield shared_provider
    for call in shared_provider.calls:
        call.reply.open()


@pytest.fixture
def site(shared_site: Site, provider: Provider) -> Site:
    if not shared_site.process.is_running:
        shared_site.start()
    return shared_site


@pytest.fixture
def ann(site: Site) -> User:
    return site.users["ann"]


@pytest.fixture
async def client(site: Site, ann: User) -> AsyncIterator[Client]:
    """Ann's, without anything in between."""
    async with Client(site.origin) as client:
        await client.sign_in(ann.username, ann.password)
        yield client


@pytest.fixture
async def line(site: Site) -> AsyncIterator[tuple[Relay, str]]:
    """A network to the site that breaks when it is told to, and its address."""
    async with relay_to(site.port) as line:
        yield line


@pytest.fixture
async def far_client(line: tuple[Relay, str], ann: User) -> AsyncIterator[Client]:
    """Ann's, at the other end of `line`."""
    async with Client(line[1]) as client:
        await client.sign_in(ann.username, ann.password)
        yield client
