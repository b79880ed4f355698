"""Measures CPU and time to first token of replies: this site, a plain relay, the SDK alone.

All three read the same stand-in provider; each runs in a process of its own, and so do the clients.
The sides alternate within each repetition. Linux only.

    python -m benchmarks.relay [--api responses] [--repeat 3] [--only site relay sdk]
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.driver import Driver, Scenario, Seen
from benchmarks.measure import cpu_ms, machine, median, percentile, table
from tests.support.processes import Child, answers, free_port
from tests.support.servers import scratch_dir
from tests.support.site import ROOT, environment, run_site

# Work after the last frame, such as a last commit, counts for the reply.
SETTLE_S = 1.0
WARM_UP = Scenario(clients=4, rate=200, tokens=50)


@dataclass(frozen=True)
class Result:
    """The result of one side in one scenario, once."""

    cpu_per_1000: float
    seen: Seen


class SocketSide:
    """A server that clients reach over sockets."""

    def __init__(self, pid: int, url: str, bearers: list[str]) -> None:
        self._pid = pid
        self._url = url
        self._bearers = bearers

    def measure(self, scenario: Scenario) -> Result:
        driver = Driver(
            "benchmarks.load",
            environment(),
            scenario=asdict(scenario),
            url=self._url,
            bearers=self._bearers,
        )
        return _measure(driver, self._pid, scenario)


class SdkSide:
    """The SDK reading streams; it generates its own load."""

    def __init__(self, env: dict[str, str], api: str) -> None:
        self._env = env
        self._api = api

    def measure(self, scenario: Scenario) -> Result:
        driver = Driver("benchmarks.sdk_alone", self._env, scenario=asdict(scenario), api=self._api)
        return _measure(driver, driver.pid, scenario)


Side = SocketSide | SdkSide


def _measure(driver: Driver, pid: int, scenario: Scenario) -> Result:
    with contextlib.closing(driver):
        driver.wait_ready()
        before = cpu_ms(pid)
        seen = driver.run()
        time.sleep(SETTLE_S)
        return Result((cpu_ms(pid) - before) / scenario.total_tokens * 1000, seen)


@contextlib.contextmanager
def run_stand_in(work_dir: Path) -> Iterator[str]:
    """Run the stand-in provider as a process; yields its base URL."""
    port = free_port()
    argv = [sys.executable, "-m", "tests.support.provider", "--port", str(port)]
    child = Child(argv, work_dir / "provider.log", cwd=ROOT)
    try:
        child.start(lambda: answers(f"http://127.0.0.1:{port}/v1/models"))
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        child.kill()


@contextlib.contextmanager
def run_relay(work_dir: Path, env: dict[str, str], api: str, loop: str) -> Iterator[SocketSide]:
    """Run the plain relay as a process."""
    port = free_port()
    argv = [sys.executable, "-m", "benchmarks.baseline_fastapi", "--port", str(port)]
    child = Child([*argv, "--api", api, "--loop", loop], work_dir / "relay.log", env=env, cwd=ROOT)
    try:
        child.start(lambda: answers(f"http://127.0.0.1:{port}/healthz/"), within=30)
        yield SocketSide(child.pid, f"ws://127.0.0.1:{port}/ws/agent/", [""])
    finally:
        child.kill()


@contextlib.contextmanager
def run_sides(options: argparse.Namespace) -> Iterator[dict[str, Side]]:
    """Run all requested sides; yields them when they are ready."""
    with contextlib.ExitStack() as stack:
        work_dir = stack.enter_context(scratch_dir("relay"))
        base_url = stack.enter_context(run_stand_in(work_dir))
        provider = {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "none"}
        env = environment(**provider)
        sides: dict[str, Side] = {}
        if "sdk" in options.only:
            sides["sdk"] = SdkSide(env, options.api)
        if "relay" in options.only:
            relay = run_relay(work_dir, env, options.api, options.loop)
            sides["relay"] = stack.enter_context(relay)
        if "site" in options.only:
            settings = {
                "AGENT_MODEL": "stand-in",
                "AGENT_API": options.api,
                "FRAMES_PER_MINUTE": "100000",
                "RUNS_PER_USER": "100000",
                "TOKENS_PER_DAY": "0",
            }
            site = stack.enter_context(run_site(**provider, **settings))
            users = site.make_users(*(f"user{number}" for number in range(options.clients)))
            bearers = [user.token for user in users]
            sides["site"] = SocketSide(site.process.pid, site.ws_url, bearers)
        yield sides


def scenarios(options: argparse.Namespace) -> dict[str, Scenario]:
    streams = {
        f"{options.clients} streams of {rate} tokens/s": Scenario(
            options.clients, rate, options.tokens
        )
        for rate in options.rates
    }
    alone = Scenario(clients=1, rate=50, tokens=20, rounds=options.rounds)
    return {**streams, "1 client, short replies": alone}


HEAD = (
    "scenario",
    "side",
    "CPU ms/1,000 tokens",
    "of relay",
    "first token p50 ms",
    "p99 ms",
    "after relay",
    "reply s",
    "frames",
    "faults",
)


def row(name: str, side: str, results: list[Result], relay: list[Result]) -> list[str]:
    """Return a line of the table: medians over the repetitions."""
    cpu, first = cpu_of(results), ttft_of(results, 0.5)
    return [
        name,
        side,
        f"{cpu:.0f}",
        f"{cpu / cpu_of(relay):.2f}" if relay else "",
        f"{first:.1f}",
        f"{ttft_of(results, 0.99):.1f}",
        f"{first - ttft_of(relay, 0.5):+.1f}" if relay else "",
        f"{median([median(result.seen.reply_s) for result in results]):.2f}",
        f"{median([frames_of(result.seen) for result in results]):.0f}",
        str(sum(len(result.seen.faults) for result in results)),
    ]


def cpu_of(results: list[Result]) -> float:
    return median([result.cpu_per_1000 for result in results])


def frames_of(seen: Seen) -> float:
    return seen.frames / max(len(seen.reply_s), 1)


def ttft_of(results: list[Result], share: float) -> float:
    return median([percentile(result.seen.ttft_ms, share) for result in results])


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--api", choices=["chat", "responses"], default="chat")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--clients", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=400, help="of a reply")
    parser.add_argument("--rates", type=int, nargs="*", default=[50, 150], help="tokens a second")
    parser.add_argument("--rounds", type=int, default=50, help="replies of the single client")
    parser.add_argument("--only", nargs="+", default=["site", "relay", "sdk"])
    parser.add_argument("--loop", default="auto", help="uvicorn's event loop, for the relay")
    return parser.parse_args()


def loop_of(options: argparse.Namespace) -> str:
    """Return which event loop uvicorn's `auto` selects: uvloop if it is installed."""
    if options.loop != "auto":
        return str(options.loop)
    return "uvloop" if find_spec("uvloop") else "asyncio"


def main() -> None:
    options = parse_options()
    print(
        f"{machine()}\n{options.api} API, median of {options.repeat}, relay on {loop_of(options)}"
    )
    sys.stdout.flush()
    plan = scenarios(options)
    results: dict[tuple[str, str], list[Result]] = {}
    with run_sides(options) as sides:
        for side in sides.values():
            side.measure(WARM_UP)
        for _ in range(options.repeat):
            for name, scenario in plan.items():
                for side_name, side in sides.items():
                    result = side.measure(scenario)
                    results.setdefault((name, side_name), []).append(result)
                    print(".", end="", file=sys.stderr, flush=True)
    rows = [
        row(name, side_name, results[name, side_name], results.get((name, "relay"), []))
        for name in plan
        for side_name in sides
    ]
    print("\n" + table(HEAD, rows))
    for (name, side_name), runs in results.items():
        for fault in {fault for result in runs for fault in result.seen.faults}:
            print(f"{side_name}, {name}: {fault}")


if __name__ == "__main__":
    main()
