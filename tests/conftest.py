"""The environment of in-process tests, made before Django reads it."""

import atexit
import os
import shutil
import tempfile

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
}

import django  # noqa: E402

django.setup()
