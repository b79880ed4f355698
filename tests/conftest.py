"""The environment of in-process tests, made before Django reads it."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

import libraries
from venvs import Venv

from tests.support.site import INHERITED

WORK_DIR = tempfile.mkdtemp(prefix="agentsite-tests-")
atexit.register(shutil.rmtree, WORK_DIR, ignore_errors=True)

# Settings that a developer has for a site of their own stay out of the tests.
KEPT = (*INHERITED, "AGENTSITE_CHROMIUM", "CI")
for name in set(os.environ).difference(KEPT):
    if not name.startswith(("PYTEST_", "PIP_", "npm_", "SSL_", "LC_")):
        del os.environ[name]

os.environ |= {
    "DJANGO_SETTINGS_MODULE": "agentsite.settings",
    "DEBUG": "1",
    "SECRET_KEY": "for-tests-only-" * 4,
    "DATABASE_URL": f"sqlite:///{WORK_DIR}/db.sqlite3",
    "LOG_LEVEL": "WARNING",
    # Nothing is fetched by accident.
    "AGENT_MODEL": "tour",
    "API_REQUESTS_PER_MINUTE": "1000000",
}

# Sites that are started find the page's libraries in place.
if "PYTEST_XDIST_WORKER" not in os.environ:
    libraries.bring(Venv(Path(sys.prefix)))

import django  # noqa: E402

django.setup()

from collections.abc import AsyncIterator  # noqa: E402

import hypothesis  # noqa: E402
import pytest  # noqa: E402

from realtime.process import Process, get_process  # noqa: E402

# A busy machine is no failure.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

pytest_plugins = ["tests.support.fixtures", "tests.support.agent_site"]


@pytest.fixture
async def process(transactional_db: None) -> AsyncIterator[Process]:
    """The background services of this test's event loop."""
    running = get_process()
    yield running
    await running.drain(0)
    await running.stop()
