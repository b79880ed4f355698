"""The site's settings with the agent of the benchmark of workers."""

from tests.support.quick_settings import *  # noqa: F403

AGENTS = "benchmarks.worker_agents"
