"""Real servers, whose model is the stand-in, with clocks that run fast."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.support.provider import Provider, echo, run_provider
from tests.support.servers import Postgres, Valkey
from tests.support.site import Site, User, prepared_database, run_site

SETTINGS = {
    "DJANGO_SETTINGS_MODULE": "tests.support.drill_settings",
    "AGENT_MODEL": "stand-in",
    "HEAD_INTERVAL_S": "0.5",
    "SWEEP_S": "0.3",
    "PICKUP_S": "0.5",
    "LEASE_S": "2",
    "BEAT_S": "0.5",
    "PROVIDER_TIMEOUT_S": "2",
    "FRAMES_PER_MINUTE": "10000",
}
"""What was asked for in seconds comes in tenths of them; the model's silence may last two."""


@pytest.fixture(scope="session")
def shared_provider() -> Iterator[Provider]:
    with run_provider() as running:
        yield running


@pytest.fixture
def provider(shared_provider: Provider) -> Iterator[Provider]:
    """The model's server, with nothing left over from the test before."""
    shared_provider.forget()
    shared_provider.script = echo
    yield shared_provider
    for call in shared_provider.calls:
        call.reply.open()


@contextlib.contextmanager
def drill_site(
    provider: Provider, postgres: Postgres | None = None, /, **changes: str
) -> Iterator[Site]:
    """A site of the test's own, which it may kill."""
    settings = SETTINGS | {"OPENAI_BASE_URL": provider.base_url} | changes
    with run_site(postgres, **settings) as site:
        yield site


@pytest.fixture(scope="session")
def chat_site(shared_provider: Provider) -> Iterator[Site]:
    with drill_site(shared_provider, AGENT_API="chat") as site:
        yield site


@pytest.fixture(scope="session")
def responses_site(shared_provider: Provider) -> Iterator[Site]:
    with drill_site(shared_provider, AGENT_API="responses") as site:
        yield site


@pytest.fixture
def site(chat_site: Site, provider: Provider) -> Site:
    """A server on SQLite that no test kills."""
    return chat_site


@pytest.fixture(params=["chat", "responses"])
def either_site(request: pytest.FixtureRequest, provider: Provider) -> Site:
    """The same for each of the model's APIs."""
    found: Site = request.getfixturevalue(f"{request.param}_site")
    return found


@pytest.fixture
def ann(site: Site) -> User:
    return site.users["ann"]
