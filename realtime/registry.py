"""The site's agents, found by the dotted name in `settings.AGENTS`.

That module has `AGENT_NAMES`, `DEFAULT_AGENT` and `get_agent(name) -> agents.Agent`. Importing
the Agents SDK takes more than a second, so only what runs agents calls `get_agent`.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.conf import settings

if TYPE_CHECKING:
    from agents import Agent


def _module() -> Any:
    # An agent without a model of its own is made with the settings that suit this one.
    os.environ.setdefault("OPENAI_DEFAULT_MODEL", settings.AGENT_MODEL)
    return import_module(settings.AGENTS)


def agent_names() -> tuple[str, ...]:
    """The names that a client may ask for."""
    return tuple(_module().AGENT_NAMES)


def default_agent() -> str:
    """The agent of sessions that name none."""
    return str(_module().DEFAULT_AGENT)


def independent_agents() -> frozenset[str]:
    """The agents that bring a model of their own; "" is among them if the default one does."""
    named = {name for name in agent_names() if not _asks_settings(get_agent(name))}
    return frozenset(named | {""} if default_agent() in named else named)


def _asks_settings(agent: "Agent[Any]") -> bool:
    return agent.model is None or isinstance(agent.model, str)


def get_agent(name: str) -> "Agent[Any]":
    """The agent of that name; one that is not there any more is replaced by the default."""
    known = name if name in agent_names() else default_agent()
    agent: Agent[Any] = _module().get_agent(known)
    return agent
