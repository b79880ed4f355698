"""What the page says about the agents that answer."""

from dataclasses import dataclass

from django.conf import settings

from agentsite.tour_texts import NAME as TOUR
from realtime.registry import AgentEntry, get_entry, list_entries


@dataclass(frozen=True)
class AgentCard:
    """An agent as people are introduced to it; `model` is the one that answers."""

    name: str
    label: str
    scripted: bool
    description: str
    model: str
    starters: tuple[str, ...]


def is_scripted(name: str | None) -> bool:
    """Whether what this agent says was written beforehand."""
    return name == TOUR


def get_label(name: str | None) -> str:
    """The agent's name as people see it."""
    return name[:1].upper() + name[1:] if name else ""


def list_cards() -> list[AgentCard]:
    """The agents that a new conversation may begin with; the first one is offered first."""
    return [_card(entry) for entry in list_entries()]


def get_card(name: str = "") -> AgentCard:
    """The agent of that name, or the first."""
    return _card(get_entry(name))


def _card(entry: AgentEntry) -> AgentCard:
    return AgentCard(
        name=entry.name,
        label=get_label(entry.name),
        scripted=is_scripted(entry.name),
        description=str(entry.description),
        model=_model(entry),
        starters=tuple(map(str, entry.starters)),
    )


def _model(entry: AgentEntry) -> str:
    """The name of its model; an object that is a model of its own has none."""
    own = entry.agent.model
    if own is None:
        return str(settings.AGENT_MODEL)
    return own if isinstance(own, str) else ""
