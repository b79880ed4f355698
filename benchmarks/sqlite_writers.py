"""Measures commits of streamed text on SQLite while synchronous views write.

    python -m benchmarks.sqlite_writers [--writers 0 4] [--ticks 200] [--engine ENGINE]

A tick is one transaction in the pool's writer thread that advances a run and adds an event, like a
commit of the flusher. A writer is a thread that does what a REST request does, repeatedly and
without a pause: it archives a session and restores it.
"""

import argparse
import asyncio
import os
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.measure import machine, percentile, table

PAUSE_S = 0.04
"""Pause between two ticks, as between two commits of the flusher."""

TARGET_MS = 25


def prepare(directory: Path, engine: str) -> None:
    """Set up Django on a new database of that engine."""
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "agentsite.settings",
        "DEBUG": "1",
        "AGENT_MODEL": "tour",
        "DATABASE_URL": f"sqlite:///{directory}/db.sqlite3",
    }
    import django
    from django.conf import settings

    settings.DATABASES["default"]["ENGINE"] = engine
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0, skip_checks=True)


def make_rows(writers: int) -> tuple[Any, Any, list[str]]:
    """Create a user, an active run, and a session for each writer."""
    from django.contrib.auth import get_user_model

    from conversations.runs.lifecycle import Claim
    from conversations.runs.usage import ChatLimits
    from conversations.sessions import lists, posting

    user, _ = get_user_model().objects.get_or_create(username="ann")
    posted = posting.post_chat(
        user=user,
        chat=posting.NewChat(content="hello"),
        limits=ChatLimits(),
        viewed_for=None,
        claim=Claim(worker="bench", lease=timedelta(hours=1), agent="echo", model="m"),
    )
    sessions = [lists.create_session(user=user, title="").pk for _ in range(writers)]
    return user, posted.claimed, [str(pk) for pk in sessions]


def write_on(user: Any, session_id: str, stop: threading.Event, counts: list[int]) -> None:
    """Send requests without a pause from a thread."""
    from django.db import connections

    from conversations.sessions import lists

    done = 0
    while not stop.is_set():
        done += 1
        lists.archive_session(user=user, session_id=session_id, archived=bool(done % 2))
    counts.append(done)
    connections.close_all()


async def measure_ticks(claimed: Any, ticks: int) -> list[float]:
    """Return how long the caller waited for each commit, in milliseconds."""
    from conversations.runs import events
    from conversations.runs.events import Batch
    from realtime import dbpool

    run, seq, took = claimed.run, claimed.last_seq, []
    for _ in range(ticks):
        batch = Batch(run.pk, run.claim, run.epoch, seq, [(seq + 1, "token", {"delta": "word "})])
        began = time.perf_counter()
        lease = timedelta(hours=1)
        committed = await dbpool.write_first(events.commit_batches, [batch], lease)
        took.append((time.perf_counter() - began) * 1000)
        assert committed.kept == {run.pk}
        seq = batch.next_seq
        await asyncio.sleep(PAUSE_S)
    return took


def measure(writers: int, ticks: int) -> list[str]:
    """Return one row of the table."""
    from realtime import dbpool

    user, claimed, sessions = make_rows(writers)
    stop = threading.Event()
    counts: list[int] = []
    threads = [
        threading.Thread(target=write_on, args=(user, session_id, stop, counts))
        for session_id in sessions
    ]
    for thread in threads:
        thread.start()
    began = time.perf_counter()
    took = asyncio.run(measure_ticks(claimed, ticks))
    seconds = time.perf_counter() - began
    stop.set()
    for thread in threads:
        thread.join()
    dbpool.shutdown()
    figures = [percentile(took, 0.5), percentile(took, 0.95), max(took)]
    return [str(writers), *(f"{value:.1f}" for value in figures), f"{sum(counts) / seconds:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writers", type=int, nargs="+", default=[0, 4])
    parser.add_argument("--ticks", type=int, default=200)
    parser.add_argument("--engine", default="conversations.sqlite")
    options = parser.parse_args()
    print(machine())
    print(f"{options.engine}; the aim is a p95 of less than {TARGET_MS} ms beside 4 writers")
    with tempfile.TemporaryDirectory(prefix="agentsite-writers-") as directory:
        prepare(Path(directory), options.engine)
        rows = [measure(writers, options.ticks) for writers in options.writers]
    head = ["writers", "tick p50 ms", "p95 ms", "max ms", "writes/s beside it"]
    print(table(head, rows))
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
