"""How a process ends on a signal: in steps that are each bounded in time."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable

from realtime.conf import get_conf
from realtime.process import Process

logger = logging.getLogger(__name__)

DRAIN_S = 10
"""For replies, where `drain_s` is not set: those of a process that serves."""

WORKER_DRAIN_S = 300
"""Those of a worker, whose end nobody waits for."""

GIVE_UP_S = 5
"""For handing over the replies that `drain_s` was too short for."""

STOP_S = 8
"""For ending the background services and the threads of the database."""

EXIT_S = 5
"""For the rest; what still hangs then, such as a request in the database, is cut off."""

REPEAT_S = 1
"""A second signal within this is the same one, passed on by a terminal and by a supervisor."""


def on_signal(loop: asyncio.AbstractEventLoop, begin: Callable[[], None]) -> None:
    """Have the first SIGTERM or SIGINT call `begin`; one that comes later ends the process."""
    signalled_at: float | None = None

    def handle() -> None:
        nonlocal signalled_at
        if signalled_at is None:
            signalled_at = loop.time()
            begin()
        elif loop.time() - signalled_at > REPEAT_S:
            _exit_now("a second signal has come")

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handle)


async def drain(process: Process) -> None:
    """Let replies end for `drain_s`; what is not released in time, leases and sweepers see to."""
    drain_s = get_conf().drain_s
    if drain_s is None:
        drain_s = WORKER_DRAIN_S if process.role == "worker" else DRAIN_S
    await _within(drain_s + GIVE_UP_S, process.drain(drain_s), "the drain")


async def stop(process: Process) -> None:
    """End the services of a process that has been drained."""
    await _within(STOP_S, process.stop(), "ending the services")


def exit_soon() -> None:
    """End the process in `EXIT_S`, unless it has ended by itself: Python waits for its threads."""
    timer = threading.Timer(EXIT_S, _exit_now, ["threads hang"])
    timer.daemon = True
    timer.start()


async def _within(seconds: float, step: Awaitable[None], name: str) -> None:
    try:
        async with asyncio.timeout(seconds):
            await step
    except TimeoutError:
        logger.error("stopping: %s took longer than %s s", name, seconds)


def _exit_now(reason: str) -> None:
    """With status 1, whatever is under way; leases and sweepers see to it."""
    logger.error("stopped at once: %s", reason)
    logging.shutdown()
    os._exit(1)
