"""The module of agents that the settings name."""

import sys
from types import ModuleType
from typing import Any

import pytest
from agents import Agent
from django.core.exceptions import ImproperlyConfigured

from realtime import registry
from realtime.registry import AgentEntry


@pytest.fixture
def module(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    made: Any = ModuleType("agents_of_the_test")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    settings.AGENTS = made.__name__
    return made


def test_the_first_is_the_default(module: Any) -> None:
    module.AGENTS = [AgentEntry(Agent(name="one")), AgentEntry(Agent(name="two"))]
    assert registry.agent_names() == ("one", "two")
    assert registry.default_agent() == "one"
    assert registry.get_agent("two").name == "two"


def test_one_that_is_gone_is_replaced_by_the_first(module: Any) -> None:
    module.AGENTS = [AgentEntry(Agent(name="one"))]
    assert registry.get_agent("gone").name == "one"


@pytest.mark.parametrize("names", [[], ["one", "one"]])
def test_none_and_a_name_given_twice_are_refused(module: Any, names: list[str]) -> None:
    module.AGENTS = [AgentEntry(Agent(name=name)) for name in names]
    with pytest.raises(ImproperlyConfigured, match="agents_of_the_test"):
        registry.list_entries()
