"""Runs agents of a test in this process, with the stand-in as their model."""

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from agents import Agent
from django.contrib.auth.models import User

from realtime.registry import AgentEntry
from tests.support.chats import make_user
from tests.support.provider import Provider

Serve = Callable[..., None]


@pytest.fixture
def serve_agents(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """A function that makes these agents the only ones of the site."""
    module: Any = ModuleType("agents_of_the_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    settings.AGENTS = module.__name__

    def serve(*agents: Agent[Any]) -> None:
        module.AGENTS = [AgentEntry(agent) for agent in agents]

    return serve


class AgentSite:
    """Serves the agents that it is given; `provider` answers for those without a model."""

    def __init__(self, provider: Provider, serve: Serve) -> None:
        self.provider = provider
        self.serve = serve


@pytest.fixture(params=["chat", "responses"])
def agent_site(
    request: pytest.FixtureRequest, provider: Provider, settings: Any, serve_agents: Serve
) -> Iterator[AgentSite]:
    """The same, once for each of the model's APIs."""
    settings.OPENAI_BASE_URL = provider.base_url
    settings.AGENT_MODEL = "stand-in"
    settings.AGENT_API = request.param
    yield AgentSite(provider, serve_agents)
    assert [call.refusal for call in provider.calls if call.refusal] == []


@pytest.fixture
def ada(transactional_db: None) -> User:
    """A user to chat as."""
    return make_user("ada")
