"""The environment: what it makes of the settings, and how it refuses."""

import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.checks import run_checks
from django.db import connection
from tasks import DEPLOY_CHECK, PRODUCTION

from agentsite import settings as site_settings
from agentsite.local_model import child, supervisor
from agentsite.settings import LOCAL, Environment, database, postgres, read_environment
from realtime.conf import RealtimeSettings
from tests.support.databases import every_thread_on
from tests.support.processes import run_warm
from tests.support.servers import Postgres
from tests.support.site import ROOT, environment

KEY = "k" * 50
PUSH_KEY_FAULT = "must be what `manage.py prepare --push-key` prints"


@pytest.fixture
def set_environment(monkeypatch):
    """Leave nothing in the environment but these names."""

    def replace(**names: str) -> None:
        for name in Environment.model_fields:
            monkeypatch.delenv(name.upper(), raising=False)
        for name, value in names.items():
            monkeypatch.setenv(name, value)

    return replace


def test_debug_needs_nothing(set_environment):
    set_environment(DEBUG="1")
    env = read_environment()
    assert (env.host, env.port, env.model_kind) == ("127.0.0.1", 8000, "local")
    assert env.realtime == RealtimeSettings().model_dump() | LOCAL


def test_what_the_local_model_is_given_leaves_room_for_its_reply():
    assert int(str(LOCAL["context_tokens"])) + child.REPLY_MAX < child.CONTEXT


def test_a_real_model_is_asked_for_titles_and_any_where_that_is_wished(set_environment):
    set_environment(DEBUG="1", OPENAI_API_KEY="sk-test")
    assert read_environment().realtime["titles"] == "model"
    set_environment(DEBUG="1", TITLES="model")
    assert read_environment().realtime["titles"] == "model"


def test_lists_are_split_and_empty_means_unset(set_environment):
    set_environment(DEBUG="", SECRET_KEY=KEY, ALLOWED_HOSTS="a.example, b.example", PORT="")
    env = read_environment()
    assert not env.debug
    assert env.allowed_hosts == ["a.example", "b.example"]
    assert env.port == 8000


def test_prefixed_names_win(set_environment):
    """Other programs set some of these names for themselves."""
    set_environment(
        DEBUG="mine:*",
        AGENTSITE_DEBUG="1",
        HOST="x86_64-conda-linux-gnu",
        AGENTSITE_HOST="192.0.2.1",
        PORT="3000",
        AGENTSITE_PORT="",
        AGENTSITE_TITLES="model",
    )
    env = read_environment()
    assert (env.debug, env.host, env.port) == (True, "192.0.2.1", 3000)
    assert env.realtime["titles"] == "model"


@pytest.mark.parametrize("prefix", ["", "AGENTSITE_"])
def test_the_local_model_is_given_no_secrets(monkeypatch, prefix):
    monkeypatch.setenv(f"{prefix}SECRET_KEY", KEY)
    monkeypatch.setenv("LANG", "C")
    given = supervisor._harmless_environment()
    assert KEY not in given.values()
    assert given["LANG"] == "C"


def test_each_fault_has_a_line(set_environment):
    set_environment()
    with pytest.raises(SystemExit) as stopped:
        read_environment()
    lines = str(stopped.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["SECRET_KEY", "ALLOWED_HOSTS"]


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ({"ALLOWED_HOSTS": "a.example"}, "SECRET_KEY: required unless DEBUG=1"),
        ({"SECRET_KEY": KEY}, "ALLOWED_HOSTS: required unless DEBUG=1, such as chat.example.org"),
        ({"DEBUG": "1", "SECRET_KEY": "short"}, "SECRET_KEY: must have at least 50 characters"),
        *(
            ({"DEBUG": "1", "PUSH_KEY": key}, f"PUSH_KEY: {PUSH_KEY_FAULT}")
            for key in ("short", "A" * 43, "_" * 43)  # the last two are no numbers of the curve
        ),
        ({"DEBUG": "1", "PORT": "65536"}, "PORT: Input should be less than or equal to 65535"),
        ({"DEBUG": "1", "LEASE_S": "0"}, "LEASE_S: Input should be greater than 0"),
        ({"DEBUG": "1", "MODEL_PRICES": "{"}, "MODEL_PRICES: must be JSON"),
        ({"DEBUG": "1", "MODEL_PRICES": '{"m": {"input": 1}}'}, "MODEL_PRICES: Field required"),
        (
            {"DEBUG": "1", "COST_CURRENCY": "$"},
            "COST_CURRENCY: String should match pattern '^[A-Z]{3}$'",
        ),
        ({"DEBUG": "1", "DATABASE_URL": "x"}, "DATABASE_URL: must be a database URL"),
        (
            {"DEBUG": "1", "DATABASE_URL": "mysql://host/name"},
            "DATABASE_URL: must begin with postgres:// or sqlite:///",
        ),
        (
            {"DEBUG": "1", "DATABASE_URL": "sqlite://"},
            "DATABASE_URL: must name a file: each thread would get its own database in memory",
        ),
        (
            {"DEBUG": "1", "REDIS_URL": "localhost:6379"},
            "REDIS_URL: must begin with redis://, rediss://, unix:// or redis+sentinel://",
        ),
        (
            {"DEBUG": "1", "REDIS_URL": "redis+sentinel://one:26379/0"},
            "REDIS_URL: must be like redis+sentinel://one:26379,two:26379/0?service=name",
        ),
        (
            {"DEBUG": "1", "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"},
            "AGENT_MODEL: required with OPENAI_BASE_URL: name a model of that server",
        ),
        (
            {"DEBUG": "1", "AGENT_MODEL": "some-model"},
            "AGENT_MODEL: requires OPENAI_API_KEY or OPENAI_BASE_URL",
        ),
        (
            {"DEBUG": "1", "LOCAL_MODEL_PATH": "manage.py", "OPENAI_API_KEY": "sk"},
            "LOCAL_MODEL_PATH: cannot be combined with OPENAI_API_KEY or OPENAI_BASE_URL",
        ),
        (
            {"DEBUG": "1", "LOCAL_MODEL_PATH": "missing.gguf"},
            "LOCAL_MODEL_PATH: Path does not point to a file",
        ),
        (
            {"DEBUG": "1", "RUN_EXECUTOR": "procrastinate"},
            "RUN_EXECUTOR: procrastinate requires a DATABASE_URL with postgres://",
        ),
        (
            {"DEBUG": "1", "AGENT_API": "both"},
            "AGENT_API: Input should be 'chat' or 'responses'",
        ),
    ],
)
def test_a_fault_is_one_line(set_environment, names, line):
    set_environment(**names)
    with pytest.raises(SystemExit) as stop:
        read_environment()
    assert stop.value.code == f"agentsite: {line}"


def test_a_fault_ends_every_command_without_traceback_or_secret():
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        check=False,
        cwd=ROOT,
        env=environment(SECRET_KEY="swordfish", PORT="x"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert sorted(done.stderr.splitlines()) == [
        "agentsite: PORT: Input should be a valid integer, unable to parse string as an integer",
        "agentsite: SECRET_KEY: must have at least 50 characters",
    ]


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ({}, "local"),
        ({"AGENT_MODEL": "tour"}, "tour"),
        ({"AGENT_MODEL": "tour", "OPENAI_API_KEY": "sk"}, "tour"),
        ({"OPENAI_API_KEY": "sk"}, "openai"),
        ({"OPENAI_BASE_URL": "http://h/v1", "AGENT_MODEL": "m"}, "compatible"),
        (
            {"OPENAI_BASE_URL": "http://h/v1", "AGENT_MODEL": "m", "OPENAI_API_KEY": "k"},
            "compatible",
        ),
    ],
)
def test_what_answers(set_environment, names, kind):
    set_environment(DEBUG="1", **names)
    assert read_environment().model_kind == kind


def test_every_name_is_described():
    assert not [name for name, field in Environment.model_fields.items() if not field.description]


def test_secret_key_is_made_once_per_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(site_settings, "VAR_DIR", tmp_path)
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: site_settings.checkout_key(), range(64)))
    assert len(keys) == 1
    assert len(keys.pop()) >= 50
    path = tmp_path / "secret_key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.django_db
def test_sqlite_is_durable_and_checks_foreign_keys(tmp_path):
    """By the site's own settings; those of the tests do without the disk."""
    own = site_settings.sqlite(str(tmp_path / "db.sqlite3"))
    with every_thread_on(own), connection.cursor() as cursor:
        found = [
            cursor.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert found == ["wal", 2, 1]
    assert own["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert database(Environment(debug=True))["OPTIONS"] == own["OPTIONS"]


LIMITS = {
    "connect_timeout": 5,
    "tcp_user_timeout": 20_000,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}


def test_postgres_by_socket_directory():
    parts = site_settings.database_from("postgres://someone@/name?host=/run/pg&sslmode=disable")
    made = postgres(parts, Environment(debug=True, db_threads=3))
    assert (made["HOST"], made["NAME"], made["USER"]) == ("/run/pg", "name", "someone")
    assert made["CONN_MAX_AGE"] == 0
    assert made["OPTIONS"] == LIMITS | {
        "options": "-c lock_timeout=10000 -c statement_timeout=30000",
        "sslmode": "disable",
        "pool": {"min_size": 1, "max_size": 6, "timeout": 5, "reconnect_timeout": 2},
    }


def test_the_url_has_the_last_word_about_limits():
    address = "postgres://h/name?connect_timeout=60&options=-c%20lock_timeout%3D1s"
    options = postgres(site_settings.database_from(address), Environment(debug=True))["OPTIONS"]
    assert options["connect_timeout"] == 60
    assert options["options"].endswith(" -c statement_timeout=30000 -c lock_timeout=1s")


@pytest.mark.parametrize(
    ("argv", "limited"),
    [
        (["manage.py", "serve", "--port", "8001"], True),
        (["manage.py", "work"], True),
        (["/srv/.venv/bin/daphne", "agentsite.asgi:application"], True),
        (["/x/daphne/__main__.py", "agentsite.asgi:application"], True),
        (["manage.py", "migrate"], False),
        (["/srv/manage.py", "purge"], False),
        (["/srv/.venv/bin/django-admin", "migrate"], False),
        (["/x/django/__main__.py", "migrate"], False),
        (["manage.py"], False),
    ],
)
def test_commands_take_their_time(
    argv: list[str], limited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    limits = site_settings.postgres_limits(Environment(debug=True))
    assert ("options" in limits) is limited
    assert limits.items() >= LIMITS.items()


SHOWN = """
import sys
sys.argv = [{program!r}, {command!r}]
import django
django.setup()
from django.db import connection
with connection.cursor() as cursor:
    for name in ("lock_timeout", "statement_timeout"):
        cursor.execute(f"SHOW {{name}}")
        print(cursor.fetchone()[0])
"""


@pytest.mark.parametrize(
    ("command", "shown"), [("serve", ["1500ms", "2min"]), ("migrate", ["0", "0"])]
)
def test_postgres_is_told_the_limits(postgres: Postgres, command: str, shown: list[str]) -> None:
    with postgres.database() as url:
        env = environment(
            DATABASE_URL=url,
            DJANGO_SETTINGS_MODULE="agentsite.settings",
            DB_LOCK_TIMEOUT_S="1.5",
            DB_STATEMENT_TIMEOUT_S="120",
        )
        code = SHOWN.format(program="manage.py", command=command)
        assert run_warm("-c", code, env=env, cwd=ROOT).split() == shown


def test_postgres_is_prepared_through_the_pool(postgres: Postgres) -> None:
    with postgres.database() as url:
        env = environment(DATABASE_URL=url)
        assert "created" in run_warm("manage.py", "prepare", env=env, cwd=ROOT)
        assert "exists" in run_warm("manage.py", "prepare", env=env, cwd=ROOT)


def test_production_passes_djangos_own_deployment_checks():
    """With no more than the settings that the page for operators names."""
    page = (ROOT / "docs/operations.md").read_text()
    sections = page.split("## One process")[1].split("## Processes for replies alone")[0]
    named = dict(re.findall(r"\b([A-Z_]+)=([^\s\"{]+)", "".join(sections.split("```")[1::2])))
    asked = {**PRODUCTION, "SECRET_KEY": "$(openssl"}
    assert {name: named.get(name) for name in asked} == {**asked, "DEBUG": None}
    env = environment(HTTPS="", **PRODUCTION)
    assert "no issues" in run_warm("manage.py", *DEPLOY_CHECK, env=env, cwd=ROOT)


def test_every_host_allowed_fails_the_deployment_check(settings):
    settings.ALLOWED_HOSTS = ["*"]
    settings.DEBUG = False
    found = run_checks(tags=["security"], include_deployment_checks=True)
    assert "realtime.E005" in [message.id for message in found]


def test_settings_pass_the_ordinary_checks():
    assert run_checks() == []


def test_pages_carry_the_content_policy(client):
    policy = client.get("/healthz/nothing/")["Content-Security-Policy"].split("; ")
    assert {"script-src 'self'", "object-src 'none'", "base-uri 'none'"} <= set(policy)
    assert "unsafe" not in " ".join(policy)


def test_tokens_are_short_and_say_for_whom(django_user_model, db, client):
    user = django_user_model._default_manager.create_user("ann", password="correct horse")
    form = {"username": "ann", "password": "correct horse"}
    answer = client.post("/api/token/", form, content_type="application/json")
    assert answer.status_code == 200
    from rest_framework_simplejwt.tokens import AccessToken

    token = AccessToken(answer.json()["access"])
    assert token["aud"] == "agentsite"
    assert token["exp"] - token["iat"] <= 900
    assert token["user_id"] == str(user.pk)


def test_prices_are_exact(set_environment):
    prices = '{"m": {"input": 0.1, "output": "8"}}'
    set_environment(DEBUG="1", MODEL_PRICES=prices, COST_CURRENCY="EUR")
    price = read_environment().model_prices["m"]
    assert (str(price.input), price.cached_input, str(price.output)) == ("0.1", None, "8")
