"""The services of one process: how they start, accept chats, and stop."""

import asyncio
import gc
import logging
import os
import random
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Optional, TypeVar
from uuid import UUID

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

from conversations import webhooks
from conversations.changes import Event, RunCancelRequested, RunEnded, RunReady
from conversations.errors import AgentSiteError, ErrorCode
from conversations.sessions.posting import NewChat, Posted
from realtime import dbpool, protocol, registry
from realtime.channel_layer import (
    REJOIN_PAUSE_S,
    WORKER_GROUP,
    Envelope,
    Hub,
    Publisher,
    open_redis,
    send,
)
from realtime.conf import Role, get_conf, is_deferring, serving_role
from realtime.protocol import Status
from realtime.providers.readiness import ModelReadiness, ModelStatus, load_service
from realtime.sockets.limits import Handshakes, Places, UserFrames
from realtime.sockets.poller import Poller
from realtime.tasks import Supervisor
from realtime.telemetry import metrics, tracing
from realtime.work.executor import Executor, InlineExecutor, NoExecutor, Sweeper
from realtime.work.journal import Flusher

if TYPE_CHECKING:
    from realtime.sockets.viewer import Viewer


T = TypeVar("T")


class InFlight:
    """Tasks that run to their end even if their caller is cancelled.

    `Process.drain` waits for them: a run that they claim may have to be released.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    async def run(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Run `work` as a task and return its result, or raise what it raises.

        It goes on if the caller is cancelled; what it raises then is neither raised nor logged.
        """
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Retrieve the exception: if the caller was cancelled, nobody else does, and asyncio
            # would log it.
            task.exception()

    async def settled(self) -> None:
        """Wait for the tasks in flight now, not for tasks started meanwhile."""
        if self._tasks:
            await asyncio.wait(list(self._tasks))


BUSY_S = 5.0
"""After so many seconds, or up to twice as many, clients try again what had no room."""

JITTER = random.SystemRandom()


def refuse_busy(what: Literal["chat", "socket"]) -> AgentSiteError:
    """Count and return the refusal of what this process has no room for at the moment.

    Its `retry_after` is random, so that those who are refused together do not return together.
    """
    metrics.REFUSED.labels(what).inc()
    retry_after = round(JITTER.uniform(BUSY_S, 2 * BUSY_S), 1)
    return AgentSiteError(ErrorCode.UNAVAILABLE, retry_after=retry_after)


async def chat(process: "Process", viewer: "Viewer", new: NewChat) -> Posted:
    """Store a chat of the user of `viewer`, and let `viewer` answer `accepted` and follow its run.

    The chat is stored even if the caller is cancelled meanwhile. The executor gets the run through
    the commit (`dispatch`). Raises `AgentSiteError(unknown_agent)` for an agent that the site does
    not have, `AgentSiteError(unavailable)` with a `retry_after` if `starts_waiting` chats and runs
    wait in this process, and what `Viewer.chat` raises.
    """
    if len(process.chats) + process.executor.waiting >= get_conf().starts_waiting:
        raise refuse_busy("chat")
    if new.agent is not None and new.agent not in registry.agent_names():
        raise AgentSiteError(ErrorCode.UNKNOWN_AGENT)
    posting = viewer.chat(new, process.executor.offer_claim)
    return await process.chats.run(posting, "chat")


logger = logging.getLogger(__name__)


class Process:
    """The services of one role on one event loop, started together and stopped in order.

    Make it on that loop. `current` is the one that was started last in this process; None before
    any was started, and after `stop`.
    """

    current: ClassVar[Optional["Process"]] = None

    def __init__(self, role: Role) -> None:
        self.loop = asyncio.get_running_loop()
        self.role = role
        self.publisher = Publisher()
        self.hub = Hub(get_channel_layer())
        self.poller = Poller(self.hub)
        self.places = Places(open_redis() if role != "worker" else None)
        self.user_frames = UserFrames()
        self.handshakes = Handshakes()
        self.chats = InFlight()
        self.model = ModelReadiness(load_service() if role != "web" else None)
        self.is_draining = False
        self._services = Supervisor()
        self.executor: Executor = NoExecutor()
        if role != "web":
            tracing.start()
            self.flusher = Flusher(self.publisher)
            self.executor = executor = _make_executor(self.flusher, self.model)
            self.sweeper = Sweeper(executor)

    def start(self) -> None:
        """Start the services of the role, and become `Process.current`; call it once."""
        self._services.keep(self.publisher.run, "publisher")
        self._services.keep(metrics.measure_loop_lag, "loop monitor")
        if is_deferring():
            self._services.keep(self.executor.run, "executor")
        if self.role != "worker":
            self._services.keep(self.hub.run, "hub")
            self._services.keep(self.poller.run, "poller")
            self._services.keep(self.poller.beat, "heartbeat")
            self._services.keep(self.places.run, "socket counter")
        if self.role != "web":
            self._services.keep(self.flusher.run, "flusher")
            self._services.keep(self.flusher.keep_alive, "lease keeper")
            self._services.keep(self.sweeper.run, "sweeper")
            self._keep_webhooks()
            self._services.keep(partial(self.model.run, self._send_model_status), "model")
        if self.role == "worker":
            self._services.keep(self._receive_cancels, "cancel listener")
        Process.current = self

    def _keep_webhooks(self) -> None:
        if webhooks.are_on():
            # Import here: without webhooks no HTTP client is needed in this process.
            from realtime.work.background import WebhookSender

            self._services.keep(WebhookSender().run, "webhook sender")
        if webhooks.has_push():
            from realtime.work.background import PushSender

            self._services.keep(PushSender().run, "notification sender")

    @property
    def failed_services(self) -> list[str]:
        """The names of services that have died at least twice in the last minute, sorted.

        They are started again all the same; a name is left out once this is no longer so.
        """
        return self._services.failed

    def model_frame(self) -> Status | None:
        """Return a status frame with the state of this process's embedded model; None without one.

        Without one: no such model is set up, or the role is `web`.
        """
        if self.model.status is None:
            return None
        return protocol.status(protocol.ModelStatus(**vars(self.model.status)))

    def _send_model_status(self) -> None:
        if (frame := self.model_frame()) is not None:
            text = frame.encode()
            self.poller.each(lambda socket: socket.outbox.put(text))

    def handle(self, events: Iterable[Event]) -> None:
        """Pass runs that are ready, to be cancelled or ended to the executor; ignore other events.

        Runs that have ended are cancelled there: no work on them may go on. Call it on this
        process's event loop, after the commit.
        """
        for event in events:
            match event:
                case RunReady():
                    self.executor.enqueue(event.run_id, event.claimed)
                case RunCancelRequested() | RunEnded():
                    self.executor.cancel(event.run_id)

    async def _receive_cancels(self) -> None:
        """Cancel runs as soon as other processes ask for it; polling finds lost requests."""
        layer = get_channel_layer()
        while True:
            try:
                channel = await layer.new_channel("worker")
                await layer.group_add(WORKER_GROUP, channel)
                while True:
                    message = await layer.receive(channel)
                    self.executor.cancel(UUID(message["run_id"]))
            except Exception as exc:
                logger.warning(
                    "channel layer: receiving cancel requests failed: %s", type(exc).__name__
                )
                await asyncio.sleep(REJOIN_PAUSE_S)

    async def drain(self, seconds: float) -> None:
        """Let replies run for `seconds`, release the others, and publish all committed frames.

        Publishing may take `layer_timeout_s`; what is not sent then is not waited for. Waits for
        chats whose commit is in flight: such a chat may have claimed its run, and the executor,
        which begins no new work now, has to release that run too. Only the function `drain` bounds
        the whole time.
        """
        self.is_draining = True
        await self.executor.drain(seconds)
        await self.chats.settled()
        await self.executor.settled()
        await self.publisher.flush()

    async def stop(self) -> None:
        """Stop every service, then the executor, tracing and the database threads.

        Their connections are closed. Then this is no longer `Process.current`. Call `drain` first.
        The function `stop` bounds the time.
        """
        await self._services.stop()
        await self.executor.close()
        await tracing.stop()
        Process.current = None
        await asyncio.to_thread(dbpool.shutdown)


def _make_executor(flusher: Flusher, model: ModelReadiness) -> InlineExecutor:
    if not is_deferring():
        return InlineExecutor(flusher, model)
    # Import here: Procrastinate's Django app is installed with this executor only.
    from realtime.work.procrastinate_executor import ProcrastinateExecutor

    return ProcrastinateExecutor(flusher, model)


def get_process() -> Process:
    """Return the services of the running event loop; start them if it has none yet.

    Then their role is `serving_role()`. Raises `RuntimeError` without a running loop. `manage.py
    serve` calls this at its start; under another ASGI server the first connection does.
    """
    process = Process.current
    if process is None or process.loop is not asyncio.get_running_loop():
        process = Process(serving_role())
        process.start()
    return process


def dispatch(events: Iterable[Event]) -> None:
    """Pass the events of a commit to this process's executor, from any thread.

    It does not wait. Without services in this process (`Process.current`) it does nothing: a
    sweeper finds runs that are ready, and workers poll for cancel requests.
    """
    process = Process.current
    if process is not None and not process.loop.is_closed():
        process.loop.call_soon_threadsafe(process.handle, events)


def model_status() -> ModelStatus | None:
    """Return the status of this process's embedded model, from any thread; None if it has none.

    A process of the role `web` has none. In a process without services (`Process.current`), such
    as a command, it is the status that `MODEL_SERVICE` has before its start.
    """
    if Process.current is not None:
        return Process.current.model.status
    service = load_service()
    return service.status if service else None


def publish(envelopes: list[Envelope]) -> None:
    """Send envelopes to the channel layer, from any thread; a failure of it is only logged.

    If this process has services (`Process.current`), its publisher sends them later, in order
    within each group. Else this waits until they are sent, and drops the rest after a failure.
    """
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


def settle_heap() -> None:
    """Leave all objects that exist now out of later garbage collections.

    Call it once in a process that works until it is stopped, when everything is imported. What
    exists then stays anyhow; going through all of it would stop the event loop for 0.2 s each time.
    """
    gc.collect()
    gc.freeze()


DRAIN_S = 10
"""Seconds for replies to end in a process that serves, unless `drain_s` is set."""

WORKER_DRAIN_S = 300
"""The same for a worker process, where no client waits for the shutdown."""

GIVE_UP_S = 5
"""Seconds for releasing the runs that have not ended within `drain_s`."""

STOP_S = 8
"""Seconds for stopping the background services and the database threads."""

EXIT_S = 5
"""Seconds for the rest of the shutdown; then the process exits even if a thread still hangs, for
example in a database request.
"""

REPEAT_S = 1
"""A signal within so many seconds of the first repeats it, as from a terminal and a supervisor."""


def on_signal(loop: asyncio.AbstractEventLoop, begin: Callable[[], None]) -> None:
    """Call `begin` on `loop` at the first SIGTERM or SIGINT; call this in the main thread.

    A signal more than `REPEAT_S` seconds after the first ends the process at once, with status 1;
    an earlier one is ignored.
    """
    signalled_at: float | None = None

    def handle() -> None:
        nonlocal signalled_at
        if signalled_at is None:
            signalled_at = loop.time()
            begin()
        elif loop.time() - signalled_at > REPEAT_S:
            _exit_now("received a second signal")

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handle)


async def drain(process: Process) -> None:
    """Let replies end for `drain_s` seconds, then release the others.

    Without that setting it is `WORKER_DRAIN_S` for the role `worker`, else `DRAIN_S`. Takes at most
    `GIVE_UP_S` longer; then it returns, and logs an error. A sweeper recovers runs that were not
    released in time, after their leases have expired.
    """
    drain_s = get_conf().drain_s
    if drain_s is None:
        drain_s = WORKER_DRAIN_S if process.role == "worker" else DRAIN_S
    await _within(drain_s + GIVE_UP_S, process.drain(drain_s), "drain")


async def stop(process: Process) -> None:
    """Stop the services of a process, in at most `STOP_S` seconds; call `drain` first.

    When the time is over, it logs an error and returns.
    """
    await _within(STOP_S, process.stop(), "stop of services")


def exit_soon() -> None:
    """End the process, with status 1, if it still runs after `EXIT_S` seconds; does not wait.

    Python's own exit waits for threads, which may hang.
    """
    timer = threading.Timer(EXIT_S, _exit_now, ["threads did not end"])
    timer.daemon = True
    timer.start()


async def _within(seconds: float, step: Awaitable[None], name: str) -> None:
    try:
        async with asyncio.timeout(seconds):
            await step
    except TimeoutError:
        logger.error("shutdown: %s took longer than %s s", name, seconds)


def _exit_now(reason: str) -> None:
    """Exit with status 1 without waiting for anything; sweepers recover the process's runs."""
    logger.error("exiting at once: %s", reason)
    logging.shutdown()
    os._exit(1)
