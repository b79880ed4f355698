"""The background services of one event loop."""

import asyncio
import logging
from typing import ClassVar, Optional
from uuid import UUID

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

from realtime import dbpool
from realtime.executors import InlineExecutor
from realtime.flusher import Flusher
from realtime.gate import Gate
from realtime.groups import Envelope
from realtime.model_service import ModelStatus, load_service
from realtime.poller import Poller
from realtime.publisher import Publisher, send
from realtime.supervisor import Supervisor
from realtime.sweeper import Sweeper

logger = logging.getLogger(__name__)


class Process:
    """Publisher, flusher, executor, poller and sweeper, started together and stopped in order."""

    current: ClassVar[Optional["Process"]] = None

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.publisher = Publisher()
        self.flusher = Flusher(self.publisher)
        self.gate = Gate(load_service())
        self.executor = InlineExecutor(self.flusher, self.gate)
        self.poller = Poller()
        self.sweeper = Sweeper(self.executor, self.gate)
        self._services = Supervisor()

    def start(self) -> None:
        self._services.start(self.publisher.run(), "publisher")
        self._services.start(self.flusher.run(), "flusher")
        self._services.start(self.flusher.keep_alive(), "lease keeper")
        self._services.start(self.poller.run(), "poller")
        self._services.start(self.sweeper.run(), "sweeper")
        self._services.start(self.gate.run(self._tell_model), "model")
        Process.current = self

    def _tell_model(self) -> None:
        """The model is further: every socket is told, and what waits for it may go on."""
        if (frame := self.gate.frame()) is not None:
            text = frame.encode()
            self.poller.each(lambda socket: socket.outbox.put(text))
        if self.gate.is_open or self.gate.has_failed:
            self._services.start(self.sweeper.settle(), "what waits for the model")

    async def drain(self, seconds: float) -> None:
        """Let replies end for so long, give up the rest, and publish all that is committed."""
        await self.executor.drain(seconds)
        await self.publisher.flush()

    async def stop(self) -> None:
        """Stop every service; drain first."""
        await self._services.stop()
        await self.executor.close()
        Process.current = None
        await asyncio.to_thread(dbpool.shutdown)


def get_process() -> Process:
    """The services of the running loop, started when they are first asked for.

    `manage.py serve` asks at its start; under a plain ASGI server the first connection does.
    """
    process = Process.current
    if process is None or process.loop is not asyncio.get_running_loop():
        process = Process()
        process.start()
    return process


def start_run(run_id: UUID) -> None:
    """Begin a run from any thread; without a running loop a sweeper of another process will."""
    process = Process.current
    if process is not None and not process.loop.is_closed():
        process.loop.call_soon_threadsafe(process.executor.start, run_id)


def model_status() -> ModelStatus | None:
    """How far this process's own model is, from any thread; None where there is none."""
    if Process.current is not None:
        return Process.current.gate.status
    service = load_service()
    return service.status if service else None


def publish(envelopes: list[Envelope]) -> None:
    """Publish from any thread, in order where this process has a running loop."""
    process = Process.current
    if process is not None and not process.loop.is_closed():
        process.loop.call_soon_threadsafe(process.publisher.put, envelopes)
        return
    try:
        async_to_sync(_send_all)(envelopes)
    except Exception as exc:
        logger.warning("channel layer: send failed: %s", type(exc).__name__)


async def _send_all(envelopes: list[Envelope]) -> None:
    layer = get_channel_layer()
    for envelope in envelopes:
        await send(layer, envelope)
