"""Two agents: one on the model of the settings, one with a model of its own."""

from agents import Agent

from realtime.registry import AgentEntry
from tests.support import site_agents

AGENTS = [AgentEntry(Agent(name="local", instructions="Answer.")), *site_agents.AGENTS[:1]]
