"""Runs the site in a process of its own with `manage.py serve`."""

import asyncio
import contextlib
import functools
import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from fasteners import InterProcessLock

from tests.support.client import ChatClient, open_chat
from tests.support.machine import scaled, shared_dir
from tests.support.processes import Child, answers, free_port, run_warm
from tests.support.servers import Postgres, scratch_dir
from tests.support.transcript import Transcript
from tests.support.waiting import TIMEOUT_S

ROOT = Path(__file__).resolve().parents[2]
LOG_SHOWN = 4_000
LOGIN_PATH = "/accounts/login/"

# Never inherited: settings of the developer's own site, such as a key that costs money.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
DEFAULTS = {
    "DJANGO_SETTINGS_MODULE": "tests.support.quick_settings",
    "DEBUG": "0",
    "HTTPS": "0",
    "SECRET_KEY": "for-tests-only-" * 4,
    "ALLOWED_HOSTS": "127.0.0.1",
    "HOST": "127.0.0.1",
    "ALLOW_GUESTS": "0",
    "DJANGO_SUPERUSER_PASSWORD": "for-tests-only",
    # Prevents accidental downloads of the model.
    "AGENT_MODEL": "tour",
    # Keeps titles and summaries from making model calls that the test does not expect.
    "TITLES": "words",
    "SUMMARIES": "off",
}


@dataclass(frozen=True)
class User:
    """An account; `token` is an access token that is valid for a day."""

    username: str
    password: str
    pk: int
    token: str


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies that the response sets."""
        jar = SimpleCookie("; ".join(self.headers.get_all("Set-Cookie", [])))
        return {name: morsel.value for name, morsel in jar.items()}


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a site's process; an empty value in `changes` removes a name."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    merged = inherited | DEFAULTS | changes
    return {name: value for name, value in merged.items() if value}


def run_python(*arguments: str, env: Mapping[str, str]) -> str:
    """Run Python and return its output; raises `AssertionError` with its errors."""
    done = subprocess.run(
        [sys.executable, *arguments],
        check=False,
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def make_users(env: Mapping[str, str], *usernames: str) -> dict[str, User]:
    """Create accounts in the database of `env`, or reset existing ones; returns them by name."""
    said = run_warm("-m", "tests.support.people", *usernames, env=env, cwd=ROOT)
    return {entry["username"]: User(**entry) for entry in json.loads(said.splitlines()[-1])}


def _prepare(env: Mapping[str, str]) -> dict[str, User]:
    """Create the tables, collect static files, and add two users."""
    run_warm("manage.py", "prepare", env=env, cwd=ROOT)
    return make_users(env, "ann", "ben")


@functools.cache
def _sqlite_template() -> tuple[Path, dict[str, User]]:
    """Return a prepared database file to copy, and its users; all test processes share it."""
    path, people = shared_dir() / "template.sqlite3", shared_dir() / "template.json"
    with InterProcessLock(shared_dir() / "template.lock"):
        if not people.exists():
            users = _prepare(environment(DATABASE_URL=f"sqlite:///{path}"))
            people.write_text(json.dumps([asdict(user) for user in users.values()]))
    entries = json.loads(people.read_text())
    return path, {entry["username"]: User(**entry) for entry in entries}


_postgres_templates: WeakKeyDictionary[Postgres, tuple[str, dict[str, User]]] = WeakKeyDictionary()


def _postgres_template(postgres: Postgres) -> tuple[str, dict[str, User]]:
    if postgres not in _postgres_templates:
        name = postgres.create_database()
        users = _prepare(environment(DATABASE_URL=postgres.url(name)))
        _postgres_templates[postgres] = name, users
    return _postgres_templates[postgres]


@contextlib.contextmanager
def prepared_database(postgres: Postgres) -> Iterator[str]:
    """Return the URL of a new database with all tables, and the users that it begins with."""
    with postgres.database(_postgres_template(postgres)[0]) as url:
        yield url


class Site:
    """One server process; `start` after `kill` or `terminate` takes the same port again."""

    def __init__(self, work_dir: Path, users: dict[str, User], env: Mapping[str, str]) -> None:
        self.port = int(env["PORT"])
        self.env = env
        self.users = dict(users)
        log_path = work_dir / f"site-{self.port}.log"
        self.process = Child(["manage.py", "serve"], log_path, env=env, cwd=ROOT, warm=True)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws/agent/"

    @property
    def log(self) -> str:
        """The output of all starts so far."""
        return self.process.log

    def start(self) -> None:
        """Start the server and wait until it answers; raises `AssertionError` with its log."""
        self.process.start(lambda: answers(f"{self.origin}/healthz/"))

    async def start_aside(self) -> None:
        """The same in a thread, so that the event loop goes on."""
        await asyncio.to_thread(self.start)

    def kill(self) -> None:
        """Kill the server as `kill -9` does."""
        self.process.kill()

    def terminate(self) -> int:
        """Stop the server as a deploy does; returns its exit status."""
        return self.process.terminate()

    def make_user(self, username: str) -> User:
        """Create an account; `ann` and `ben` exist already."""
        return self.make_users(username)[0]

    def make_users(self, *usernames: str) -> list[User]:
        """Create many accounts at once."""
        if missing := [name for name in usernames if name not in self.users]:
            self.users |= make_users(self.env, *missing)
        return [self.users[name] for name in usernames]

    def request(
        self,
        method: str,
        path: str,
        *,
        user: User | None = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one HTTP request, redirects not followed; `data` is sent as JSON, `bytes` as they
        are.
        """
        sent = dict(headers or {})
        if user:
            sent["Authorization"] = f"Bearer {user.token}"
        if data is not None and not isinstance(data, bytes):
            data, sent["Content-Type"] = json.dumps(data).encode(), "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=scaled(TIMEOUT_S))
        with contextlib.closing(connection):
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def get_json(self, path: str, user: User) -> Any:
        """Return the JSON that the REST API answers to `user`."""
        answer = self.request("GET", path, user=user)
        assert answer.status == 200, f"{path}: {answer.status} {answer.body!r}"
        return answer.json()

    def token(self, user: User) -> str:
        """Return a new access token, obtained with the password as other programs do."""
        data = {"username": user.username, "password": user.password}
        answer = self.request("POST", "/api/token/", data=data)
        assert answer.status == 200, answer
        return str(answer.json()["access"])

    def login(self, user: User) -> str:
        """Sign in by the form; returns the session cookie in the form of a `Cookie` header."""
        token = self.request("GET", LOGIN_PATH).cookies["csrftoken"]
        form = f"csrfmiddlewaretoken={token}&username={user.username}&password={user.password}"
        headers = {
            "Cookie": f"csrftoken={token}",
            "Origin": self.origin,
            "Content-Type": "application/x-www-form-urlencoded",
        }
        answer = self.request("POST", LOGIN_PATH, data=form.encode(), headers=headers)
        assert answer.status == 302, answer
        return f"sessionid={answer.cookies['sessionid']}"

    def chat(
        self, user: User, transcript: Transcript | None = None
    ) -> contextlib.AbstractAsyncContextManager[ChatClient]:
        """Open a socket of `user` with a bearer token."""
        return open_chat(self.ws_url, bearer=user.token, transcript=transcript)

    def chat_by_cookie(
        self, cookie: str, transcript: Transcript | None = None
    ) -> contextlib.AbstractAsyncContextManager[ChatClient]:
        """Open a socket as a page of this site does, with the session cookie."""
        return open_chat(self.ws_url, cookie=cookie, origin=self.origin, transcript=transcript)


@contextlib.contextmanager
def run_site(postgres: Postgres | None = None, /, **changes: str) -> Iterator[Site]:
    """Run a site; `changes` are names of its environment.

    Without a `DATABASE_URL` it has a database of its own: on `postgres` if given, else on SQLite.
    """
    with contextlib.ExitStack() as stack:
        work_dir = stack.enter_context(scratch_dir("site"))
        if postgres:
            users = _postgres_template(postgres)[1]
            if "DATABASE_URL" not in changes:
                changes["DATABASE_URL"] = stack.enter_context(prepared_database(postgres))
        else:
            template, users = _sqlite_template()
            if "DATABASE_URL" not in changes:
                changes["DATABASE_URL"] = f"sqlite:///{shutil.copy(template, work_dir)}"
        changes.setdefault("PORT", str(free_port()))
        site = Site(work_dir, users, environment(**changes))
        stack.callback(site.kill)
        site.start()
        try:
            yield site
        except BaseException:
            sys.stderr.write(f"--- the end of the site's log\n{site.log[-LOG_SHOWN:]}\n")
            raise
