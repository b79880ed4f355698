"""The settings of this app (`settings.REALTIME`) and the system checks of all that it needs."""

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as WarningMessage
from django.core.signals import setting_changed
from django.db import connection
from django.dispatch import receiver
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from conversations.text import SHOWN_CHARS

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Count = Annotated[int, Field(ge=1)]

MIN_BUDGET = 256
"""The smallest budget in tokens; with less a model could not be given a question."""

Role = Literal["all", "web", "worker"]
"""The role of a process: `web` serves sockets, `worker` works on runs, `all` does both."""

SOCKET_PATH = "/ws/agent/"
"""The path of the WebSocket, unless `settings.SOCKET_PATH` is set."""


class RealtimeSettings(BaseModel):
    """The fields of the dictionary `settings.REALTIME`; a name's end is its unit, as in `_ms`."""

    model_config = ConfigDict(extra="forbid")

    flush_interval_ms: Annotated[float, Field(ge=0, le=5_000)] = Field(
        default=40, description="Pause between two commits of streamed text, in milliseconds."
    )
    flush_interval_max_ms: Annotated[float, Field(ge=0, le=5_000)] = Field(
        default=200,
        description="The longest pause between two commits under load, in milliseconds.",
    )
    source_window_ms: Annotated[float, Field(ge=0, le=5_000)] = Field(
        default=100,
        description="How long a model's stream is collected before it is parsed, in milliseconds.",
    )
    lease_s: Seconds = Field(
        default=15,
        description="How long a worker's lease on a run is valid; a sweeper recovers a run whose "
        "lease has expired.",
    )
    beat_s: Seconds = Field(
        default=5, description="How often a worker renews the lease of a run without output."
    )
    cancel_poll_s: Seconds = Field(
        default=0.5,
        description="How often a worker polls the database for cancel requests of its runs.",
    )
    sweep_s: Seconds = Field(
        default=5,
        description="How often sweepers look for runs whose lease has expired and for runs that "
        "nobody has started.",
    )
    pickup_s: Seconds = Field(
        default=5,
        description="How long a run that is ready may stay queued before any sweeper starts it.",
    )
    fold_after_s: Seconds = Field(
        default=600,
        description="How long streamed text events are kept after their run has ended.",
    )
    head_interval_s: Seconds = Field(
        default=4, description="How often the poller compares what sockets show with the database."
    )
    disconnect_grace_s: Seconds = Field(
        default=300, description="How long a run may have no viewer before `ON_DISCONNECT` applies."
    )
    on_disconnect: Literal["cancel", "continue"] = Field(
        default="cancel",
        description="Whether a run is cancelled or continues after it had no viewer for "
        "`DISCONNECT_GRACE_S`.",
    )
    heartbeat_s: Seconds = Field(
        default=25, description="How often the server sends `ping` to a socket."
    )
    max_attempts: Count = Field(
        default=2,
        description="How often a run is attempted in all, if its workers die: while it has shown "
        "nothing, or behind finished tools.",
    )
    queue_max: Count = Field(default=10, description="Messages that may wait in a session.")
    follow_max: Count = Field(default=8, description="Sessions that one socket may follow.")
    sockets_per_user: Count = Field(
        default=200,
        description="Sockets that one user may have open in all processes that share Redis.",
    )
    sockets_per_address: Count = Field(
        default=2_000,
        description="Sockets that one address may have open in all processes that share Redis; "
        "IPv6 addresses are counted by their /64 network.",
    )
    frame_max_bytes: Annotated[int, Field(ge=1_024, le=131_072)] = Field(
        default=65_536, description="The largest frame a client may send, in bytes of UTF-8."
    )
    frames_per_minute: Count = Field(
        default=100,
        description="Frames that one socket may send per minute; all sockets of a user in a "
        "process may send ten times as many. `cancel` is not counted.",
    )
    outbox_frames: Count = Field(
        default=256,
        description="Frames that may wait in a socket's outbox; if there are more, they are "
        "dropped and the reader catches up.",
    )
    outbox_bytes: Count = Field(
        default=1_048_576,
        description="Bytes that may wait in a socket's outbox, as for `OUTBOX_FRAMES`.",
    )
    replay_events: Count = Field(
        default=200,
        description="Missed events that are replayed one by one; a reader that missed more is "
        "sent a snapshot.",
    )
    replay_messages: Count = Field(
        default=50,
        description="Missed messages that are sent on resume; a reader that missed more must "
        "reload.",
    )
    context_tokens: str = Field(
        default="",
        description="The most tokens of a conversation that are sent to a model, by prefixes of "
        "model names, such as `gpt-4o=60000,qwen=6000`; a number without a name "
        "applies to all other models.",
    )
    context_messages: Count = Field(
        default=60, description="The most messages of a conversation that are sent to a model."
    )
    approval_expires_s: Annotated[float, Field(gt=0, le=31_536_000)] = Field(
        default=86_400,
        description="How long a run waits for its user to decide on a tool call; then the "
        "approval expires.",
    )
    titles: Literal["model", "words"] = Field(
        default="model",
        description="How conversations get titles: `model` asks the model after the first reply, "
        "`words` takes the first words. `words` by default with the tour and the "
        "local model.",
    )
    summaries: Literal["model", "off"] = Field(
        default="model",
        description="What happens to the beginning of a conversation that is too long for its "
        "model: `model` replaces it by a summary that the model writes, `off` leaves "
        "it out. `off` by default with the tour and the local model.",
    )
    max_turns: Count = Field(default=10, description="Model calls that one run may make.")
    progress_interval_ms: Annotated[float, Field(ge=0, le=60_000)] = Field(
        default=250,
        description="The shortest interval between two progress updates of a tool, in "
        "milliseconds; only the latest one is shown.",
    )
    tool_arguments_chars: Count = Field(
        default=SHOWN_CHARS, description="Characters of a tool's arguments that users are shown."
    )
    tool_output_chars: Count = Field(
        default=SHOWN_CHARS, description="Characters of a tool's output that users are shown."
    )
    tool_server_timeout_s: Seconds = Field(
        default=15,
        description="How long an MCP server may take to connect, or to answer the check before a "
        "run.",
    )
    run_max_s: Seconds = Field(
        default=600,
        description="How long a run may work, from the start of its agent; time in the queue is "
        "not counted.",
    )
    tool_timeout_s: Seconds = Field(
        default=60,
        description="How long a tool without a `timeout` of its own may run; then the model is "
        "told that it timed out.",
    )
    parallel_tools: Count = Field(
        default=8, description="Tools of one run that may run at the same time; others wait."
    )
    output_tokens: Count = Field(
        default=32_000,
        description="The most tokens that one run may produce, counting text, reasoning and tool "
        "calls. An agent's own `max_tokens` is sent to the model in addition.",
    )
    runs_per_user: Count = Field(
        default=10,
        description="Conversations of one user that may have queued or running replies at once.",
    )
    tokens_per_day: Annotated[int, Field(ge=0)] = Field(
        default=2_000_000,
        description="Tokens that the replies of one user may use in 24 hours, without titles and "
        "summaries; 0 for no limit.",
    )
    guest_tokens_per_day: Annotated[int, Field(ge=0)] = Field(
        default=200_000,
        description="As `TOKENS_PER_DAY`, for a guest; 0 applies `TOKENS_PER_DAY` to guests.",
    )
    site_tokens_per_day: Annotated[int, Field(ge=0)] = Field(
        default=100_000_000,
        description="Tokens that the replies of all users together may use in 24 hours; 0 for no "
        "limit.",
    )
    starts_at_once: Count = Field(
        default=16,
        description="Runs that a process may be setting up at the same time; later ones wait in "
        "order.",
    )
    starts_waiting: Count = Field(
        default=300,
        description="Chats and runs that may wait in a process to be stored and to be set up; "
        "further chats are refused as `unavailable`, and their clients send them again.",
    )
    provider_retries: Annotated[int, Field(ge=0, le=10)] = Field(
        default=2,
        description="How often a request to a model server that is busy or unavailable is retried "
        "while the reply has shown nothing.",
    )
    retry_wait_max_s: Seconds = Field(
        default=20,
        description="The longest pause that a model server may ask for; if it asks for a longer "
        "one, the request is not retried.",
    )
    provider_timeout_s: Seconds = Field(
        default=60, description="How long a model server may send nothing before the run fails."
    )
    buffer_s: Seconds = Field(
        default=60, description="How long a run goes on while the database is unavailable."
    )
    buffer_bytes: Count = Field(
        default=1_048_576,
        description="How much text a run keeps in memory while the database is unavailable.",
    )
    layer_timeout_s: Seconds = Field(
        default=2, description="How long a send to the channel layer may take."
    )
    db_threads: Annotated[int, Field(ge=1, le=64)] = Field(
        default=8, description="Database threads of a process."
    )
    runs_per_worker: Count = Field(
        default=200,
        description="Runs that one `work` process works on at the same time with "
        "`RUN_EXECUTOR=procrastinate`.",
    )
    drain_s: Annotated[float, Field(ge=0, le=86_400)] | None = Field(
        default=None,
        description="How long runs may go on after a stop signal: by default 10 s with `serve` "
        "and 300 s with `work`.",
    )
    rest_wait_s: Seconds = Field(
        default=300, description="How long a chat over REST waits for its reply."
    )
    send_timeout_s: Seconds = Field(
        default=30, description="How long a socket may accept no data before it is disconnected."
    )
    handshakes_waiting: Count = Field(
        default=1_000,
        description="Sockets that may wait in a process to be opened; further ones are refused as "
        "`unavailable`, and their clients try again.",
    )
    listen_backlog: Annotated[int, Field(ge=1, le=65_535)] = Field(
        default=4_096,
        description="How many new connections may wait to be accepted; the system may allow fewer "
        "(`net.core.somaxconn`). Beyond that clients repeat their attempts after seconds.",
    )

    @field_validator("context_tokens")
    @classmethod
    def refuse_bad_budgets(cls, value: str) -> str:
        parse_budgets(value)
        return value


def parse_budgets(text: str) -> dict[str, int]:
    """Parse the setting `context_tokens`: return tokens by the lower-case start of a model's name.

    The key "" is for all other models; it is missing if the text gives no number for them. Of two
    entries for the same name the later one counts. "" gives {}. Raises `ValueError` for an entry
    whose number is invalid or below `MIN_BUDGET`.
    """
    budgets = {}
    for entry in filter(None, text.replace(" ", "").split(",")):
        start, _, tokens = entry.rpartition("=")
        if not tokens.isdecimal() or int(tokens) < MIN_BUDGET:
            raise ValueError(f"must give at least {MIN_BUDGET} tokens, as in gpt-4o=60000,8000")
        budgets[start.lower()] = int(tokens)
    return budgets


@lru_cache(maxsize=1)
def get_conf() -> RealtimeSettings:
    """Return the settings in `settings.REALTIME`, with defaults for the others.

    They are read once, and again when a test overrides `REALTIME`. Raises
    `pydantic.ValidationError` if one is wrong or unknown.
    """
    return RealtimeSettings(**getattr(settings, "REALTIME", {}))


def is_deferring() -> bool:
    """Return whether runs become Procrastinate jobs (`RUN_EXECUTOR`), which workers take."""
    executor: str = getattr(settings, "RUN_EXECUTOR", "inline")
    return executor == "procrastinate"


def serving_role() -> Role:
    """Return the role of a process that serves clients: `settings.ROLE`, by default `all`.

    Instead of `all` it is `web` if runs are deferred to workers (`is_deferring`). The setting is
    not checked: a value of `worker` is returned too.
    """
    role: Role = getattr(settings, "ROLE", "all")
    return "web" if role == "all" and is_deferring() else role


def socket_path() -> str:
    """Return `settings.SOCKET_PATH`, by default `SOCKET_PATH`, with one slash at both ends."""
    path: str = getattr(settings, "SOCKET_PATH", SOCKET_PATH)
    return f"/{path.strip('/')}/"


@receiver(setting_changed)
def _forget(*, setting: str, **kwargs: object) -> None:
    if setting == "REALTIME":
        get_conf.cache_clear()


Apps = Sequence[AppConfig] | None

TRACING_MODULES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")

NEEDED = {
    "AGENTS": 'the module with your agents, such as "mysite.agents"',
    "AGENT_MODEL": 'the default model of your agents, such as "gpt-5.4-mini"',
    "ASGI_APPLICATION": 'the ASGI application, such as "mysite.asgi.application"',
    "CHANNEL_LAYERS": (
        '{"default": {"BACKEND": "realtime.channel_layer.LocalLayer"}} for one process'
    ),
}


@register
def check_settings(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Report each setting of `NEEDED` that is missing or empty."""
    return [
        Error(f"The setting {name} is missing.", hint=f"Set it to {hint}.", id="realtime.E001")
        for name, hint in NEEDED.items()
        if not getattr(settings, name, None)
    ]


@register
def check_agents(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Report that there is no module of the name in `AGENTS`; nothing if that setting is missing.

    Does not import it, only its parent packages: importing the Agents SDK takes more than a second.
    """
    name = getattr(settings, "AGENTS", None)
    if not name or _is_there(name):
        return []
    message = f"The setting AGENTS names {name!r}, which is not a module."
    return [Error(message, id="realtime.E002")]


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ImportError:
        return False


@register
def check_limits(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Report each fault in `settings.REALTIME`."""
    try:
        get_conf()
    except ValidationError as exc:
        return [Error(_fault_line(fault), id="realtime.E003") for fault in exc.errors()]
    return []


def _fault_line(fault: Any) -> str:
    return f"REALTIME: {'.'.join(map(str, fault['loc']))}: {fault['msg']}"


@register
def check_role(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Report a channel layer in memory if this process shares work with others.

    It does if `serving_role` is `web` or `worker`, which includes deferred runs.
    """
    role = serving_role()
    if role == "all" or is_layer_shared():
        return []
    what = "RUN_EXECUTOR=procrastinate" if is_deferring() else f"ROLE={role}"
    hint = "Set REDIS_URL, or leave ROLE at `all` and RUN_EXECUTOR at `inline`."
    message = f"{what} requires a channel layer that processes share."
    return [Error(message, hint=hint, id="realtime.E006")]


@register
def check_executor(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Report that runs are deferred without Postgres, or else without Procrastinate's Django app.

    The jobs of Procrastinate are rows in Postgres, in tables of that app.
    """
    if not is_deferring():
        return []
    if connection.vendor != "postgresql":
        message = f"RUN_EXECUTOR=procrastinate requires PostgreSQL, not {connection.display_name}."
        hint = "Use PostgreSQL, or leave RUN_EXECUTOR at `inline`."
        return [Error(message, hint=hint, id="realtime.E007")]
    if not apps.is_installed("procrastinate.contrib.django"):
        message = "RUN_EXECUTOR=procrastinate requires Procrastinate's Django app."
        hint = 'Add "procrastinate.contrib.django" to INSTALLED_APPS and run `manage.py migrate`.'
        return [Error(message, hint=hint, id="realtime.E008")]
    return []


@register(Tags.database)
def check_job_tables(
    app_configs: Apps, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Warn if chats are deferred to Procrastinate, but its tables are missing in Postgres.

    Only if the database `default` is checked. Not an error: `migrate` itself runs these checks
    first.
    """
    is_asked = "default" in (databases or ()) and connection.vendor == "postgresql"
    if not is_deferring() or not is_asked:
        return []
    if "procrastinate_jobs" in connection.introspection.table_names():
        return []
    message = "Procrastinate's tables are missing: chats will fail."
    return [WarningMessage(message, hint="Run `manage.py migrate`.", id="realtime.W001")]


@register
def check_tracing(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Report that `OTEL_EXPORTER_OTLP_ENDPOINT` is set without the packages that send traces."""
    if not getattr(settings, "OTEL_EXPORTER_OTLP_ENDPOINT", None):
        return []
    if all(map(_is_there, TRACING_MODULES)):
        return []
    message = "OTEL_EXPORTER_OTLP_ENDPOINT requires packages that are not installed."
    hint = "Run: pip install -r requirements-tracing.txt"
    return [Error(message, hint=hint, id="realtime.E009")]


LAYERS_OF_ONE_PROCESS = (
    "realtime.channel_layer.LocalLayer",
    "channels.layers.InMemoryChannelLayer",
)


def is_layer_shared() -> bool:
    """Return whether the default channel layer reaches other processes.

    It is taken to do so unless it is one of `LAYERS_OF_ONE_PROCESS`, even if none is set.
    """
    layers = getattr(settings, "CHANNEL_LAYERS", {})
    return layers.get("default", {}).get("BACKEND") not in LAYERS_OF_ONE_PROCESS


@register(Tags.security, deploy=True)
def check_hosts(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Report `*` in `ALLOWED_HOSTS`, unless `DEBUG` is set.

    It accepts any Host header, and the Origin check compares with that header.
    """
    if settings.DEBUG or "*" not in settings.ALLOWED_HOSTS:
        return []
    hint = "Set ALLOWED_HOSTS to the host names of the site, such as chat.example.org."
    return [Error("ALLOWED_HOSTS accepts any Host header.", hint=hint, id="realtime.E005")]


CORE_LAYER = "channels_redis.core.RedisChannelLayer"


@register(Tags.compatibility)
def check_redis_layer(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Report channel layers of channels-redis that lose messages or sockets, each of them.

    Its core layer silently drops what exceeds the capacity of a process, closes idle sockets at any
    `socket_timeout` (5 s by default with redis-py 8), and all of them when Redis restarts. Its
    pub/sub layer receives nothing if the client decodes bytes.
    """
    found: list[CheckMessage] = []
    for name, layer in getattr(settings, "CHANNEL_LAYERS", {}).items():
        backend, hosts = layer["BACKEND"], layer.get("CONFIG", {}).get("hosts", [])
        if backend == CORE_LAYER:
            message = f"The channel layer {name!r} is {CORE_LAYER}, which drops messages silently."
            hint = "Use channels_redis.pubsub.RedisPubSubChannelLayer."
            found.append(Error(message, hint=hint, id="realtime.E004"))
        elif backend.startswith("channels_redis.") and any(map(is_decoding, hosts)):
            message = f"The channel layer {name!r} receives nothing with `decode_responses`."
            hint = "Remove that option from its hosts."
            found.append(Error(message, hint=hint, id="realtime.E010"))
    return found


def is_decoding(host: object) -> bool:
    """Return whether a host of channels-redis, a URL or its options, decodes what it receives.

    A URL with the option counts whatever its value is.
    """
    options = host if isinstance(host, dict) else {"address": host}
    # In a URL any value turns it on, even 0: redis-py takes it as text.
    in_url = "decode_responses=" in str(options.get("address", ""))
    return in_url or bool(options.get("decode_responses"))
