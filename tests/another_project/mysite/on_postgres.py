"""The same settings with Postgres at `DATABASE_URL`, as the tests start it."""

import os
from urllib.parse import urlsplit

from mysite.settings import *  # noqa: F403

_url = urlsplit(os.environ["DATABASE_URL"])
DATABASES = {
    "default": {
        "NAME": _url.path[1:],
        "USER": _url.username,
        "HOST": _url.hostname,
        "PORT": _url.port,
        "CONN_MAX_AGE": 0,
        "ATOMIC_REQUESTS": True,
        "ENGINE": "conversations.postgres",
        "OPTIONS": {"pool": {"max_size": 16, "timeout": 5, "reconnect_timeout": 2}},
    }
}
