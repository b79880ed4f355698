"""Builds Django's settings from environment variables; docs/operations.md lists them all."""

import base64
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import dj_database_url
from django.core.management.utils import get_random_secret_key
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from agentsite.local_model import weights
from conversations import apps
from realtime.conf import RealtimeSettings

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR / "var"

SENTINEL_SCHEME = "redis+sentinel://"
REDIS_CONNECTIONS = 4
"""Connections on which a process publishes, since channels-redis publishes one message after the
other on each. Groups are spread over them, so that each group keeps its order.
"""

Words = Annotated[list[str], NoDecode]

REPLIES_ONLY = {"titles": "words", "summaries": "off"}
"""Defaults for slow or scripted models: they write replies, and no titles or summaries."""

# A CPU may need minutes to read a long prompt before the first token. The limit on the prompt
# leaves room for the reply within the model's context.
LOCAL = REPLIES_ONLY | {"provider_timeout_s": 600.0, "context_tokens": "2800"}

BY_KIND: dict[str, dict[str, Any]] = {"tour": REPLIES_ONLY, "local": LOCAL}
"""Other defaults of real-time settings, by kind of model."""


PREFIX = "AGENTSITE_"


class ModelPrice(BaseModel):
    """The price of a million tokens of a model, in `COST_CURRENCY`.

    If `cached_input` is None, cached input costs as much as other input.
    """

    model_config = ConfigDict(extra="forbid")

    input: Decimal = Field(ge=0)
    cached_input: Decimal | None = Field(default=None, ge=0)
    output: Decimal = Field(ge=0)


class Environment(RealtimeSettings, BaseSettings):
    """The environment, where each field is the variable of its name in capitals.

    A variable with `PREFIX` before its name takes precedence, because other programs set `HOST`,
    `DEBUG` and the like. Empty variables count as unset. Creating it reads the environment, and
    raises `ValidationError` for what is invalid or missing.
    """

    model_config = SettingsConfigDict(
        extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    debug: bool = Field(
        default=False, description="Development mode: convenient, and not safe to expose."
    )
    secret_key: SecretStr | None = Field(
        default=None,
        description="Signs sessions and tokens; at least 50 characters. Generated if DEBUG is set.",
    )
    allowed_hosts: Words = Field(
        default=[],
        description="Host names of the site, separated by commas. This machine's own if DEBUG is "
        "set.",
    )
    csrf_trusted_origins: Words = Field(
        default=[],
        description="Other origins whose pages may post forms to the site and open sockets, "
        "separated by commas.",
    )
    allowed_origins: Words = Field(
        default=[],
        description="Other origins whose pages may call the API and open sockets with a token, an "
        "API key or a ticket, separated by commas; wildcards as in "
        "`https://*.example.org`.",
    )
    https: bool | None = Field(
        default=None,
        description="The site is behind a proxy that terminates TLS and sets X-Forwarded-Proto: "
        "secure cookies, HSTS, and a redirect from plain HTTP. On unless DEBUG is "
        "set.",
    )
    proxies: int | None = Field(
        default=None,
        ge=0,
        le=10,
        description="How many proxies are in front of the site, each of which appends to "
        "X-Forwarded-For. By default 1 with HTTPS, else 0.",
    )
    host: str = Field(
        default="127.0.0.1", description="The address `serve` and METRICS_PORT listen on."
    )
    port: int = Field(default=8000, ge=0, le=65_535, description="The port `serve` listens on.")
    database_url: SecretStr | None = Field(
        default=None,
        description="postgres://user:password@host/name or sqlite:///path. By default SQLite in "
        "var/db.sqlite3.",
    )
    db_connect_timeout_s: int = Field(
        default=5, ge=2, le=3_600, description="How long connecting to Postgres may take."
    )
    db_network_timeout_s: int = Field(
        default=20,
        ge=4,
        le=3_600,
        description="How long Postgres may be unreachable before a connection is closed.",
    )
    db_lock_timeout_s: float = Field(
        default=10,
        ge=0,
        le=86_400,
        description="How long a statement may wait for a lock in Postgres; 0 for no limit. "
        "Management commands have no limit.",
    )
    db_statement_timeout_s: float = Field(
        default=30,
        ge=0,
        le=86_400,
        description="How long a statement may take in Postgres; 0 for no limit. Management "
        "commands have no limit.",
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="redis://host:port/0 of Redis or Valkey, rediss:// with TLS, "
        "redis+sentinel://host:port,host:port/0?service=name by Sentinels; required for more than "
        "one process.",
    )
    allow_guests: bool | None = Field(
        default=None, description="Allows chats without an account. On only if DEBUG is set."
    )
    allow_sign_up: bool = Field(default=True, description="Allows visitors to create accounts.")
    site_name: str = Field(
        default="agentsite", max_length=60, description="The name of the site on its pages."
    )
    site_logo: str = Field(
        default="favicon.svg",
        pattern=r"^/?[\w.-]+(/[\w.-]+)*$",
        description="The picture beside the name: a static file, or a path of this site that "
        "begins with `/`.",
    )
    site_accent: str = Field(
        default="",
        pattern=r"^(#[0-9A-Fa-f]{6})?$",
        description="The colour of links and of the main buttons, as in `#0b6b69`. It is made "
        "darker or lighter where it would be hard to read.",
    )
    openai_api_key: SecretStr | None = Field(
        default=None, description="API key of OpenAI, or of the server at OPENAI_BASE_URL."
    )
    openai_base_url: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="URL of an OpenAI-compatible model server, such as http://127.0.0.1:11434/v1.",
    )
    agent_model: str | None = Field(
        default=None,
        description="Name of the model at OpenAI or OPENAI_BASE_URL; `tour` for the scripted "
        "tour, which is not an AI.",
    )
    local_model_path: FilePath | None = Field(
        default=None,
        description="GGUF file of the local model, which answers if neither OPENAI_API_KEY nor "
        "OPENAI_BASE_URL is set. By default a model is downloaded.",
    )
    local_model_mirror: bool = Field(
        default=True,
        description="Allows downloading the local model from a mirror if its official source "
        "fails.",
    )
    local_model_cache: Path | None = Field(
        default=None,
        description="Folder of the downloaded local model. By default in the user's cache folder.",
    )
    agent_api: Literal["chat", "responses"] | None = Field(
        default=None,
        description="API of the model server: by default `responses` with OpenAI, else `chat`.",
    )
    api_requests_per_minute: int = Field(
        default=apps.REQUESTS_PER_MINUTE,
        ge=1,
        description="REST requests per minute of one user, or of one address that is not signed "
        "in.",
    )
    restore_days: int = Field(
        default=apps.RESTORE_DAYS,
        ge=0,
        le=3_650,
        description="Days in which a deleted conversation can be restored.",
    )
    retention_days: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="Days after its last activity before `manage.py purge` deletes a "
        "conversation. By default it is kept.",
    )
    model_prices: Annotated[dict[str, ModelPrice], NoDecode] = Field(
        default={},
        description='Prices of a million tokens by model, as JSON: `{"gpt-5.4-mini": {"input": '
        '"0.25", "cached_input": "0.025", "output": "2"}}`. The cost of other models '
        "is unknown.",
    )
    cost_currency: str = Field(
        default="USD", pattern=r"^[A-Z]{3}$", description="Currency of `MODEL_PRICES`."
    )
    role: Literal["all", "web", "worker"] = Field(
        default="all",
        description="Role of a process: `all` serves sockets and works on runs, `web` leaves runs "
        "to `manage.py work`. `serve` refuses `worker`.",
    )
    run_executor: Literal["inline", "procrastinate"] = Field(
        default="inline",
        description="How runs are started: `inline` by each process whose role includes runs, "
        "`procrastinate` by jobs in Postgres that `manage.py work` takes.",
    )
    django_superuser_username: str = Field(
        default="admin", description="User name of the first admin account."
    )
    django_superuser_password: SecretStr | None = Field(
        default=None,
        description="Password of the first admin account. Generated by default: printed once if "
        "DEBUG is set, else written to a file that `prepare` names.",
    )
    email_host: str | None = Field(
        default=None,
        description="SMTP server for password resets. By default mails are printed if DEBUG is "
        "set.",
    )
    email_port: int = Field(default=25, ge=1, le=65_535, description="Port of the SMTP server.")
    email_host_user: str = Field(default="", description="User name for the SMTP server.")
    email_host_password: SecretStr = Field(
        default=SecretStr(""), description="Password for the SMTP server."
    )
    email_use_tls: bool = Field(default=False, description="Uses STARTTLS with the SMTP server.")
    default_from_email: str = Field(
        default="webmaster@localhost", description="Sender address of the site's mails."
    )
    metrics_token: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Opens /metrics/ to requests with `Authorization: Bearer` and this token. "
        "Without one the address does not exist.",
    )
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65_535,
        description="A port at HOST on which `serve` and `work` show their metrics to everybody "
        "who reaches it; `--metrics-port` overrides it for one process.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO",
        description="Lowest level that is logged. Prompts and replies are never logged.",
    )
    webhooks: bool = Field(
        default=False,
        description="Tells the endpoints that staff enter in the admin of ended replies, requested "
        "approvals and ratings.",
    )
    webhook_private: bool = Field(
        default=False, description="Allows webhooks to private and local addresses."
    )
    push_key: SecretStr | None = Field(
        default=None,
        description="Switches on notifications in browsers that are closed, by Web Push: 32 random "
        "bytes in Base64, which `manage.py prepare --push-key` prints. Push services are told "
        "`DEFAULT_FROM_EMAIL`.",
    )
    otel_exporter_otlp_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="Collector that traces of replies are sent to, by OTLP over HTTP, such as "
        "http://127.0.0.1:4318; needs `requirements-tracing.txt`.",
    )
    trace_content: bool = Field(
        default=False,
        description="Sends what was said in traces too: instructions, messages, replies, and "
        "arguments and outputs of tools.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text",
        description="Whether an entry of the log is a line of text, or of JSON with the ids of "
        "the request, session and run that it is about.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, EnvSettingsSource(settings_cls, env_prefix=PREFIX), env_settings

    @field_validator("allowed_hosts", "csrf_trusted_origins", "allowed_origins", mode="before")
    @classmethod
    def split_words(cls, value: object) -> object:
        """Split a text at commas and white space; return anything else as it is."""
        return value.replace(",", " ").split() if isinstance(value, str) else value

    @field_validator("model_prices", mode="before")
    @classmethod
    def parse_json(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value, parse_float=str)
        except ValueError as exc:
            raise ValueError("must be JSON") from exc

    @field_validator("secret_key")
    @classmethod
    def refuse_short_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value and len(value.get_secret_value()) < 50:
            raise ValueError("must have at least 50 characters")
        return value

    @field_validator("push_key")
    @classmethod
    def refuse_other_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not _is_push_key(value.get_secret_value()):
            raise ValueError("must be what `manage.py prepare --push-key` prints")
        return value

    @field_validator("database_url")
    @classmethod
    def refuse_other_databases(cls, value: SecretStr | None) -> SecretStr | None:
        if value:
            database_from(value.get_secret_value())
        return value

    @field_validator("redis_url")
    @classmethod
    def refuse_other_layers(cls, value: SecretStr | None) -> SecretStr | None:
        schemes = ("redis://", "rediss://", "unix://")
        if value and not value.get_secret_value().startswith((*schemes, SENTINEL_SCHEME)):
            raise ValueError("must begin with redis://, rediss://, unix:// or redis+sentinel://")
        if value:
            redis_host(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def refuse_incomplete(self) -> "Environment":
        if faults := list(self._list_faults()):
            raise ValueError("\n".join(faults))
        return self

    def _list_faults(self) -> Iterator[str]:
        if not self.debug and self.secret_key is None:
            yield "SECRET_KEY: required unless DEBUG=1"
        if not self.debug and not self.allowed_hosts:
            yield "ALLOWED_HOSTS: required unless DEBUG=1, such as chat.example.org"
        if self.openai_base_url and not self.agent_model:
            yield "AGENT_MODEL: required with OPENAI_BASE_URL: name a model of that server"
        if self.agent_model and self.model_kind == "local":
            yield "AGENT_MODEL: requires OPENAI_API_KEY or OPENAI_BASE_URL"
        if self.run_executor == "procrastinate" and not self.is_on_postgres:
            yield "RUN_EXECUTOR: procrastinate requires a DATABASE_URL with postgres://"
        if self.local_model_path and self.model_kind in ("openai", "compatible"):
            yield "LOCAL_MODEL_PATH: cannot be combined with OPENAI_API_KEY or OPENAI_BASE_URL"

    @property
    def model_kind(self) -> Literal["openai", "compatible", "local", "tour"]:
        """The kind of model that answers.

        `tour` if AGENT_MODEL asks for it, else `compatible` with OPENAI_BASE_URL, else `openai`
        with OPENAI_API_KEY, else `local`.
        """
        if self.agent_model == "tour":
            return "tour"
        if self.openai_base_url:
            return "compatible"
        return "openai" if self.openai_api_key else "local"

    @property
    def is_on_postgres(self) -> bool:
        url = self.database_url.get_secret_value() if self.database_url else ""
        return url.startswith("postgres")

    @property
    def realtime(self) -> dict[str, Any]:
        """The settings of `realtime`, by the names of the fields of `RealtimeSettings`.

        For one that is not in the environment, the default of the kind of model in `BY_KIND` goes
        before that of the field.
        """
        defaults = BY_KIND.get(self.model_kind, {})
        given = self.model_dump(include=set(RealtimeSettings.model_fields))
        return given | {key: defaults[key] for key in defaults.keys() - self.model_fields_set}


def database_from(url: str) -> dict[str, Any]:
    """Return what dj-database-url makes of a database URL, an entry of `DATABASES`.

    Raises `ValueError` unless it is of Postgres, or of SQLite with a file. Connects to nothing.
    """
    try:
        parts = dict(dj_database_url.parse(url))
    except ValueError as exc:
        raise ValueError("must be a database URL") from exc
    if parts["ENGINE"] == "django.db.backends.sqlite3":
        if parts["NAME"] == ":memory:":
            raise ValueError("must name a file: each thread would get its own database in memory")
        return parts
    if parts["ENGINE"] == "django.db.backends.postgresql":
        return parts
    raise ValueError("must begin with postgres:// or sqlite:///")


P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Private keys of this curve are the numbers below it, but for 0."""


def _is_push_key(text: str) -> bool:
    if not re.fullmatch(r"[\w-]{43}", text, re.ASCII):
        return False
    return 0 < int.from_bytes(base64.urlsafe_b64decode(f"{text}=")) < P256_ORDER


def sqlite(name: str) -> dict[str, Any]:
    """Return the entry of `DATABASES` for the SQLite file `name`.

    Several threads can write, one at a time, waiting up to 20 s for their turn; commits survive a
    power failure.
    """
    pragmas = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON"
    return {
        "ENGINE": "conversations.sqlite",
        "NAME": name,
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": pragmas},
        # A test database in memory would be a separate one in each thread.
        "TEST": {"NAME": f"{name}.test"},
    }


def is_untimed_command() -> bool:
    """Return whether this process is a management command other than `serve` and `work`.

    Such commands, like `migrate`, may wait for locks and run statements without a time limit. The
    command line tells, so it is False for other programs that use Django, such as Daphne.
    """
    program = Path(sys.argv[0])
    is_django = program.parts[-2:] == ("django", "__main__.py")
    is_command = is_django or program.name in ("manage.py", "django-admin")
    return is_command and sys.argv[1:2] not in (["serve"], ["work"])


def postgres_limits(env: Environment) -> dict[str, Any]:
    """Return parameters for libpq that limit how long the network, a lock or a statement blocks.

    If `is_untimed_command`, they are only the limits of the network.
    """
    network_s = env.db_network_timeout_s
    limits = {
        "connect_timeout": env.db_connect_timeout_s,
        "tcp_user_timeout": network_s * 1000,
        "keepalives": 1,
        # After half of the time without data, send two probes.
        "keepalives_idle": network_s // 2,
        "keepalives_interval": network_s // 4,
        "keepalives_count": 2,
    }
    if is_untimed_command():
        return limits
    lock_ms, statement_ms = env.db_lock_timeout_s * 1000, env.db_statement_timeout_s * 1000
    options = f"-c lock_timeout={lock_ms:.0f} -c statement_timeout={statement_ms:.0f}"
    return limits | {"options": options}


def postgres(parts: dict[str, Any], env: Environment) -> dict[str, Any]:
    """Return the entry of `DATABASES` for Postgres with psycopg's pool; `parts` are the URL's.

    Options of the URL take precedence over the limits here, but not over the pool. A pool is used
    because connections that CONN_MAX_AGE keeps would leak under ASGI. Takes `host` and `port` out
    of the options in `parts`.
    """
    options = parts.get("OPTIONS", {})
    # The directory of a Unix socket cannot be a URL's host, so it is given as `?host=`.
    address = {key.upper(): options.pop(key) for key in ("host", "port") if key in options}
    # Half of the connections are for units of work, half for requests. By default the pool's pauses
    # between attempts to connect grow to minutes, and go on when the server is back.
    size = {"min_size": 1, "max_size": 2 * env.db_threads}
    pool = {**size, "timeout": 5, "reconnect_timeout": 2}
    limits = postgres_limits(env)
    merged = limits | options | {"pool": pool}
    # Postgres uses the last of repeated settings, so those of the URL come last.
    if server_options := [given["options"] for given in (limits, options) if "options" in given]:
        merged["options"] = " ".join(server_options)
    fixed = {"ENGINE": "conversations.postgres", "CONN_MAX_AGE": 0, "OPTIONS": merged}
    return parts | address | fixed


def database(env: Environment) -> dict[str, Any]:
    """Return `DATABASES["default"]`: that of DATABASE_URL, else SQLite in `var/`, which it creates.

    Of a URL of SQLite only the file's name counts.
    """
    if env.database_url is None:
        VAR_DIR.mkdir(exist_ok=True)
        return sqlite(str(VAR_DIR / "db.sqlite3"))
    parts = database_from(env.database_url.get_secret_value())
    if parts["ENGINE"].endswith("sqlite3"):
        return sqlite(parts["NAME"])
    return postgres(parts, env)


def redis_host(url: str) -> dict[str, Any]:
    """Return the Redis at `url` as a host of channels-redis.

    Sentinels, as in `redis+sentinel://user:password@one:26379,two:26379/0?service=name`, are asked
    for the current primary; user and password are those of the primary. Raises `ValueError` for a
    URL of Sentinels in another form; other URLs are not checked.
    """
    if not url.startswith(SENTINEL_SCHEME):
        return {"address": url}
    parts = urlsplit(url)
    credentials, _, places = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    sentinels = [urlsplit(f"//{place}") for place in places.split(",")]
    names = parse_qs(parts.query).get("service", [])
    if len(names) != 1 or not all(place.hostname for place in sentinels):
        raise ValueError("must be like redis+sentinel://one:26379,two:26379/0?service=name")
    return {
        "master_name": names[0],
        "sentinels": [(place.hostname, place.port or 26_379) for place in sentinels],
        "username": unquote(username) or None,
        "password": unquote(password) or None,
        "db": int(parts.path.strip("/") or 0),
    }


def channel_layer(url: SecretStr | None) -> dict[str, Any]:
    """Return the entry of `CHANNEL_LAYERS`: Redis at `url`; without it, in this process alone."""
    if url is None:
        return {"BACKEND": "realtime.channel_layer.LocalLayer"}
    host = redis_host(url.get_secret_value()) | {"socket_timeout": None, "max_connections": 5_000}
    return {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [host] * REDIS_CONNECTIONS},
    }


def cache(url: SecretStr | None) -> dict[str, Any]:
    """Return the entry of `CACHES` for the cache that counts requests and exports.

    It is Redis at `url`. Without `url` it is the memory of this process: each process then counts
    for itself.
    """
    if url is None:
        # The default of 300 entries would evict counts when many users are active.
        return {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "OPTIONS": {"MAX_ENTRIES": 20_000},
        }
    host = redis_host(url.get_secret_value())
    # A request must not wait long for a count.
    options = {"socket_timeout": 1, "socket_connect_timeout": 1}
    if sentinels := host.pop("sentinels", None):
        from redis.sentinel import Sentinel

        options |= host | {
            "pool_class": "redis.sentinel.SentinelConnectionPool",
            "service_name": host.pop("master_name"),
            "sentinel_manager": Sentinel(sentinels, **options),  # type: ignore[no-untyped-call]
        }
    return {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        # The pool of Sentinels asks them for the address.
        "LOCATION": host.get("address", "redis://"),
        "KEY_PREFIX": "agentsite",
        "OPTIONS": options,
    }


def checkout_key() -> str:
    """Return the secret key of this checkout, `var/secret_key`, creating it on first use.

    Of several processes that create it at once, all return the same.
    """
    VAR_DIR.mkdir(exist_ok=True)
    path = VAR_DIR / "secret_key"
    if not path.exists():
        # Write a temporary file and link it, so that no other process reads half a key.
        with tempfile.NamedTemporaryFile("w", dir=VAR_DIR) as draft, suppress(FileExistsError):
            draft.write(get_random_secret_key())
            draft.flush()
            os.link(draft.name, path)
    return path.read_text()


def read_environment() -> Environment:
    """Return the validated environment, or exit with one line per fault on standard error."""
    try:
        return Environment()
    except ValidationError as exc:
        sys.exit("\n".join(line for error in exc.errors() for line in fault_lines(error)))


def fault_lines(error: Any) -> list[str]:
    place = "".join(f"{part}: ".upper() for part in error["loc"][:1])
    told = error["msg"].removeprefix("Value error, ").split("\n")
    return [f"agentsite: {place}{line}" for line in told]


def reveal(secret: SecretStr | None) -> str | None:
    """Return a secret as plain text; None stays None."""
    return secret.get_secret_value() if secret else None


env = read_environment()

# What the site and its apps read

DEBUG = env.debug
SECRET_KEY = reveal(env.secret_key) or checkout_key()
ALLOWED_HOSTS = env.allowed_hosts
CSRF_TRUSTED_ORIGINS = env.csrf_trusted_origins
ALLOWED_ORIGINS = env.allowed_origins
# `agentsite.apps` decides which origins are allowed, as for sockets. Only the API is, and never
# with cookies.
CORS_URLS_REGEX = r"^/api/"
CORS_EXPOSE_HEADERS = ["Content-Disposition", "ETag", "Repr-Digest", "Retry-After"]
HOST = env.host
PORT = env.port
METRICS_TOKEN = reveal(env.metrics_token)
METRICS_PORT = env.metrics_port
WEBHOOKS = env.webhooks
WEBHOOK_PRIVATE = env.webhook_private
PUSH_KEY = reveal(env.push_key)
OTEL_EXPORTER_OTLP_ENDPOINT = env.otel_exporter_otlp_endpoint
TRACE_CONTENT = env.trace_content
ALLOW_GUESTS = env.debug if env.allow_guests is None else env.allow_guests
ALLOW_SIGN_UP = env.allow_sign_up
SITE_NAME = env.site_name
SITE_LOGO = env.site_logo
SITE_ACCENT = env.site_accent
REALTIME = env.realtime
DJANGO_SUPERUSER_USERNAME = env.django_superuser_username
DJANGO_SUPERUSER_PASSWORD = reveal(env.django_superuser_password)

AGENTS = "agentsite.agents"
MODEL_KIND = env.model_kind
LOCAL_MODEL_WEIGHTS = (
    weights.of_file(env.local_model_path) if env.local_model_path else weights.QWEN
)
LOCAL_MODEL_CACHE = env.local_model_cache or weights.user_cache()
LOCAL_MODEL_MIRROR = env.local_model_mirror
MODEL_SERVICE = "agentsite.local_model.supervisor.LocalModel" if MODEL_KIND == "local" else None
DEFAULT_MODELS = {"openai": "gpt-5.4-mini", "local": LOCAL_MODEL_WEIGHTS.name, "tour": "tour"}
AGENT_MODEL = env.agent_model or DEFAULT_MODELS[MODEL_KIND]
AGENT_API = env.agent_api or ("responses" if MODEL_KIND == "openai" else "chat")
OPENAI_API_KEY = reveal(env.openai_api_key)
MODEL_PRICES = {name: price.model_dump() for name, price in env.model_prices.items()}
COST_CURRENCY = env.cost_currency
OPENAI_BASE_URL = env.openai_base_url
ROLE = env.role
RUN_EXECUTOR = env.run_executor
API_REQUESTS_PER_MINUTE = env.api_requests_per_minute
RESTORE_DAYS = env.restore_days
RETENTION_DAYS = env.retention_days

# Django

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "servestatic",
    "django.contrib.staticfiles",
    "channels",
    "csp",
    "corsheaders",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "agentsite",
    "realtime",
    "conversations",
    # Its tables need Postgres.
    *(["procrastinate.contrib.django"] if RUN_EXECUTOR == "procrastinate" else []),
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    # Behind the sign-in: an account has a language of its own.
    "agentsite.web.accounts.OwnLocaleMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "agentsite.urls"
ASGI_APPLICATION = "agentsite.asgi.application"
DATABASES = {"default": database(env)}
CHANNEL_LAYERS = {"default": channel_layer(env.redis_url)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
LANGUAGES = [
    ("en", "English"),
    ("de", "Deutsch"),
    ("es", "Español"),
    ("fr", "Français"),
    ("ar", "العربية"),
    ("zh-hans", "简体中文"),
]
LOCALE_PATHS = [BASE_DIR / "locale"]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "agentsite.web.view_models.brand_context",
            ]
        },
    }
]

# Static files: straight from their sources in DEBUG, else bundled by `scripts/bundling.py`, and
# hashed and compressed by `prepare`

STATIC_URL = "/static/"
STATIC_ROOT = VAR_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATICFILES_FINDERS = [
    "agentsite.apps.BundleFinder",
    "django.contrib.staticfiles.finders.FileSystemFinder",
    "django.contrib.staticfiles.finders.AppDirectoriesFinder",
]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "agentsite.apps.HashedFiles"
    },
}
SERVESTATIC_USE_FINDERS = DEBUG
SERVESTATIC_AUTOREFRESH = DEBUG
SERVESTATIC_USE_MANIFEST = not DEBUG
SERVESTATIC_ALLOW_ALL_ORIGINS = False

# Sign-in

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "chat"
LOGOUT_REDIRECT_URL = "chat"
SESSION_ENGINE = "django.contrib.sessions.backends.db"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
EMAIL_BACKEND = (
    "django.core.mail.backends.console.EmailBackend"
    if DEBUG and env.email_host is None
    else "django.core.mail.backends.smtp.EmailBackend"
)
EMAIL_HOST = env.email_host or "localhost"
EMAIL_PORT = env.email_port
EMAIL_HOST_USER = env.email_host_user
EMAIL_HOST_PASSWORD = env.email_host_password.get_secret_value()
EMAIL_USE_TLS = env.email_use_tls
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env.default_from_email

# REST

HTTPS = not DEBUG if env.https is None else env.https
PROXIES = int(HTTPS) if env.proxies is None else env.proxies
CACHES = {"default": cache(env.redis_url)}
# The views set these themselves in conversations/api/base.py; these are for the OpenAPI document.
REST_FRAMEWORK = {
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_THROTTLE_CLASSES": ["conversations.api.requests.RequestThrottle"],
    "EXCEPTION_HANDLER": "conversations.api.base.exception_handler",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "agentsite",
    "OAS_VERSION": "3.1.1",
    "DESCRIPTION": "Conversations with agents. docs/protocol.md says how they stream.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        "RunStatusEnum": "conversations.models.RunStatus",
        "OutcomeEnum": "conversations.models.Outcome",
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "conversations.api.schema.describe_errors",
    ],
}
SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=15),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=7),
    "AUDIENCE": "agentsite",
    # A change of password revokes the user's tokens.
    "CHECK_REVOKE_TOKEN": True,
}

# Protection

SELF = "'self'"
NONE = "'none'"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "connect-src": [SELF],
        "object-src": [NONE],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        "form-action": [SELF],
    }
}
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"

SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
SECURE_SSL_REDIRECT = HTTPS
# Load balancers check health over plain HTTP, and Prometheus reads each process behind them.
SECURE_REDIRECT_EXEMPT = [r"^healthz/$", r"^readyz/$", r"^metrics/$"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_HSTS_SECONDS = 30 * 86_400 if HTTPS else 0
# HSTS for subdomains (W005) and preloading (W021) are decisions of the domain's owner.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

# Logs carry ids and sizes, never text

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "class": "agentsite.apps.LineFormatter",
            "format": "%(asctime)s %(levelname)s %(name)s: %(message)s",
        },
        "json": {"class": "agentsite.apps.JsonFormatter"},
    },
    "filters": {"routes": {"()": "agentsite.apps.RouteFilter"}},
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": "line" if env.log_format == "text" else "json",
            "filters": ["routes"],
        }
    },
    "root": {"handlers": ["console"], "level": env.log_level},
    "loggers": {
        "django": {"handlers": [], "level": env.log_level, "propagate": True},
        # These log text and headers at lower levels.
        "django.db.backends": {"level": "INFO"},
        "django.template": {"level": "INFO"},
        "openai": {"level": "WARNING"},
        "httpx2": {"level": "WARNING"},
        "httpcore2": {"level": "WARNING"},
        # It logs every job at lower levels.
        "procrastinate": {"level": "WARNING"},
        # Logs a traceback per second and connection while Redis is away, which our lines tell.
        "channels_redis": {"level": "CRITICAL"},
        # `serve` reports itself where it listens.
        "daphne": {"level": "WARNING"},
    },
}
