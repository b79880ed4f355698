"""THE file to edit: defines your agents and how the page introduces them.

The first of `AGENTS` is the default. An agent that names no model uses AGENT_MODEL. docs/agents.md
shows how to write tools, handoffs, guardrails and more.
"""

from agents import Agent
from agents.extensions.handoff_prompt import prompt_with_handoff_instructions
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from agentsite import tour
from agentsite.site_tools import SITE_TOOLS
from realtime.registry import AgentEntry
from realtime.work.run_context import RunContext

STYLE = (
    "Answer in the language of the question, in Markdown, as briefly as the question allows. "
    "Say so when you do not know."
)


def introduce(instructions: str) -> str:
    """Return `instructions`; if the embedded model answers, after a sentence that names it."""
    if settings.MODEL_KIND != "local":
        return instructions
    label = settings.LOCAL_MODEL_WEIGHTS.label
    return (
        f"You are {label}, a small language model that runs on this website's own computer. "
        f"{instructions}"
    )


assistant = Agent[RunContext](
    name="assistant",
    instructions=introduce(f"You are a helpful assistant on a website. {STYLE}"),
)

writer = Agent[RunContext](
    name="writer",
    handoff_description="Drafts, edits, shortens and translates texts.",
    instructions=prompt_with_handoff_instructions(
        "You write and edit texts for other people. Give the text first and remarks after it, "
        f"and ask when you cannot tell for whom it is. {STYLE}"
    ),
)

programmer = Agent[RunContext](
    name="programmer",
    handoff_description="Writes, explains and mends code.",
    instructions=prompt_with_handoff_instructions(
        "You help people with code. Show code that is complete enough to be run, name what you "
        f"could not check, and explain only what is not plain from the code. {STYLE}"
    ),
)

team = Agent[RunContext](
    name="team",
    instructions=prompt_with_handoff_instructions(
        "You receive requests for a small team. Hand over to the writer what is about a text, "
        f"and to the programmer what is about code. Answer anything else yourself. {STYLE}"
    ),
    handoffs=[writer, programmer],
)

site = Agent[RunContext](
    name="site",
    instructions=(
        "You help a person with their own conversations on this website. Use your tools for "
        "every question about them: you know nothing of them otherwise. Name conversations by "
        "their titles, never by their ids. Archive only what the person has asked you to archive. "
        f"{STYLE}"
    ),
    tools=SITE_TOOLS,
)

AGENTS = [
    AgentEntry(
        assistant,
        description=_("Answers questions, explains, and helps you think."),
        starters=[
            _("Explain how a tide works, in three sentences"),
            _("What should I ask before I rent a flat?"),
            _("Plan a week of simple dinners for two"),
        ],
    ),
    AgentEntry(
        team,
        description=_("Passes your request on to whoever knows it best: a writer or a programmer."),
        starters=[
            _("Write a friendly reminder that a payment is due"),
            _("Write a Python function that finds duplicate files"),
            _("Shorten this text without losing a fact: …"),
        ],
    ),
    AgentEntry(
        site,
        description=_(
            "Searches, sums up and counts your own conversations here, and archives those you "
            "are done with, after you have agreed."
        ),
        starters=[
            _("How many conversations did I have this week?"),
            _("What was my last conversation about?"),
            _("Find the conversations about travel"),
        ],
    ),
]
if settings.MODEL_KIND == "tour":
    AGENTS = [tour.ENTRY]
elif settings.MODEL_KIND == "local":
    # A small model calls tools without need, so it gets none. The tour answers during the download.
    AGENTS = [AGENTS[0], tour.ENTRY]
