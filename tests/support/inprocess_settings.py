"""The settings of the test process itself."""

from tests.support.quick_settings import *  # noqa: F403

# Each test client would list all static files again, which only servers are asked for.
SERVESTATIC_USE_FINDERS = False
