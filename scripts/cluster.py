"""`make cluster`: the site as many processes, with all that they need, on this machine.

Starts Postgres and Valkey, web processes and workers of the site, and Caddy before them; starts
again what dies, and stops all in order.
"""

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psycopg
import servers
from members import Member, say
from servers import Command
from venvs import SetupError

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
DATABASE = "agentsite"
PREFIX = "AGENTSITE_"
"""Names with it win over those that the user may have set for another site."""

SITE_STOP_S = 25.0
"""What a process of the site needs at most to stop, beside `DRAIN_S`."""
PROXY_NOTICES_S = 3.0
"""Until the proxy sends requests to a process that is back; see `fail_duration` in its file."""

ROTATE_S = 60.0
"""Seconds between two looks at the sizes of the logs."""

REPEAT_S = 1.0
"""A signal within so many seconds of the first repeats it, as from a terminal and `make`."""

DEFAULTS = {"ALLOW_GUESTS": "1", "DRAIN_S": "30"}
MODEL_NAMES = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "AGENT_MODEL", "LOCAL_MODEL_PATH")


def setting(name: str) -> str:
    """Return a setting of the user's environment, "" if it is not set."""
    return os.environ.get(PREFIX + name) or os.environ.get(name) or ""


def read_drain_s() -> float:
    """Return the time that a worker may drain; `prepare` reports a wrong value."""
    with contextlib.suppress(ValueError):
        return float(setting("DRAIN_S"))
    return float(DEFAULTS["DRAIN_S"])


class Cluster:
    """All processes, in the order in which they start; they stop in the opposite order."""

    def __init__(self, folder: Path, port: int, webs: int, workers: int) -> None:
        self.folder = folder
        self.is_https = setting("HTTPS").lower() in ("1", "true", "yes", "on")
        self.port = port
        self._postgres_port, self._valkey_port, *ports = servers.free_ports(2 + 2 * webs + workers)
        self._web_ports, self._metrics_ports = ports[:webs], ports[webs:]
        self._env = self._make_environment()
        self._drain_s = read_drain_s()
        self.members: list[Member] = []
        self.metrics: dict[str, str] = {}
        self.postgres, self.valkey = self._make_postgres(), self._make_valkey()
        self.workers = [self._make_worker(number) for number in range(1, workers + 1)]
        self.webs = [
            self._make_web(number, port) for number, port in enumerate(self._web_ports, start=1)
        ]
        self.proxy = self._make_proxy()
        self._write_targets()

    @property
    def origin(self) -> str:
        return f"{'https' if self.is_https else 'http'}://{HOST}:{self.port}"

    @property
    def database_url(self) -> str:
        return self._url_of(DATABASE)

    async def start(self) -> None:
        """Start everything; raises `SetupError`."""
        say(f"starting Postgres and Valkey in {shown(self.folder)}/")
        await self._start(self.postgres, self.valkey)
        await asyncio.to_thread(self._make_database)
        await self._prepare()
        say(f"starting {len(self.webs)} web processes and {len(self.workers)} workers")
        await self._start(*self.workers, *self.webs)
        await self._start(self.proxy)

    async def _start(self, *members: Member) -> None:
        self.members += members
        try:
            async with asyncio.TaskGroup() as group:
                for member in members:
                    group.create_task(member.start())
        except ExceptionGroup as exc:
            raise exc.exceptions[0] from None

    async def rotate_logs(self) -> None:
        """Keep the logs from growing without a limit, until cancelled."""
        while True:
            await asyncio.sleep(ROTATE_S)
            for member in self.members:
                await asyncio.to_thread(member.rotate_log)

    async def restart_site(self) -> None:
        """Restart all processes of the site one by one, so that others serve meanwhile."""
        for web in self.webs:
            await web.restart()
            await asyncio.sleep(PROXY_NOTICES_S)
        for worker in self.workers:
            await worker.restart()
        say("the processes of the site were restarted one by one")

    async def stop(self) -> None:
        """Stop what was started, in order: the proxy, web processes, workers, servers."""
        for group in ([self.proxy], self.webs, self.workers, [self.valkey], [self.postgres]):
            await asyncio.gather(*(member.stop() for member in group if member in self.members))

    def kill(self) -> None:
        for member in self.members:
            member.kill()

    def _url_of(self, database: str) -> str:
        return f"postgres://postgres@{HOST}:{self._postgres_port}/{database}"

    def _make_environment(self) -> dict[str, str]:
        """Return the environment of the site's processes, and write what is special in it."""
        fixed = {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": f"redis://{HOST}:{self._valkey_port}/0",
            "RUN_EXECUTOR": "procrastinate",
            "SECRET_KEY": keep_secret(self.folder / "secret_key"),
            "ALLOWED_HOSTS": f"{HOST},localhost",
            "DEBUG": "0",
            "HOST": HOST,
            "HTTPS": str(int(self.is_https)),
            "PROXIES": "1",
        }
        usual = {name: value for name, value in DEFAULTS.items() if not setting(name)}
        if not any(map(setting, MODEL_NAMES)):
            usual["AGENT_MODEL"] = "tour"
        added = {PREFIX + name: value for name, value in fixed.items()} | usual
        with open(self.folder / "env", "w", opener=open_private) as file:
            file.writelines(f"export {name}='{value}'\n" for name, value in added.items())
        return os.environ | added

    def _make_postgres(self) -> Member:
        command = servers.postgres(self._postgres_port, self.folder, {"max_connections": 300})
        return Member(
            "postgres", command, self._postgres_answers, self.folder, stop_signal=signal.SIGINT
        )

    def _make_valkey(self) -> Member:
        command = servers.valkey(self._valkey_port, self.folder)
        return Member("valkey", command, lambda: servers.listens(self._valkey_port), self.folder)

    def _make_web(self, number: int, port: int) -> Member:
        env = {f"{PREFIX}ROLE": "web", f"{PREFIX}PORT": str(port)}
        return self._make_site_process(f"web-{number}", "serve", lambda: is_ready(port), env)

    def _make_worker(self, number: int) -> Member:
        name = f"worker-{number}"
        env = {f"{PREFIX}ROLE": "worker"}
        return self._make_site_process(name, "work", lambda: self._is_listening(name), env)

    def _make_site_process(
        self, name: str, command: str, is_ready: Callable[[], bool], env: dict[str, str]
    ) -> Member:
        port = self._metrics_ports[len(self.metrics)]
        self.metrics[name] = f"{HOST}:{port}"
        return Member(
            name,
            Command((sys.executable, "manage.py", command), ROOT),
            is_ready,
            self.folder,
            # The name of its connections, as Postgres shows it.
            env=self._env | env | {"PGAPPNAME": name, f"{PREFIX}METRICS_PORT": str(port)},
            stop_s=self._drain_s + SITE_STOP_S,
        )

    def _make_proxy(self) -> Member:
        env = {
            "SITE_ADDRESS": self.origin,
            "SITE_HOST": HOST,
            "SITE_TLS": "tls internal" if self.is_https else "",
            "SITE_BIND": HOST,
            "SITE_OPTIONS": "auto_https disable_redirects",
            "WEB_PROCESSES": " ".join(f"{HOST}:{port}" for port in self._web_ports),
            # Caddy keeps its certificates there.
            "XDG_DATA_HOME": str(self.folder),
            "XDG_CONFIG_HOME": str(self.folder),
        }
        command = servers.caddy(ROOT / "deploy" / "Caddyfile")
        return Member(
            "proxy", command, lambda: servers.listens(self.port), self.folder, env=os.environ | env
        )

    def _write_targets(self) -> None:
        """Write where each process shows its metrics, in the form of `file_sd_configs`."""
        targets = [
            {"targets": [address], "labels": {"process": name}}
            for name, address in self.metrics.items()
        ]
        (self.folder / "metrics.json").write_text(json.dumps(targets, indent=1))

    def _postgres_answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), self._connect():
            return True
        return False

    def _is_listening(self, name: str) -> bool:
        """Return whether the worker of this name waits for jobs."""
        query = "SELECT FROM pg_stat_activity WHERE application_name = %s AND query ~ '^LISTEN'"
        with contextlib.suppress(psycopg.OperationalError), self._connect() as connection:
            return connection.execute(query, [name]).fetchone() is not None
        return False

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(self._url_of("postgres"), autocommit=True, connect_timeout=5)

    def _make_database(self) -> None:
        with self._connect() as connection:
            query = "SELECT FROM pg_database WHERE datname = %s"
            if connection.execute(query, [DATABASE]).fetchone() is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")

    async def _prepare(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *Command((sys.executable, "manage.py", "prepare")).launch(), env=self._env, cwd=ROOT
        )
        if await process.wait():
            raise SetupError("manage.py prepare failed")


def keep_secret(path: Path) -> str:
    """Return the secret in this file, made at the first call."""
    if not path.exists():
        with open(path, "w", opener=open_private) as file:
            file.write(secrets.token_urlsafe(50))
    return path.read_text()


def open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def shown(path: Path) -> str:
    """Return a path as short as the reader of a terminal in the checkout needs it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def is_ready(port: int) -> bool:
    """Return whether the web process on this port may be sent requests."""
    connection = HTTPConnection(HOST, port, timeout=5)
    with contextlib.suppress(OSError, HTTPException), contextlib.closing(connection):
        connection.request("GET", "/readyz/")
        return connection.getresponse().status == 200
    return False


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; raises `SetupError` if another one does."""
    for part in (folder, folder / "logs", folder / "pids"):
        part.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise SetupError(f"another cluster runs already in {shown(folder)}/") from exc
        pid = folder / "pids" / "cluster"
        pid.write_text(f"{os.getpid()}\n")
        try:
            yield
        finally:
            pid.unlink()


async def run(cluster: Cluster) -> None:
    """Run the cluster until a signal asks it to stop; a second one kills what still runs."""
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    asked_at = loop.time()

    def on_stop() -> None:
        nonlocal asked_at
        if not stopping.is_set():
            stopping.set()
            asked_at = loop.time()
        elif loop.time() - asked_at > REPEAT_S:
            say("killing what still runs")
            cluster.kill()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_stop)
    # From the start on: not handled, it would end this process at once.
    restarts: asyncio.Queue[None] = asyncio.Queue()
    loop.add_signal_handler(signal.SIGUSR1, restarts.put_nowait, None)
    starting = asyncio.create_task(cluster.start())
    rotating = asyncio.create_task(cluster.rotate_logs())
    asked = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([starting, asked], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await serve(cluster, restarts, asked)
    finally:
        starting.cancel()
        rotating.cancel()
        say("stopping; another Ctrl-C kills what still runs")
        await cluster.stop()
        say("all processes have ended")


async def serve(
    cluster: Cluster, restarts: "asyncio.Queue[None]", asked: "asyncio.Task[bool]"
) -> None:
    """Tell where the site is; restart its processes at each of `restarts`, until asked to stop."""
    tell(cluster)
    while not asked.done():
        wanted = asyncio.create_task(restarts.get())
        await asyncio.wait([wanted, asked], return_when=asyncio.FIRST_COMPLETED)
        if not wanted.done():
            wanted.cancel()
            return
        restarting = asyncio.create_task(cluster.restart_site())
        await asyncio.wait([restarting, asked], return_when=asyncio.FIRST_COMPLETED)
        restarting.cancel()


def tell(cluster: Cluster) -> None:
    folder = shown(cluster.folder)
    say(f"chat  {cluster.origin}/")
    say(f"admin {cluster.origin}/admin/")
    say(f"API   {cluster.origin}/api/docs/")
    if cluster.is_https:
        say(f"certificate authority: {folder}/caddy/pki/authorities/local/root.crt")
    say(f"process ids in {folder}/pids/, output in {folder}/logs/")
    say(f"metrics of each process: {folder}/metrics.json, for Prometheus' file_sd_configs")
    say(f"kill -USR1 $(cat {folder}/pids/cluster) restarts the site's processes one by one")
    say("Ctrl-C stops everything")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make cluster", description=__doc__)
    parser.add_argument("--dir", type=Path, default=ROOT / "var" / "cluster", help="its folder")
    parser.add_argument("--web", type=int, default=2, help="number of web processes")
    parser.add_argument("--workers", type=int, default=2, help="number of workers")
    options = parser.parse_args()
    folder = options.dir.resolve()
    try:
        with only_one(folder):
            port = int(setting("PORT") or 8000)
            asyncio.run(run(Cluster(folder, port, options.web, options.workers)))
    except SetupError as exc:
        print(f"agentsite: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
