"""Opens many sockets that get one reply each; measures faults, times and memory of idle sockets.

    python -m benchmarks.connections [--clients 1000] [--valkey] [--postgres]

Linux only.
"""

import argparse
import contextlib
import resource
import time
from collections.abc import Iterator
from dataclasses import asdict

from benchmarks.driver import Driver, Scenario, Seen
from benchmarks.measure import cpu_ms, machine, median, percentile, rss_kib, table
from benchmarks.relay import WARM_UP, SocketSide, run_stand_in
from tests.support.servers import run_postgres, run_valkey, scratch_dir
from tests.support.site import Site, environment, run_site

SETTLE_S = 3.0


def raise_file_limit(needed: int) -> None:
    """Raise the limit of open files for this process and its children to the allowed maximum."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert hard >= needed, f"ulimit -Hn is {hard}, below {needed}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def run_everything(options: argparse.Namespace, **settings: str) -> Iterator[Site]:
    """Run a site with a stand-in model, and the Postgres and Valkey that `options` ask for."""
    with contextlib.ExitStack() as stack:
        work_dir = stack.enter_context(scratch_dir("connections"))
        settings |= {
            "OPENAI_BASE_URL": stack.enter_context(run_stand_in(work_dir)),
            "OPENAI_API_KEY": "none",
            "AGENT_MODEL": "stand-in",
            # All clients come from this machine's address.
            "SOCKETS_PER_ADDRESS": str(2 * options.clients),
        }
        if options.valkey:
            settings["REDIS_URL"] = stack.enter_context(run_valkey()).url
        postgres = stack.enter_context(run_postgres()) if options.postgres else None
        yield stack.enter_context(run_site(postgres, **settings))


def measure(site: Site, options: argparse.Namespace) -> None:
    users = site.make_users(*(f"user{number}" for number in range(options.clients)))
    bearers = [user.token for user in users]
    pid = site.process.pid
    SocketSide(pid, site.ws_url, bearers).measure(WARM_UP)
    scenario = Scenario(options.clients, rate=20, tokens=options.tokens, ramp_s=options.ramp)
    before = rss_kib(pid)
    connecting_at = time.perf_counter()
    driver = Driver(
        "benchmarks.load",
        environment(),
        scenario=asdict(scenario),
        url=site.ws_url,
        bearers=bearers,
    )
    with contextlib.closing(driver):
        driver.wait_ready()
        connected_s = time.perf_counter() - connecting_at
        time.sleep(SETTLE_S)
        idle, cpu = rss_kib(pid), cpu_ms(pid)
        seen = driver.run()
        report(scenario, seen, connected_s, cpu_ms(pid) - cpu)
        print(f"memory per idle connection: {(idle - before) / scenario.clients:.1f} KiB")
        print(f"memory of the process: {before / 1024:.0f} MiB without connections, ", end="")
        print(f"{idle / 1024:.0f} MiB with all, {rss_kib(pid) / 1024:.0f} MiB after the replies")


def report(scenario: Scenario, seen: Seen, connected_s: float, spent_ms: float) -> None:
    head = (
        "connections",
        "open after s",
        "replies",
        "faults",
        "first token p50 s",
        "p99 s",
        "CPU s",
    )
    figures = [
        str(scenario.clients),
        f"{connected_s:.1f}",
        str(len(seen.reply_s)),
        str(len(seen.faults)),
        f"{median(seen.ttft_ms) / 1000:.2f}",
        f"{percentile(seen.ttft_ms, 0.99) / 1000:.2f}",
        f"{spent_ms / 1000:.1f}",
    ]
    print(table(head, [figures]))
    for fault in sorted(set(seen.faults))[:10]:
        print(fault)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=20, help="of a reply, 20 a second")
    parser.add_argument("--ramp", type=float, default=0.0, help="seconds between first and last")
    parser.add_argument("--valkey", action="store_true", help="with Valkey as channel layer")
    parser.add_argument("--postgres", action="store_true", help="with Postgres as database")
    options = parser.parse_args()
    raise_file_limit(options.clients + 200)
    print(f"{machine()}\n", flush=True)
    with run_everything(options) as site:
        measure(site, options)


if __name__ == "__main__":
    main()
