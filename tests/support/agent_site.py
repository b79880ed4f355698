"""Agents of a test's own in this process, with the stand-in for their model."""

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from agents import Agent

from realtime.registry import AgentEntry
from tests.support.provider import Provider


class AgentSite:
    """Serves whatever agents it is given; `provider` answers for those without a model."""

    def __init__(self, provider: Provider, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.provider = provider
        self._module: Any = ModuleType("agents_of_the_test")
        monkeypatch.setitem(sys.modules, self._module.__name__, self._module)
        settings.AGENTS = self._module.__name__

    def serve(self, *agents: Agent[Any]) -> None:
        self._module.AGENTS = [AgentEntry(agent) for agent in agents]


@pytest.fixture(params=["chat", "responses"])
def agent_site(
    request: pytest.FixtureRequest,
    provider: Provider,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[AgentSite]:
    """The same for each of the model's APIs."""
    settings.OPENAI_BASE_URL = provider.base_url
    settings.AGENT_MODEL = "stand-in"
    settings.AGENT_API = request.param
    yield AgentSite(provider, settings, monkeypatch)
    assert [call.refusal for call in provider.calls if call.refusal] == []
