"""Real servers, whose model is the stand-in, with clocks that run fast."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.approvals import append
from tests.support.client import ChatClient
from tests.support.machine import scaled
from tests.support.provider import Gate, Provider, Reply, echo, run_provider, words
from tests.support.servers import Postgres, Valkey
from tests.support.site import Site, User, prepared_database, run_site
from tests.support.waiting import TIMEOUT_S

LEASE_S = 6
SETTINGS = {
    "DJANGO_SETTINGS_MODULE": "tests.support.drill_settings",
    "AGENT_MODEL": "stand-in",
    "HEAD_INTERVAL_S": "0.5",
    "SWEEP_S": "1",
    "PICKUP_S": "0.5",
    "LEASE_S": f"{scaled(LEASE_S):.1f}",
    "BEAT_S": "0.5",
    "DRAIN_S": "1",
    "FRAMES_PER_MINUTE": "10000",
    "RUNS_PER_USER": "10000",
    "PROVIDER_RETRIES": "0",
}
"""What comes in seconds by default comes in tenths of them; each sweep is some 5 ms of CPU."""

TAKEOVER_S = LEASE_S + TIMEOUT_S
"""Until a reply whose worker was lost is seen to."""


@pytest.fixture(scope="package")
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
    """A site with other settings."""
    settings = SETTINGS | {"OPENAI_BASE_URL": provider.base_url} | changes
    with run_site(postgres, **settings) as site:
        yield site


@pytest.fixture(scope="package")
def chat_site(shared_provider: Provider) -> Iterator[Site]:
    with drill_site(shared_provider, AGENT_API="chat") as site:
        yield site
    assert "Traceback" not in site.log


@pytest.fixture(scope="package")
def responses_site(shared_provider: Provider) -> Iterator[Site]:
    with drill_site(shared_provider, AGENT_API="responses") as site:
        yield site
    assert "Traceback" not in site.log


WRITTEN_ANEW = "I look.\n\nYou said: Look"
"""The reply of `begin_behind_a_tool` when another worker has gone on."""


async def begin_behind_a_tool(client: ChatClient, provider: Provider, file: Path) -> dict[str, Any]:
    """Start a reply that calls a tool, which adds a line to `file`, and is then writing.

    Returns the metadata of `accepted`.
    """
    cut = Reply(words(30), gate=Gate(3))
    provider.queue(Reply(["I look."], tool_calls=[append(file)]), cut)
    accepted = await client.chat("Look")
    await client.resume(accepted["session_id"])
    await client.wait_text(accepted["run_id"], f"I look.\n\n{cut.start(3)}")
    return accepted


def revived(site: Site) -> Site:
    """Running, also if the test before has killed it."""
    if not site.process.is_running:
        site.start()
    return site


@pytest.fixture
def site(chat_site: Site, provider: Provider) -> Site:
    """A server on SQLite, which the test may kill."""
    return revived(chat_site)


@pytest.fixture(params=["chat", "responses"])
def either_site(request: pytest.FixtureRequest, provider: Provider) -> Site:
    """The same for each of the model's APIs."""
    return revived(request.getfixturevalue(f"{request.param}_site"))


@dataclass(frozen=True)
class Cluster:
    """Two servers on one Postgres and one Valkey."""

    one: Site
    two: Site
    valkey: Valkey

    @property
    def ann(self) -> User:
        return self.one.users["ann"]

    @property
    def ben(self) -> User:
        return self.one.users["ben"]


@pytest.fixture(scope="package")
def shared_cluster(
    shared_provider: Provider, postgres: Postgres, shared_valkey: Valkey
) -> Iterator[Cluster]:
    with prepared_database(postgres) as url:
        shared = {"DATABASE_URL": url, "REDIS_URL": shared_valkey.url}
        with (
            drill_site(shared_provider, postgres, **shared) as one,
            drill_site(shared_provider, postgres, **shared) as two,
        ):
            yield Cluster(one, two, shared_valkey)


@pytest.fixture
def cluster(shared_cluster: Cluster, provider: Provider) -> Cluster:
    """Two servers that the test may kill, with what is behind them."""
    if not shared_cluster.valkey.process.is_running:
        shared_cluster.valkey.start()
    revived(shared_cluster.one)
    revived(shared_cluster.two)
    return shared_cluster


@pytest.fixture
def ann(site: Site) -> User:
    return site.users["ann"]
