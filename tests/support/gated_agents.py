"""One agent on the model of the settings, and one that brings its own."""

from agents import Agent

from tests.support import site_agents

AGENT_NAMES = ("local", "echo")
DEFAULT_AGENT = "local"


def get_agent(name: str) -> Agent:
    if name == "echo":
        return site_agents.get_agent("echo")
    return Agent(name="local", instructions="Answer.")
