"""The site's settings with agents that have tools, for server processes of tests."""

from agentsite.settings import *  # noqa: F403

AGENTS = "tests.support.drill_agents"
