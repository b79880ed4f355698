"""The services of one event loop, chats that they take, and how they stop."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Optional, TypeVar
from uuid import UUID

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

from conversations.changes import Event, RunCancelRequested, RunEnded, RunReady
from conversations.errors import AgentSiteError, ErrorCode
from conversations.sessions.posting import NewChat, Posted
from realtime import dbpool, protocol, registry
from realtime.channel_layer import WORKER_GROUP, Envelope, Publisher, send
from realtime.conf import Role, get_conf, is_deferring, serving_role
from realtime.protocol import Status
from realtime.providers.readiness import ModelReadiness, ModelStatus, load_service
from realtime.sockets.outbox import Places
from realtime.sockets.poller import Poller
from realtime.tasks import Supervisor
from realtime.work.executor import Executor, InlineExecutor, NoExecutor, Sweeper
from realtime.work.journal import Flusher

if TYPE_CHECKING:
    from realtime.sockets.viewer import Viewer


T = TypeVar("T")


class InFlight:
    """Work for people that runs to its end, also when whoever asked for it is gone.

    A drain waits for it: what it commits may have to be released.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """The result of `work`, which goes on when the caller is cancelled."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Whoever should have raised it may be gone; then nobody else looks at it.
            task.exception()

    async def settled(self) -> None:
        """Wait for what is in flight now, not for what begins meanwhile."""
        if self._tasks:
            await asyncio.wait(list(self._tasks))


async def chat(process: "Process", viewer: "Viewer", new: NewChat) -> Posted:
    """Store a chat, and have its reader follow it; raises `AgentSiteError`.

    The run that it makes reaches the executor by its commit alone, whatever becomes of the reader.
    """
    if new.agent is not None and new.agent not in registry.agent_names():
        raise AgentSiteError(ErrorCode.UNKNOWN_AGENT)
    posting = viewer.chat(new, process.executor.offer_claim)
    return await process.chats.run(posting, "chat")


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
    from realtime.work.procrastinate_executor import ProcrastinateExecutor

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
