"""The drills' settings with a shared channel layer that loses, repeats and reorders messages."""

from tests.support.drill_settings import *  # noqa: F403
from tests.support.drill_settings import CHANNEL_LAYERS

CHANNEL_LAYERS["default"]["BACKEND"] = "tests.support.layers.LossyRedisLayer"
