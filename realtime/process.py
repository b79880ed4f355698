"""The background services of one event loop."""

import asyncio
import logging
from collections.abc import Iterable
from functools import partial
from typing import ClassVar, Optional
from uuid import UUID

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

from conversations.notify import Event, RunCancelRequested, RunEnded, RunReady
from realtime import dbpool, protocol
from realtime.commands import InFlight
from realtime.conf import Role, is_deferring, serving_role
from realtime.executors import Executor, InlineExecutor, NoExecutor
from realtime.flusher import Flusher
from realtime.groups import WORKER_GROUP, Envelope
from realtime.model_service import ModelReadiness, ModelStatus, load_service
from realtime.poller import Poller
from realtime.protocol import Status
from realtime.publisher import Publisher, send
from realtime.ratelimit import Places
from realtime.supervisor import Supervisor
from realtime.sweeper import Sweeper

logger = logging.getLogger(__name__)

REJOIN_PAUSE_S = 1.0


class Process:
    """The services of a role, started together and stopped in order."""

    current: ClassVar[Optional["Process"]] = None

    def __init__(self, role: Role) -> None:
        self.loop = asyncio.get_running_loop()
        self.role = role
        self.publisher = Publisher()
        self.poller = Poller()
        self.places = Places()
        self.chats = InFlight()
        self.model = ModelReadiness(load_service() if role != "web" else None)
        self.is_draining = False
        self._services = Supervisor()
        self.executor: Executor = NoExecutor()
        if role != "web":
            self.flusher = Flusher(self.publisher)
            self.executor = executor = _make_executor(self.flusher, self.model)
            self.sweeper = Sweeper(executor)

    def start(self) -> None:
        self._services.keep(self.publisher.run, "publisher")
        if is_deferring():
            self._services.keep(self.executor.run, "executor")
        if self.role != "worker":
            self._services.keep(self.poller.run, "poller")
        if self.role != "web":
            self._services.keep(self.flusher.run, "flusher")
            self._services.keep(self.flusher.keep_alive, "lease keeper")
            self._services.keep(self.sweeper.run, "sweeper")
            self._services.keep(partial(self.model.run, self._send_model_status), "model")
        if self.role == "worker":
            self._services.keep(self._hear_cancels, "cancel listener")
        Process.current = self

    @property
    def failed_services(self) -> list[str]:
        """The services that keep dying, by name; see `Supervisor.failed`."""
        return self._services.failed

    def model_frame(self) -> Status | None:
        """What sockets are told of this process's own model; None where it has none."""
        if self.model.status is None:
            return None
        return protocol.status(protocol.ModelStatus(**vars(self.model.status)))

    def _send_model_status(self) -> None:
        if (frame := self.model_frame()) is not None:
            text = frame.encode()
            self.poller.each(lambda socket: socket.outbox.put(text))

    def handle(self, events: Iterable[Event]) -> None:
        """Hand the executor the facts of a commit; call from this process's loop."""
        for event in events:
            match event:
                case RunReady():
                    self.executor.enqueue(event.run_id, event.claimed)
                case RunCancelRequested() | RunEnded():
                    self.executor.cancel(event.run_id)

    async def _hear_cancels(self) -> None:
        """Stop runs as soon as other processes ask for it; what is missed, the poll sees."""
        layer = get_channel_layer()
        while True:
            try:
                channel = await layer.new_channel("worker")
                await layer.group_add(WORKER_GROUP, channel)
                while True:
                    message = await layer.receive(channel)
                    self.executor.cancel(UUID(message["run_id"]))
            except Exception as exc:
                logger.warning("channel layer: cancels are not heard: %s", type(exc).__name__)
                await asyncio.sleep(REJOIN_PAUSE_S)

    async def drain(self, seconds: float) -> None:
        """Let replies end for so long, release the rest, and publish all that is committed.

        A chat whose commit is under way may have claimed its run: it is waited for, so that the
        executor, which begins nothing any more, releases that run too.
        """
        self.is_draining = True
        await self.executor.drain(seconds)
        await self.chats.settled()
        await self.executor.settled()
        await self.publisher.flush()

    async def stop(self) -> None:
        """Stop every service; drain first."""
        await self._services.stop()
        await self.executor.close()
        Process.current = None
        await asyncio.to_thread(dbpool.shutdown)


def _make_executor(flusher: Flusher, model: ModelReadiness) -> InlineExecutor:
    if not is_deferring():
        return InlineExecutor(flusher, model)
    # Procrastinate's Django app is installed with this executor alone.
    from realtime.procrastinate_executor import ProcrastinateExecutor

    return ProcrastinateExecutor(flusher, model)


def get_process() -> Process:
    """The services of the running loop, started when they are first asked for.

    `manage.py serve` asks at its start; under a plain ASGI server the first connection does.
    """
    process = Process.current
    if process is None or process.loop is not asyncio.get_running_loop():
        process = Process(serving_role())
        process.start()
    return process


def dispatch(events: Iterable[Event]) -> None:
    """Hand the facts of a commit to this process's executor, from any thread.

    Without a running loop a sweeper finds what is ready, and workers poll for cancels.
    """
    process = Process.current
    if process is not None and not process.loop.is_closed():
        process.loop.call_soon_threadsafe(process.handle, events)


def model_status() -> ModelStatus | None:
    """How far this process's own model is, from any thread; None where there is none."""
    if Process.current is not None:
        return Process.current.model.status
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
