"""The settings of the test process itself."""

from tests.support.quick_settings import *  # noqa: F403

# Each test client would list all static files anew; it is servers that are asked for them.
SERVESTATIC_USE_FINDERS = False
