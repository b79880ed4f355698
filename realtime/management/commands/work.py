"""`manage.py work`: a process that works on runs and serves no clients."""

import asyncio
import logging
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.checks import Tags
from django.core.management.base import BaseCommand, CommandError

from realtime import process as process_module
from realtime import registry
from realtime.conf import is_layer_shared
from realtime.process import Process
from realtime.telemetry import metrics


class Command(BaseCommand):
    """Work on runs until SIGTERM or SIGINT, for processes with `ROLE=web`."""

    help = "Work on runs that other processes accept; requires Postgres and Redis."

    def add_arguments(self, parser: ArgumentParser) -> None:
        port = getattr(settings, "METRICS_PORT", None)
        parser.add_argument("--metrics-port", type=int, default=port)

    def handle(self, *args: Any, **options: Any) -> None:
        self.check(tags=[Tags.database], databases=["default"])
        if not is_layer_shared():
            raise CommandError(
                "A worker needs a channel layer that processes share: set REDIS_URL everywhere."
            )
        # Importing the Agents SDK takes more than a second; do it before the first reply.
        from realtime.work import run  # noqa: F401

        registry.agent_names()
        process_module.settle_heap()
        with metrics.served_on(options["metrics_port"]):
            asyncio.run(work())
        logging.shutdown()


async def work() -> None:
    """Run the services of a worker until SIGTERM or SIGINT, then drain and stop them.

    The process then has `EXIT_S` seconds to end by itself.
    """
    signalled = asyncio.Event()
    process_module.on_signal(asyncio.get_running_loop(), signalled.set)
    process = Process("worker")
    process.start()
    await signalled.wait()
    try:
        await process_module.drain(process)
        await process_module.stop(process)
    finally:
        process_module.exit_soon()
