"""What the page says about the agent that will answer."""

from dataclasses import dataclass

from django.conf import settings
from django.utils.translation import gettext as _

from realtime.registry import default_agent

TOUR = "tour"


@dataclass(frozen=True)
class AgentCard:
    """An agent as people are introduced to it."""

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


def get_card() -> AgentCard:
    """The agent that a new conversation begins with."""
    name = default_agent()
    if is_scripted(name):
        return AgentCard(
            label=get_label(name),
            scripted=True,
            description=_(
                "A guided tour of this chat: its answers are scripted and stream through the "
                "real machinery. Set a model, and your own agent answers here."
            ),
            model="",
            starters=(_("Show me some Markdown"), _("Write a long reply"), _("Use a tool")),
        )
    return AgentCard(
        label=get_label(name),
        scripted=False,
        description=_("Ask anything."),
        model=settings.AGENT_MODEL,
        starters=(),
    )
