"""The agents of drills, the second of which may be chosen too."""

from realtime.registry import AgentEntry
from tests.support.drill_agents import assistant, specialist

AGENTS = [AgentEntry(assistant), AgentEntry(specialist, keeps_going=True)]
