"""Keeps the model's process up, for as long as the web process lives."""

import asyncio
import logging
import secrets
import signal
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from django.conf import settings

from agentsite.local_model import words
from agentsite.local_model.faults import Fault
from agentsite.local_model.job import Job
from agentsite.local_model.process import CHILD, ModelProcess
from agentsite.local_model.terminal import Terminal
from realtime.model_service import Endpoint, ModelStatus
from realtime.tracebacks import describe

logger = logging.getLogger(__name__)

PAUSES_S = (0.5, 1, 2, 4, 8)
"""Before each new start after a crash; when they are used up it has failed."""

STEADY_S = 60
"""A child that was ready for so long did not end for the reason that the last one did."""


class LocalModel:
    """`settings.MODEL_SERVICE`: a child that fetches the model and serves it."""

    child = CHILD

    def __init__(self) -> None:
        self._weights = settings.LOCAL_MODEL_WEIGHTS
        self.status: ModelStatus = words.starting(self._weights)
        self.endpoint: Endpoint | None = None
        self._woken = asyncio.Event()
        self._changed: Callable[[], None] = _nobody
        self._terminal = Terminal(self._weights)
        self._ready_at: float | None = None

    def wake(self) -> None:
        """Try again at once if it has failed."""
        if self.status.state == "failed":
            self._set(words.starting(self._weights))
            self._woken.set()

    async def run(self, changed: Callable[[], None]) -> None:
        """Start the child, again when it ends; where that is no use, wait to be woken."""
        self._changed = changed
        while True:
            await self._keep_up()
            await self._woken.wait()
            self._woken.clear()

    async def _keep_up(self) -> None:
        """Until it has failed."""
        pauses = iter(PAUSES_S)
        while True:
            process = await self._run_child()
            if self.status.state == "failed":
                return
            if self._ready_at and time.monotonic() - self._ready_at > STEADY_S:
                pauses = iter(PAUSES_S)
            pause = next(pauses, None)
            if process.returncode == -signal.SIGILL:
                self._set(words.failed(self._weights, Fault.NO_AVX2, {}))
                return
            if pause is None:
                reason = {"reason": process.ended}
                self._set(words.failed(self._weights, Fault.CRASHES, reason))
                return
            self._set(words.restarting(self._weights))
            await asyncio.sleep(pause)

    async def _run_child(self) -> ModelProcess:
        """One child to its end."""
        job = Job(
            weights=self._weights,
            folder=settings.LOCAL_MODEL_CACHE,
            mirror=settings.LOCAL_MODEL_MIRROR,
            key=secrets.token_urlsafe(32),
        )
        process, self._ready_at = ModelProcess(self.child), None
        try:
            async with aclosing(process.messages(job)) as messages:
                async for message in messages:
                    self._hear(job, message)
        except (OSError, ValueError) as exc:
            # No process to be had, or nothing to be understood: as good as a crash.
            logger.error("local model: %s", describe(exc))
        finally:
            self.endpoint = None
        if self.status.state != "failed":
            # Once it is ready its lines may repeat what people write.
            lines = "" if self._ready_at else f"\n{process.last_lines}"
            logger.error("local model: ended with %s%s", process.ended, lines)
        return process

    def _hear(self, job: Job, message: dict[str, Any]) -> None:
        match message["state"]:
            case "fetching":
                self._set(words.fetching(self._weights, message["done"]))
            case "loading":
                self._set(words.loading(self._weights))
            case "ready":
                self._ready_at = time.monotonic()
                self.endpoint = Endpoint(message["url"], job.key)
                self._set(words.ready(self._weights))
            case "failed":
                fault = Fault(message["fault"])
                self._set(words.failed(self._weights, fault, message["values"]))
            case "note":
                logger.info("local model: %s", message["text"])

    def _set(self, status: ModelStatus) -> None:
        self.status = status
        self._terminal.tell(status)
        self._changed()


def _nobody() -> None:
    """Before `run`."""
