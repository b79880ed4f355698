"""Pytest fixtures for the real parts; load with `pytest_plugins = ["tests.support.fixtures"]`."""

from collections.abc import Iterator

import pytest

from tests.support.provider import Provider, run_provider
from tests.support.servers import Postgres, Valkey, run_postgres, run_valkey
from tests.support.watching import watched_answers


@pytest.fixture(scope="session", autouse=True)
def answers_are_declared() -> Iterator[None]:
    """Fail each test that receives an answer of the API that OpenAPI does not declare."""
    with watched_answers():
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A cluster for the whole run; `postgres.database()` creates a database in it."""
    with run_postgres() as running:
        yield running


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[Valkey]:
    with run_valkey() as running:
        yield running


@pytest.fixture
def valkey(shared_valkey: Valkey) -> Valkey:
    """A running, empty Valkey, even if the previous test has killed it."""
    if not shared_valkey.process.is_running:
        shared_valkey.start()
    shared_valkey.flush()
    return shared_valkey


@pytest.fixture
def provider() -> Iterator[Provider]:
    """The test's own model provider; sites use it with `OPENAI_BASE_URL=provider.base_url`."""
    with run_provider() as running:
        yield running
