"""The site's agents, from the module that `settings.AGENTS` names.

That module has `AGENTS`, a sequence of `AgentEntry`. Importing the Agents SDK takes more than a
second, so call these functions only where agents run or are shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import Promise

if TYPE_CHECKING:
    from agents import Agent

_Tool = TypeVar("_Tool")


@dataclass(frozen=True)
class AgentEntry:
    """An agent that users can choose.

    `description` is a sentence or two; "" for none. `starters` are first messages to choose from;
    one that ends with "…" is put into the message box, to be completed. With `continues`, a reply
    whose worker is lost goes on behind the tools that had finished; else it ends there, for its
    user to continue. `run_max_s` is how many seconds a run of it may work; None: the setting
    RUN_MAX_S. With `keeps_going`, its replies go on while nobody watches.
    """

    agent: "Agent[Any]"
    description: str | Promise = ""
    starters: Sequence[str | Promise] = ()
    continues: bool = True
    run_max_s: float | None = None
    keeps_going: bool = False

    @property
    def name(self) -> str:
        return self.agent.name


def irreversible(tool: _Tool) -> _Tool:
    """Mark a tool that needs approval as one whose effect cannot be undone, and return it.

    Whoever is asked to approve a call of it is told so. A copy of the tool is marked as well.
    """
    tool.is_irreversible = True  # type: ignore[attr-defined]
    return tool


def list_entries() -> list[AgentEntry]:
    """Return a new list of all entries, in order; imports the site's module of agents.

    Raises `ImproperlyConfigured` for no entry or a repeated name, and what the import raises.
    """
    entries = list(import_module(settings.AGENTS).AGENTS)
    names = [entry.name for entry in entries]
    if not names or len(set(names)) < len(names):
        raise ImproperlyConfigured(f"{settings.AGENTS}.AGENTS must be agents with unique names")
    return entries


def get_entry(name: str = "") -> AgentEntry:
    """Return the entry of the agent with that name, or the first entry if none has it."""
    entries = list_entries()
    return next((entry for entry in entries if entry.name == name), entries[0])


def agent_names() -> tuple[str, ...]:
    """Return the names of all agents, in order: those that a client may ask for."""
    return tuple(entry.name for entry in list_entries())


def unwatched_agents() -> tuple[str, ...]:
    """Return the names of the agents whose replies go on while nobody watches."""
    return tuple(entry.name for entry in list_entries() if entry.keeps_going)


def default_agent() -> str:
    """Return the name of the first agent; it answers if neither chat nor session names one."""
    return get_entry().name


def asks_settings(name: str) -> bool:
    """Return whether the model of the agent with that name is on the server of the settings.

    It is, unless the agent has a model object of its own. "" and unknown names stand for the first
    agent.
    """
    model = get_agent(name).model
    return model is None or isinstance(model, str)


def name_model(agent: "Agent[Any]") -> str:
    """Return the name of an agent's model: `AGENT_MODEL` if the agent sets none.

    For a model object it is its `model` or, without such an attribute, the name of its class.
    """
    model = agent.model
    if model is None:
        return str(settings.AGENT_MODEL)
    return model if isinstance(model, str) else str(getattr(model, "model", type(model).__name__))


def own_models() -> dict[str, str]:
    """Return the models' names by agents' names, for agents that set a model, even by its name."""
    agents = (entry.agent for entry in list_entries())
    return {agent.name: name_model(agent) for agent in agents if agent.model is not None}


def get_agent(name: str) -> "Agent[Any]":
    """Return the agent of that name, or the first agent if none has it.

    It is the site's own object: runs must work on a copy (`realtime.work.tools.copy_agent`).
    """
    return get_entry(name).agent
