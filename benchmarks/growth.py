"""Measures calls whose cost must not grow with the data, at one size and at 100 times that.

    python -m benchmarks.growth [--rounds 15]

CPU time of one call in this process, on SQLite on disk: medians after a warm-up call. Linux only.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from benchmarks.measure import machine, median, table
from tests.support.servers import scratch_dir
from tests.support.site import environment, run_python

if TYPE_CHECKING:
    from conversations.models import ChatSession

SIZES = (1, 100)
SLOTS_A_DAY = 145
TEXT = 60_000
TARGET = 1.5


@dataclass(frozen=True)
class Case:
    """A measured call: `prepare(size)` creates data and returns the call; `per` divides its CPU
    time.
    """

    name: str
    small: int
    unit: str
    prepare: Callable[[int], Callable[[], object]]
    per: Callable[[int], float] = lambda size: 1


def prepare_limits(size: int) -> Callable[[], object]:
    """Prepare the check of a chat's limits, for a user with `size` runs in a day."""
    from django.db import transaction

    from conversations.models import UserUsage
    from conversations.runs.usage import ChatLimits, check_user, find_slot

    session = make_session(size)
    present = find_slot(session.created_at)
    UserUsage.objects.bulk_create(
        UserUsage(user_id=session.owner_id, slot=present - n, tokens=1_000)
        for n in range(min(size, SLOTS_A_DAY))
    )

    def check() -> None:
        with transaction.atomic():
            limits = ChatLimits(runs=10, tokens_a_day=10**12)
            check_user(session.owner_id, limits, starts=True)

    return check


def prepare_totals(size: int) -> Callable[[], object]:
    """Prepare the totals of a session with `size` runs."""
    from conversations.queries import session_usage

    session = make_session(size)
    return lambda: session_usage(session)


def prepare_sign_ins(size: int) -> Callable[[], object]:
    """Prepare a round of sign-in checks for `size` sockets."""
    from django.contrib.auth.models import User

    from conversations.people.sign_ins import SignIn, list_ended_sign_ins

    users = User.objects.bulk_create(
        [User(username=f"{size}-{n}", password=f"!{n:040}") for n in range(size)], batch_size=500
    )
    sign_ins = [SignIn(user.pk, user.get_session_auth_hash(), None, None) for user in users]
    return lambda: list_ended_sign_ins(sign_ins)


def prepare_catch_up(size: int) -> Callable[[], object]:
    """Prepare the snapshot of an active run with `size` events; the length of its text is fixed."""
    from django.utils import timezone

    from conversations.models import RunEvent
    from realtime.sockets.frames import snapshot_frame
    from realtime.sockets.reader import read_missed

    run = make_session(1, status="running").runs.get()
    delta = "word " * (TEXT // size // 5)
    RunEvent.objects.bulk_create(
        [
            RunEvent(
                run=run,
                epoch=1,
                seq=seq,
                kind="token",
                payload={"delta": delta},
                created_at=timezone.now(),
            )
            for seq in range(1, size + 1)
        ],
        batch_size=500,
    )
    run.epoch, run.last_seq = 1, size
    run.save(update_fields=["epoch", "last_seq"])

    def catch_up() -> None:
        got = read_missed(run.pk, epoch=0, seq=0, limit=0).got
        assert got.parts is not None
        snapshot_frame(got.run, got.seq, got.parts).encode()

    return catch_up


def prepare_model_call(size: int) -> Callable[[], object]:
    """Prepare the start of a model call with `size` items in its context."""
    from agents.usage import Usage

    from realtime.work.metering import UsageMeter

    items = [{"role": "user", "content": "word " * 100}] * size
    return lambda: UsageMeter().begin_call(Usage(), "any", "Be kind.", items)


def prepare_publisher(size: int) -> Callable[[], object]:
    """Prepare publishing `size` envelopes in a hundred groups, to a layer that does nothing."""
    from realtime import channel_layer

    class Layer:
        async def group_send(self, group: str, message: dict[str, Any]) -> None:
            return

    envelopes = [(f"group{n % 100}", {"type": "x"}) for n in range(size)]

    async def publish() -> None:
        with patch.object(channel_layer, "get_channel_layer", Layer):
            made = channel_layer.Publisher()
        running = asyncio.create_task(made.run())
        made.put(envelopes)
        await made.flush()
        running.cancel()
        await asyncio.wait([running])

    return lambda: asyncio.run(publish())


CASES = (
    Case("limits of a chat", 200, "runs of a user in a day", prepare_limits),
    Case("totals of a session", 150, "runs", prepare_totals),
    Case(
        "sign-in checks, for 100 sockets",
        *(100, "sockets", prepare_sign_ins),
        per=lambda size: size / 100,
    ),
    Case("a second catch-up in mid-run", 60, "events", prepare_catch_up),
    Case("the beginning of a model call", 20, "items", prepare_model_call),
    Case(
        "publishing, for 100 envelopes",
        *(100, "envelopes", prepare_publisher),
        per=lambda size: size / 100,
    ),
)


def make_session(runs: int, *, status: str = "completed") -> "ChatSession":
    """Create a session with that many runs, of a new user."""
    from django.contrib.auth.models import User

    from conversations.models import ChatSession, Message, Run
    from conversations.runs.usage import add_to_session

    owner = User.objects.create(username=f"owner {User.objects.count()}")
    session = ChatSession.objects.create(owner=owner)
    messages = Message.objects.bulk_create(
        [Message(session=session, number=n, role="user", rev=1) for n in range(2 * runs)],
        batch_size=500,
    )
    rows: list[Run] = Run.objects.bulk_create(
        [
            Run(
                session=session,
                owner=owner,
                number=n,
                status=status,
                prompt=messages[2 * n],
                reply=messages[2 * n + 1],
                input_tokens=1_000,
                output_tokens=200,
                ended_at=None if status == "running" else session.created_at,
            )
            for n in range(runs)
        ],
        batch_size=500,
    )
    add_to_session(session.pk, [row for row in rows if row.ended_at])
    return session


def measure(act: Callable[[], object], rounds: int) -> float:
    """Return the CPU time of one call, in milliseconds."""
    act()
    times = []
    for _ in range(rounds):
        started = time.process_time()
        act()
        times.append((time.process_time() - started) * 1000)
    return median(times)


def measure_all(rounds: int) -> Iterator[list[str]]:
    """Return the lines of the table."""
    for case in CASES:
        sizes = [case.small * factor for factor in SIZES]
        costs = [measure(case.prepare(size), rounds) / case.per(size) for size in sizes]
        ratio = costs[1] / costs[0]
        yield [
            case.name,
            *(f"{size:,}" for size in sizes),
            case.unit,
            *(f"{cost:.3f}" for cost in costs),
            f"{ratio:.2f}",
        ]
        print(*case.name.split(), f"{ratio:.2f}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(machine(), end="\n\n")
    with scratch_dir("growth") as work_dir:
        env = environment(DATABASE_URL=f"sqlite:///{work_dir}/growth.sqlite3", LOCAL_MODEL="off")
        run_python("manage.py", "migrate", env=env)
        os.environ.update(env)
        os.environ["DJANGO_SETTINGS_MODULE"] = "agentsite.settings"
        import django

        django.setup()
        rows = list(measure_all(options.rounds))
    head = ["what", "small", "large", "of", "CPU ms small", "CPU ms large", "ratio"]
    print(table(head, rows))
    print(f"\nThe target is {TARGET}. Load {os.getloadavg()[0]:.1f} at the end.")


if __name__ == "__main__":
    main()
