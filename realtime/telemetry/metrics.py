"""All metrics of a process, how changes are counted in them, and the port where they are read.

Labels have few values: agents and error codes of the site, and words of the code. Nothing is
counted for each token: streamed text counts at its commit, a reply at its end.
"""

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import prometheus_client
from django.conf import settings
from django.core.management.base import CommandError
from django.utils import timezone
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    make_wsgi_app,
)

from realtime import registry

if TYPE_CHECKING:
    from conversations.changes import Change, RunAdvanced
    from conversations.models import Run
    from conversations.runs.states import Backlog

logger = logging.getLogger(__name__)

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)


def _counter(name: str, help_text: str, *labels: str) -> Counter:
    return Counter(f"agentsite_{name}", help_text, labels, registry=REGISTRY)


def _gauge(name: str, help_text: str, *labels: str) -> Gauge:
    return Gauge(f"agentsite_{name}", help_text, labels, registry=REGISTRY)


def _histogram(name: str, help_text: str, buckets: tuple[float, ...]) -> Histogram:
    return Histogram(f"agentsite_{name}", help_text, buckets=buckets, registry=REGISTRY)


WAITS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
LAGS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
COUNTS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)

READERS = _gauge("readers", "Open readers: sockets, and requests that wait for a reply.", "kind")
RESUMES = _counter(
    "resumes", "Sessions resumed by a reader; recovered=false: it had to reload.", "recovered"
)
GAPS_REPAIRED = _counter(
    "gaps_repaired", "Gaps filled from the database, by what showed them.", "found_by"
)
FRAMES_DROPPED = _counter(
    "frames_dropped",
    "Messages not sent to the channel layer, and frames discarded for slow readers.",
    "reason",
)

RUNS = _gauge(
    "runs", "Unfinished runs of all processes, at the latest sweep of this one.", "status", "agent"
)
QUEUE_OLDEST = _gauge(
    "queue_oldest_seconds", "For how long the oldest run that is ready has waited for a worker."
)
QUEUE_WAIT = _histogram("queue_wait_seconds", "From ready to claimed by a worker.", WAITS)
FIRST_TOKEN = _histogram("first_token_seconds", "From the accepted chat to its first text.", WAITS)
CANCEL = _histogram("cancel_seconds", "From the request to cancel a run to its stop.", WAITS)
RUNS_ENDED = _counter("runs_ended", "Runs that have ended.", "status", "agent")
RUN_ERRORS = _counter("run_errors", "Runs that have failed, by error code.", "code")
LEASES_EXPIRED = _counter("leases_expired", "Runs whose worker has died or hung.")
TOKENS = _counter("tokens", "Tokens of ended runs.", "kind", "agent")
COST = _counter("cost", "Cost of ended runs, in COST_CURRENCY.", "agent")

MODEL_ERRORS = _counter(
    "model_errors", "Model calls that failed, repeated ones included, by error code.", "code"
)
MENDED = _counter("mended_streams", "Model streams corrected, by kind of correction.", "kind")

FLUSH = _histogram("flush_seconds", "Duration of commits of streamed events.", LAGS)
FLUSH_EVENTS = _histogram("flush_events", "Events in a commit of streamed events.", COUNTS)
BATCHES_IN_DOUBT = _counter("batches_in_doubt", "Batches whose commit failed or was not answered.")

REFUSED = _counter("refused", "Chats and sockets refused because too many waited.", "what")
PUSHES = _counter("pushes", "Attempts to send notifications, by their result.", "result")
WEBHOOKS = _counter("webhooks", "Attempts to deliver webhooks, by their result.", "result")
LAYER_FAILURES = _counter("layer_failures", "Calls of the channel layer that failed.")
SERVICE_RESTARTS = _counter("service_restarts", "Services that died and were restarted.", "service")
LOOP_LAG = _histogram("loop_lag_seconds", "Delay of a timer on the event loop.", LAGS)

OTHER_AGENT = "other"
MODEL_ERROR_PREFIX = "provider_"
LAG_INTERVAL_S = 1.0

TOKEN_KINDS = {
    "input": "input_tokens",
    "cached_input": "cached_input_tokens",
    "output": "output_tokens",
    "reasoning": "reasoning_tokens",
}


def on_change(change: "Change") -> None:
    """Count what a committed change says of runs that it has started or ended; raises nothing.

    A start gives the wait in the queue; an end the status, error, tokens, cost and times. A handler
    for `changes.register`. A run that goes on after an approval is no start.
    """
    # Import here: this module is imported for logging, before Django's models can be.
    from conversations.changes import RunAdvanced

    try:
        for event in change.events:
            if isinstance(event, RunAdvanced):
                _count_run(event)
    except Exception as exc:
        logger.error("counting a change failed: %s", type(exc).__name__)


def _count_run(event: "RunAdvanced") -> None:
    if event.run.is_ended:
        _count_end(event.run)
    elif event.events[0][1] == "run.started":
        QUEUE_WAIT.observe(_seconds(event.run.queued_at, timezone.now()))


def _count_end(run: "Run") -> None:
    agent = _label(run.agent)
    RUNS_ENDED.labels(str(run.status), agent).inc()
    if run.error_code:
        RUN_ERRORS.labels(run.error_code).inc()
        if run.error_code.startswith(MODEL_ERROR_PREFIX):
            MODEL_ERRORS.labels(run.error_code).inc()
    for kind, column in TOKEN_KINDS.items():
        TOKENS.labels(kind, agent).inc(getattr(run, column) or 0)
    COST.labels(agent).inc(float(run.cost or 0))
    if run.first_token_at is not None:
        FIRST_TOKEN.observe(_seconds(run.created_at, run.first_token_at))
    if run.cancel_requested_at is not None and run.stopped_at is not None:
        CANCEL.observe(_seconds(run.cancel_requested_at, run.stopped_at))


def _label(agent: str) -> str:
    """Return the name of one of the site's agents; `OTHER_AGENT` for any other."""
    return agent if agent in registry.agent_names() else OTHER_AGENT


def _seconds(begin: datetime, end: datetime) -> float:
    return max(0.0, (end - begin).total_seconds())


def observe_backlog(backlog: "Backlog") -> None:
    """Set the gauges of unfinished runs, in place of all earlier values."""
    RUNS.clear()
    for (status, agent), count in backlog.runs.items():
        RUNS.labels(status, _label(agent)).inc(count)
    QUEUE_OLDEST.set(backlog.oldest_s)


def observe_flush(seconds: float, events: int) -> None:
    """Count one commit of streamed events: how long it took, and how many events it had."""
    FLUSH.observe(seconds)
    FLUSH_EVENTS.observe(events)


async def measure_loop_lag() -> None:
    """Observe by how many seconds the event loop calls a timer late, once a second.

    Runs until cancelled.
    """
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_INTERVAL_S
        await asyncio.sleep(LAG_INTERVAL_S)
        LOOP_LAG.observe(max(0.0, loop.time() - due))


def render() -> tuple[bytes, str]:
    """Return this process's metrics in the text format of Prometheus, and its content type."""
    return prometheus_client.generate_latest(REGISTRY), prometheus_client.CONTENT_TYPE_LATEST


class _Server(WSGIServer):
    """One request at a time: a reader that hangs delays only other readers of metrics."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a reader of metrics has gone")


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 5
    """Seconds of silence after which a connection is closed."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing: there is a request every few seconds."""


@contextmanager
def served_on(port: int | None) -> Iterator[None]:
    """Show the metrics on a port of the address `settings.HOST` while the context is open.

    None: on none. A thread answers at every path, also while the event loop hangs. Raises
    `CommandError` if it cannot listen there, as on a port that is taken.
    """
    if port is None:
        yield
        return
    host = getattr(settings, "HOST", "127.0.0.1")
    kind = _Server6 if ":" in host else _Server
    try:
        server = make_server(host, port, make_wsgi_app(REGISTRY), kind, _Handler)
    except OSError as exc:
        raise CommandError(f"cannot show metrics on {host}:{port}: {exc.strerror}") from exc
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
