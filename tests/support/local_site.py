"""Runs a site whose embedded model is a small real one, from a local source."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from tests.support.servers import scratch_dir
from tests.support.site import Site, run_site
from tests.support.weights_source import WeightsSource

SETTINGS = {
    "DJANGO_SETTINGS_MODULE": "tests.support.local_settings",
    "ALLOW_GUESTS": "1",
    "AGENT_MODEL": "",
}


@contextlib.contextmanager
def run_local_site(source: WeightsSource, **changes: Any) -> Iterator[Site]:
    """Run a site with an empty cache; `changes` are fields of the weights."""
    weights = json.dumps(asdict(source.weights(**changes)))
    with scratch_dir("cache") as cache:
        own = {"LOCAL_MODEL_CACHE": str(cache), "TEST_WEIGHTS": weights}
        with run_site(**SETTINGS, **own, **source.pip_environment()) as site:
            yield site
