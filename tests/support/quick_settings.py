"""The site's settings with a cheap password hash and without waits for the disk.

Nearly every test signs somebody in and writes. No machine loses power in a test, and what `kill -9`
leaves is the same either way. `tests/site/test_settings.py` looks at what the site itself sets.
"""

from agentsite.settings import *  # noqa: F403
from agentsite.settings import DATABASES

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

OPTIONS = DATABASES["default"]["OPTIONS"]
if "init_command" in OPTIONS:
    OPTIONS["init_command"] = OPTIONS["init_command"].replace("synchronous=FULL", "synchronous=OFF")
