"""The site's settings with more than one agent, for server processes of tests."""

from tests.support.quick_settings import *  # noqa: F403

AGENTS = "tests.support.two_agents"
