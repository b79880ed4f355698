"""`manage.py work`: a process that works on runs and serves nobody."""

import asyncio
import logging
import signal
from typing import Any

from django.core.management.base import BaseCommand

from realtime import registry
from realtime.conf import get_conf
from realtime.process import Process


class Command(BaseCommand):
    """Works on runs until SIGTERM or SIGINT; processes with `ROLE=web` leave theirs to it."""

    help = "Work on replies that other processes accept; needs Postgres and Redis."

    def handle(self, *args: Any, **options: Any) -> None:
        # The Agents SDK takes more than a second to import: now, not in the first reply.
        from realtime import runs  # noqa: F401

        registry.agent_names()
        asyncio.run(work())
        logging.shutdown()


async def work() -> None:
    """Run the services of a worker until a signal comes, then drain them."""
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    process = Process("worker")
    process.start()
    await stopping.wait()
    await process.drain(get_conf().drain_s)
    await process.stop()
