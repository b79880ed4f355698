"""The site's settings with agents that have tools, for server processes of tests."""

from tests.support.quick_settings import *  # noqa: F403

AGENTS = "tests.support.drill_agents"
