"""Measures how many chats a second workers start, on Postgres and Valkey: by 1, 2 and 4 processes.

    python -m benchmarks.workers [--chats 300] [--cost-ms 50] [--workers 1 2 4]

All chats are posted while the workers are stopped (SIGSTOP), so that posting costs nothing in the
time that is measured: from the first reply's first text to the last one's. Linux only.
"""

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg

from benchmarks.measure import cpu_ms, machine, table
from tests.support.processes import Child
from tests.support.servers import Postgres, Valkey, run_postgres, run_valkey, scratch_dir
from tests.support.site import ROOT, environment, run_python
from tests.support.waiting import poll

USERS = 50
DEADLINE_S = 240


def main() -> None:
    options = read_options()
    if options.post:
        post(options.post)
        return
    print(machine(), end="\n\n")
    with run_postgres() as postgres, run_valkey() as valkey:
        rows = [measure(postgres, valkey, count, options) for count in options.workers]
    each = f"{options.cost_ms:g} ms"
    head = ["workers", f"chats/s at {each} each", "of one", "CPU ms a chat: workers", "Postgres"]
    first = rows[0][1]
    print(
        table(
            [*head, "Valkey"],
            [
                [f"{count}", f"{rate:.1f}", f"{rate / first:.2f}", *(f"{ms:.1f}" for ms in spent)]
                for count, rate, spent in rows
            ],
        )
    )


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chats", type=int, default=300)
    parser.add_argument("--cost-ms", type=float, default=50)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--post", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(
    postgres: Postgres, valkey: Valkey, count: int, options: argparse.Namespace
) -> tuple[int, float, list[float]]:
    """Return the number of workers, chats a second, and CPU ms a chat by kind of process."""
    with postgres.database() as url, scratch_dir("workers") as work_dir:
        env = environment(
            DATABASE_URL=url,
            REDIS_URL=valkey.url,
            RUN_EXECUTOR="procrastinate",
            DJANGO_SETTINGS_MODULE="benchmarks.worker_settings",
            BENCH_COST_MS=str(options.cost_ms),
        )
        run_python("manage.py", "migrate", env=env)
        with running(count, env, work_dir, url) as workers:
            for worker in workers:
                worker.signal(signal.SIGSTOP)
            run_python("-m", "benchmarks.workers", "--post", str(options.chats), env=env)
            pids = [[worker.pid for worker in workers], family(postgres.process.pid)]
            before = [*map(spent, pids), cpu_ms(valkey.process.pid)]
            for worker in workers:
                worker.signal(signal.SIGCONT)
            ended = "SELECT count(*) FROM conversations_run WHERE status = 'completed'"
            poll(lambda: ask(url, ended) == options.chats, "the replies", within=DEADLINE_S)
            after = [*map(spent, pids), cpu_ms(valkey.process.pid)]
        seconds = ask(
            url,
            "SELECT extract(epoch FROM max(first_token_at) - min(first_token_at))"
            " FROM conversations_run",
        )
    used = [(b - a) / options.chats for a, b in zip(before, after, strict=True)]
    return count, (options.chats - 1) / seconds, used


@contextlib.contextmanager
def running(count: int, env: dict[str, str], work_dir: Path, url: str) -> Iterator[list[Child]]:
    """Start workers, and wait until all take jobs; kill them at the end."""
    workers = [
        Child([sys.executable, "manage.py", "work"], work_dir / f"{n}.log", env=env, cwd=ROOT)
        for n in range(count)
    ]
    taking = "SELECT count(*) FROM procrastinate_workers"
    try:
        for started, worker in enumerate(workers, 1):
            worker.start(lambda started=started: ask(url, taking) == started)
        yield workers
    finally:
        for worker in workers:
            worker.kill()


def ask(url: str, query: str) -> float:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row
    return float(row[0])


def family(pid: int) -> list[int]:
    """Return the ids of a process and of its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def spent(pids: list[int]) -> float:
    """Return the CPU time of those that still run, in milliseconds."""
    return sum(cpu_ms(pid) for pid in pids if Path(f"/proc/{pid}").exists())


def post(count: int) -> None:
    """Post chats of many users, in a process of its own."""
    import django

    django.setup()
    from conversations.runs.usage import ChatLimits
    from conversations.sessions.posting import NewChat, post_chat
    from tests.support.chats import make_user

    users = [make_user(f"user-{number}") for number in range(USERS)]
    for number in range(count):
        chat, user = NewChat(content="hello"), users[number % USERS]
        post_chat(user=user, chat=chat, limits=ChatLimits(), viewed_for=None, claim=None)


if __name__ == "__main__":
    main()
