"""System checks for what would work at first and fail later."""

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.contrib.staticfiles import finders
from django.core.checks import CheckMessage, Error, Tags, register

Apps = Sequence[AppConfig] | None


@register(Tags.security, deploy=True)
def check_hosts(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """`*` would let any Host header through, and the Origin check compares with it."""
    if settings.DEBUG or "*" not in settings.ALLOWED_HOSTS:
        return []
    hint = "Name the hosts: ALLOWED_HOSTS=chat.example.org."
    return [Error("ALLOWED_HOSTS allows every host.", hint=hint, id="agentsite.E001")]


@register(Tags.compatibility)
def check_redis_client(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """redis-py 8 gives every connection a time-out, which ends a consumer that only listens."""
    if int(version("redis").partition(".")[0]) < 8:
        return []
    hint = 'Set "socket_timeout": None on each host, or install redis<8.'
    return [
        Error(
            f"redis-py 8 ends idle sockets of the channel layer {name!r}.",
            hint=hint,
            id="agentsite.E002",
        )
        for name in sorted(layers_with_timeout(settings.CHANNEL_LAYERS))
    ]


@register(Tags.staticfiles)
def check_libraries(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """They are not part of the sources: without them the chat page is dead."""
    if finders.find("vendor/markdown-it.js"):
        return []
    hint = "Run: pip install -r requirements-build.txt && python scripts/libraries.py"
    return [Error("The libraries of the chat page are missing.", hint=hint, id="agentsite.E003")]


def layers_with_timeout(layers: dict[str, Any]) -> Iterator[str]:
    """The names of channels-redis layers with a host that does not switch its time-out off."""
    for name, layer in layers.items():
        if layer["BACKEND"].startswith("channels_redis."):
            hosts = layer.get("CONFIG", {}).get("hosts", [None])
            if not all(map(waits_forever, hosts)):
                yield name


def waits_forever(host: object) -> bool:
    return isinstance(host, dict) and host.get("socket_timeout", 0) is None
