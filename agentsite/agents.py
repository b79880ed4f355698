"""THE file to edit: your agents and their tools.

`AGENT_NAMES` are the names that a session may ask for, `DEFAULT_AGENT` the one that others get;
an agent that names no model is given the one of the settings.
"""

from functools import cache

from agents import Agent
from django.conf import settings

from agentsite import tour
from realtime.run_context import RunContext

AGENT_NAMES = ("assistant", "tour")
DEFAULT_AGENT = "tour" if settings.MODEL_KIND == "tour" else "assistant"


@cache
def get_agent(name: str) -> Agent[RunContext]:
    """The agent of that name; raises `KeyError`."""
    return {"assistant": make_assistant, "tour": tour.make_agent}[name]()


def make_assistant() -> Agent[RunContext]:
    return Agent(
        name="assistant",
        instructions=(
            "You are a helpful assistant on a website. Answer in the language of the question, "
            "in Markdown, as briefly as the question allows. Say so when you do not know."
        ),
    )
