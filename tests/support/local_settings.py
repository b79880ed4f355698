"""The site's settings with other weights for the embedded model: `TEST_WEIGHTS`, as JSON."""

import json
import os

from agentsite.local_model.weights import Weights
from tests.support.quick_settings import *  # noqa: F403

LOCAL_MODEL_WEIGHTS = Weights(**json.loads(os.environ["TEST_WEIGHTS"]))
