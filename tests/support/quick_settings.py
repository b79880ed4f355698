"""The site's settings with a cheap password hash: nearly every test signs somebody in."""

from agentsite.settings import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
