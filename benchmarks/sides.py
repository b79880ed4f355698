"""The sides that are compared, each in a process of its own: the site, a plain relay, the SDK.

All read the same stand-in model. Only the CPU time of a side's own process is counted.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain

from benchmarks.clients import Client, Load, Reply, clients
from benchmarks.measure import cpu_ms, percentile
from tests.support.processes import Child, answers, free_port
from tests.support.servers import Postgres, scratch_dir
from tests.support.site import ROOT, environment, run_site

SETTLE_S = 1.0
"""Work after the last frame, such as a last commit, counts for the reply."""

WARM_UP = Load(clients=4, tokens=50, rate=200)

UNLIMITED = {
    "AGENT_MODEL": "stand-in",
    "FRAMES_PER_MINUTE": "100000",
    "RUNS_PER_USER": "100000",
    "SOCKETS_PER_ADDRESS": "100000",
    "SOCKETS_PER_USER": "100000",
    "STARTS_WAITING": "100000",
    "TOKENS_PER_DAY": "0",
}
"""Settings of a site whose clients all come from one address, and often belong to one user."""


@dataclass(frozen=True)
class Outcome:
    """What a load has cost a side, and its replies."""

    cpu_ms: float
    replies: list[Reply]

    @property
    def cpu_per_reply(self) -> float:
        return self.cpu_ms / len(self.replies)

    @property
    def took_s(self) -> float:
        """Seconds from the first request to the last end."""
        began = min(reply.asked_at for reply in self.replies)
        return max(reply.ended_at for reply in self.replies) - began

    def first_s(self, share: float) -> float:
        """Seconds until the first text that `share` of the replies do not exceed."""
        return percentile([reply.first_s for reply in self.replies], share)


@dataclass(frozen=True)
class Server:
    """A side that clients reach over sockets; they take the tokens in `bearers` in turns."""

    pid: int
    url: str
    bearers: list[str]

    def bearers_for(self, count: int) -> list[str]:
        return [self.bearers[index % len(self.bearers)] for index in range(count)]

    async def measure(self, load: Load) -> Outcome:
        """Open the clients' sockets, then measure from the first request on."""
        async with clients(self.url, self.bearers_for(load.clients)) as found:
            return await self.measure_open(load, found)

    async def measure_open(self, load: Load, found: list[Client]) -> Outcome:
        """Measure the load on sockets that are open already; each reply begins a conversation."""

        async def chat(index: int, client: Client) -> list[Reply]:
            await asyncio.sleep(load.ramp_s * index / load.clients)
            return [await client.chat(load.tokens, load.rate) for _ in range(load.rounds)]

        before = cpu_ms(self.pid)
        replies = await asyncio.gather(*(chat(*pair) for pair in enumerate(found)))
        await asyncio.sleep(SETTLE_S)
        return Outcome(cpu_ms(self.pid) - before, list(chain(*replies)))


@dataclass(frozen=True)
class Sdk:
    """The SDK reading streams; it generates its own load."""

    env: dict[str, str]
    api: str

    async def measure(self, load: Load) -> Outcome:
        pipe = asyncio.subprocess.PIPE
        argv = [sys.executable, "-m", "benchmarks.sdk_alone", self.api]
        child = await asyncio.create_subprocess_exec(
            *argv, cwd=ROOT, env=self.env, stdin=pipe, stdout=pipe, limit=2**26
        )
        assert child.stdin
        assert child.stdout
        child.stdin.write(json.dumps(asdict(load)).encode() + b"\n")
        assert await child.stdout.readline() == b"ready\n"
        child.stdin.write(b"go\n")
        spent, replies = json.loads(await child.stdout.readline())
        await child.wait()
        return Outcome(spent, [Reply(**reply) for reply in replies])


class Bench:
    """Starts sides for the lines of the table; all use one stand-in model at `base_url`."""

    def __init__(self, base_url: str) -> None:
        self._provider = {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "none"}

    def sdk(self, api: str = "chat") -> Sdk:
        return Sdk(environment(**self._provider), api)

    @contextlib.contextmanager
    def relay(self, api: str = "chat") -> Iterator[Server]:
        """Run the plain relay; uvicorn takes uvloop, if it is installed."""
        port, env = free_port(), environment(**self._provider)
        argv = [sys.executable, "-m", "benchmarks.baseline_fastapi", "--port", str(port)]
        with scratch_dir("relay") as work_dir:
            child = Child([*argv, "--api", api], work_dir / "relay.log", env=env, cwd=ROOT)
            try:
                child.start(lambda: answers(f"http://127.0.0.1:{port}/healthz/"), within=30)
                yield Server(child.pid, f"ws://127.0.0.1:{port}/ws/agent/", [""])
            finally:
                child.kill()

    @contextlib.contextmanager
    def site(
        self, users: int, postgres: Postgres | None = None, **settings: str
    ) -> Iterator[Server]:
        """Run a new site with that many users: `manage.py serve`, DEBUG off; by default on SQLite
        on disk.
        """
        with run_site(postgres, **self._provider, **UNLIMITED, **settings) as site:
            made = site.make_users(*(f"user{number}" for number in range(users)))
            yield Server(site.process.pid, site.ws_url, [user.token for user in made])


@contextlib.contextmanager
def run_stand_in() -> Iterator[str]:
    """Run the stand-in model as a process; yields its base URL."""
    port = free_port()
    argv = [sys.executable, "-m", "tests.support.provider", "--port", str(port)]
    with scratch_dir("provider") as work_dir:
        child = Child(argv, work_dir / "provider.log", cwd=ROOT)
        try:
            child.start(lambda: answers(f"http://127.0.0.1:{port}/v1/models"))
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            child.kill()
