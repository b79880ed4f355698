"""The site's agents, found by the dotted name in `settings.AGENTS`.

That module has `AGENTS`, a sequence of `AgentEntry`. Importing the Agents SDK takes more than a
second, so only what runs or shows agents calls the functions here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import Promise

if TYPE_CHECKING:
    from agents import Agent


@dataclass(frozen=True)
class AgentEntry:
    """An agent that people may choose, and how they are introduced to it.

    The description is a sentence or two; the starters are first messages to choose from.
    """

    agent: "Agent[Any]"
    description: str | Promise = ""
    starters: Sequence[str | Promise] = ()

    @property
    def name(self) -> str:
        return self.agent.name


def list_entries() -> list[AgentEntry]:
    """All of them, in order; raises `ImproperlyConfigured` for none and for a name given twice."""
    entries = list(import_module(settings.AGENTS).AGENTS)
    names = [entry.name for entry in entries]
    if not names or len(set(names)) < len(names):
        raise ImproperlyConfigured(f"{settings.AGENTS}.AGENTS must be agents of different names")
    return entries


def get_entry(name: str = "") -> AgentEntry:
    """The entry of that name; one that is not there any more is replaced by the first."""
    entries = list_entries()
    return next((entry for entry in entries if entry.name == name), entries[0])


def agent_names() -> tuple[str, ...]:
    """The names that a client may ask for."""
    return tuple(entry.name for entry in list_entries())


def default_agent() -> str:
    """The agent of sessions that name none."""
    return get_entry().name


def asks_settings(name: str) -> bool:
    """Whether the agent of that name, "" for the default one, has no model object of its own."""
    model = get_agent(name).model
    return model is None or isinstance(model, str)


def name_model(agent: "Agent[Any]") -> str:
    """The name of the model that answers for an agent; a nameless object goes by its class."""
    model = agent.model
    if model is None:
        return str(settings.AGENT_MODEL)
    return model if isinstance(model, str) else str(getattr(model, "model", type(model).__name__))


def own_models() -> dict[str, str]:
    """The models of agents that have one of their own, by the agents' names."""
    agents = (entry.agent for entry in list_entries())
    return {agent.name: name_model(agent) for agent in agents if agent.model is not None}


def get_agent(name: str) -> "Agent[Any]":
    """The agent of that name, or the first; a run takes a copy, by `realtime.work.tools`."""
    return get_entry(name).agent
