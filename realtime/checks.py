"""System checks of the settings that this app needs, and of the channel layer."""

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as WarningMessage
from django.db import connection
from pydantic import ValidationError

from realtime.conf import get_conf, is_deferring, serving_role

Apps = Sequence[AppConfig] | None

NEEDED = {
    "AGENTS": 'the dotted name of the module with your agents, such as "mysite.agents"',
    "AGENT_MODEL": "the name of the model that answers for agents without one of their own",
    "ASGI_APPLICATION": 'the dotted name of what is served, such as "mysite.asgi.application"',
    "CHANNEL_LAYERS": '{"default": {"BACKEND": "realtime.layers.LocalLayer"}} for one process',
}


@register
def check_settings(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Those without a default."""
    return [
        Error(f"The setting {name} is missing.", hint=f"It is {hint}.", id="realtime.E001")
        for name, hint in NEEDED.items()
        if not getattr(settings, name, None)
    ]


@register
def check_agents(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Found, but not imported: the Agents SDK takes more than a second."""
    name = getattr(settings, "AGENTS", None)
    if not name or _is_there(name):
        return []
    message = f"The setting AGENTS names {name!r}, which is no module."
    return [Error(message, id="realtime.E002")]


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ImportError:
        return False


@register
def check_limits(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """`settings.REALTIME`, a line for each fault."""
    try:
        get_conf()
    except ValidationError as exc:
        return [Error(_fault_line(fault), id="realtime.E003") for fault in exc.errors()]
    return []


def _fault_line(fault: Any) -> str:
    return f"REALTIME: {'.'.join(map(str, fault['loc']))}: {fault['msg']}"


@register
def check_role(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Processes of different roles tell each other of replies through the channel layer."""
    role = serving_role()
    if role == "all" or is_layer_shared():
        return []
    what = "RUN_EXECUTOR=procrastinate" if is_deferring() else f"ROLE={role}"
    hint = "Set REDIS_URL, or leave ROLE at `all` and RUN_EXECUTOR at `inline`."
    message = f"{what} needs a channel layer that processes share."
    return [Error(message, hint=hint, id="realtime.E006")]


@register
def check_executor(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Procrastinate's jobs are rows of Postgres, in tables of its own Django app."""
    if not is_deferring():
        return []
    if connection.vendor != "postgresql":
        message = f"RUN_EXECUTOR=procrastinate cannot work on {connection.display_name}."
        hint = "Use PostgreSQL, or leave RUN_EXECUTOR at `inline`."
        return [Error(message, hint=hint, id="realtime.E007")]
    if not apps.is_installed("procrastinate.contrib.django"):
        message = "RUN_EXECUTOR=procrastinate needs Procrastinate's Django app."
        hint = 'Add "procrastinate.contrib.django" to INSTALLED_APPS and run `manage.py migrate`.'
        return [Error(message, hint=hint, id="realtime.E008")]
    return []


@register(Tags.database)
def check_job_tables(
    app_configs: Apps, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """A warning, since `migrate` itself begins with these checks."""
    is_asked = "default" in (databases or ()) and connection.vendor == "postgresql"
    if not is_deferring() or not is_asked:
        return []
    if "procrastinate_jobs" in connection.introspection.table_names():
        return []
    message = "Procrastinate's tables are missing: no chat is accepted."
    return [WarningMessage(message, hint="Run `manage.py migrate`.", id="realtime.W001")]


def is_layer_shared() -> bool:
    """Whether what is sent through the channel layer reaches other processes."""
    layers = getattr(settings, "CHANNEL_LAYERS", {})
    return bool(layers.get("default", {}).get("BACKEND") != "realtime.layers.LocalLayer")


@register(Tags.security, deploy=True)
def check_hosts(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """`*` would let any Host header through, and the Origin check compares with it."""
    if settings.DEBUG or "*" not in settings.ALLOWED_HOSTS:
        return []
    hint = "Name the hosts, such as chat.example.org."
    return [Error("ALLOWED_HOSTS allows every host.", hint=hint, id="realtime.E005")]


@register(Tags.compatibility)
def check_redis_client(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """redis-py 8 gives every connection a time-out, which ends a consumer that only listens."""
    names = sorted(layers_with_timeout(getattr(settings, "CHANNEL_LAYERS", {})))
    if not names or int(version("redis").partition(".")[0]) < 8:
        return []
    hint = 'Set "socket_timeout": None on each host, or install redis<8.'
    return [
        Error(
            f"redis-py 8 ends idle sockets of the channel layer {name!r}.",
            hint=hint,
            id="realtime.E004",
        )
        for name in names
    ]


def layers_with_timeout(layers: dict[str, Any]) -> Iterator[str]:
    """The names of channels-redis layers with a host that does not switch its time-out off."""
    for name, layer in layers.items():
        if layer["BACKEND"].startswith("channels_redis."):
            hosts = layer.get("CONFIG", {}).get("hosts", [None])
            if not all(map(waits_forever, hosts)):
                yield name


def waits_forever(host: object) -> bool:
    return isinstance(host, dict) and host.get("socket_timeout", 0) is None
