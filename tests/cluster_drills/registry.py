"""The 15 drills: what is done, what must hold, and the function that does it."""

from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from tests.cluster_drills import faults, people
from tests.cluster_drills.stage import (
    Stage,
    lossy_stage,
    paced_stage,
    scripted_stage,
    wide_stage,
)


@dataclass(frozen=True)
class Drill:
    """`run` raises if `promise` is broken, and returns what was counted and measured."""

    number: int
    fault: str
    promise: str
    stage: Callable[[], AbstractContextManager[Stage]]
    run: Callable[[Stage], Coroutine[Any, Any, str]]


DRILLS = (
    Drill(
        1,
        "kill -9 of workers and web processes, under 100 streams",
        "each acknowledged chat ends once; no wrong text; no tool runs twice",
        wide_stage,
        faults.kill_processes,
    ),
    Drill(
        2,
        "a worker is stopped for 45 s and continued",
        "it commits nothing more",
        paced_stage,
        faults.stop_a_worker,
    ),
    Drill(
        3,
        "Valkey is killed, and back after 5 s, under 100 streams",
        "replies go on; all converge within 10 s; no process is restarted",
        paced_stage,
        faults.lose_valkey,
    ),
    Drill(
        4,
        "the channel layer loses, repeats and reorders a tenth each",
        "no wrong text; all converge",
        lossy_stage,
        people.lose_messages,
    ),
    Drill(
        5,
        "Postgres drops its connections, and is away for 5 s, under 100 streams",
        "no acknowledged chat is lost; all converge within 10 s; no process is restarted",
        paced_stage,
        faults.lose_postgres,
    ),
    Drill(
        6,
        "1,000 clients come back at once",
        "all recover within 30 s; connections stay within the pool",
        paced_stage,
        people.return_at_once,
    ),
    Drill(
        7,
        "20 MB are pushed past clients that do not read",
        "memory is bounded; they are cut off",
        scripted_stage,
        people.push_past_sleepers,
    ),
    Drill(
        8,
        "50 copies of a message at once, to two processes",
        "one message, one run",
        scripted_stage,
        people.send_copies,
    ),
    Drill(
        9,
        "two tabs: one sends, one cancels",
        "the same end in both",
        scripted_stage,
        people.share_two_tabs,
    ),
    Drill(
        10,
        "cancels at every moment of a reply",
        "cancelled within 2 s; the next turn works",
        scripted_stage,
        people.cancel_anywhere,
    ),
    Drill(
        11,
        "a worker's clock is 120 s ahead",
        "no lease ends early; none is lost",
        paced_stage,
        faults.run_a_fast_clock,
    ),
    Drill(
        12,
        "a rolling restart of all web processes and workers, under 300 streams",
        "no reply is cut; text stands still for under 1 s at p99",
        paced_stage,
        faults.restart_all,
    ),
    Drill(
        13,
        "a socket is idle for 30 s and 10 min",
        "it lives and is in its groups",
        paced_stage,
        people.idle,
    ),
    Drill(
        14,
        "the database is read-only in mid-reply",
        "chats are refused, not acknowledged; healthy afterwards",
        scripted_stage,
        people.make_read_only,
    ),
    Drill(
        15,
        "the model's server refuses, hangs, cuts, and sends 10,000 tiny deltas",
        "a typed error in bounded time; frames do not grow with deltas",
        scripted_stage,
        people.break_the_provider,
    ),
)
