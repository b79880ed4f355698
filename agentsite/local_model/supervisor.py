"""Runs the embedded model's process, restarts it after crashes, and reports its status."""

import asyncio
import json
import logging
import os
import secrets
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Any, TextIO

from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from agentsite.local_model.weights import Fault, Job, Weights
from agentsite.settings import PREFIX, Environment
from realtime.providers.readiness import Endpoint, ModelState, ModelStatus
from realtime.tasks import describe

MB = 1_000_000
FAULTS: dict[Fault, str | Promise] = {
    Fault.UNREACHABLE: gettext_lazy(
        "The model could not be fetched: neither its official source nor the mirror gave it. "
        "Is there a network?"
    ),
    Fault.MIRROR_OFF: gettext_lazy(
        "The model could not be fetched: its official source did not give it, and the mirror is "
        "switched off."
    ),
    Fault.WRONG_HASH: gettext_lazy(
        "What was fetched is not the model: its SHA-256 is wrong. It was thrown away."
    ),
    Fault.NO_ROOM: gettext_lazy(
        "The disk is too full for the model: {needed} MB are needed, {free} MB are free."
    ),
    Fault.NO_FOLDER: gettext_lazy("The cache folder for the model cannot be used: {reason}."),
    Fault.NO_MEMORY: gettext_lazy(
        "There is too little memory for the model: it needs {needed} MB, {available} MB are free."
    ),
    Fault.NO_AVX2: gettext_lazy(
        "This computer's processor cannot run the model: it has no AVX2 instructions."
    ),
    Fault.NO_RUNTIME: gettext_lazy("The program that runs the model cannot be loaded: {reason}."),
    Fault.NOT_A_MODEL: gettext_lazy("{file} is not a model that can be loaded."),
    Fault.CRASHES: gettext_lazy("The model's process keeps ending ({reason})."),
}


def describe_fault(fault: Fault, values: dict[str, Any]) -> str:
    """Return the text of a fault for people, in the present language, with `values` in it.

    Integers among them are taken as bytes and shown in MB.
    """
    shown = {
        name: round(value / MB) if isinstance(value, int) else value
        for name, value in values.items()
    }
    return str(FAULTS[fault]).format(**shown)


def starting(weights: Weights) -> ModelStatus:
    return _status(weights, "starting", _("starting the model"))


def fetching(weights: Weights, done: int) -> ModelStatus:
    """Return the status while the model is fetched, of which `done` bytes are there.

    More than the whole counts as the whole.
    """
    fraction = min(1.0, done / weights.size)
    detail = _("fetching the model, {percent} %").format(percent=int(100 * fraction))
    return _status(weights, "fetching", detail, round(fraction, 3))


def loading(weights: Weights) -> ModelStatus:
    return _status(weights, "loading", _("loading the model"))


def restarting(weights: Weights) -> ModelStatus:
    return _status(weights, "starting", _("the model has stopped and is started again"))


def ready(weights: Weights) -> ModelStatus:
    return _status(weights, "ready", _("the model is ready"))


def failed(weights: Weights, fault: Fault, values: dict[str, Any]) -> ModelStatus:
    return _status(weights, "failed", describe_fault(fault, values))


def _status(
    weights: Weights, state: ModelState, detail: str, fraction: float | None = None
) -> ModelStatus:
    return ModelStatus(weights.label, state, detail, fraction)


WIDTH = 30
STEP = 0.1
"""Without a terminal, progress is written once per tenth."""


class Terminal:
    """Shows the status on `out`, by default standard error: a bar on a terminal, else lines."""

    def __init__(self, weights: Weights, out: TextIO | None = None) -> None:
        self._label = f"{weights.label}, {weights.size / 1e9:.1f} GB"
        self._size = weights.size
        self._out = out or sys.stderr
        self._in_bar = False
        self._state = ""
        self._step = -1

    def tell(self, status: ModelStatus) -> None:
        """Show `status` if its state is not that of the last call.

        While the model is fetched, shows the progress: at each call on a terminal, else once per
        tenth.
        """
        if status.state == "fetching" and status.fraction is not None:
            self._fetching(status.fraction)
        elif status.state != self._state:
            self._line(status)
        self._state = status.state

    def _fetching(self, fraction: float) -> None:
        if self._state != "fetching":
            self._step = -1
            text = _("fetching {model}, this once; the chat is up meanwhile")
            self._say(text.format(model=self._label))
        done = f"{fraction * self._size / 1e6:,.0f} of {self._size / 1e6:,.0f} MB"
        if self._out.isatty():
            bar = ("#" * int(fraction * WIDTH)).ljust(WIDTH, ".")
            self._out.write(f"\ragentsite: [{bar}] {fraction:4.0%}  {done} ")
            self._out.flush()
            self._in_bar = True
        elif int(fraction / STEP) > self._step:
            self._step = int(fraction / STEP)
            self._say(f"{fraction:.0%}, {done}")

    def _line(self, status: ModelStatus) -> None:
        if status.state == "ready":
            text = _("{model} answers, on this computer; a small model makes mistakes")
            self._say(text.format(model=self._label))
        elif status.state == "failed":
            self._say(status.detail)
            self._say(
                _(
                    "other choices: OPENAI_API_KEY=..., OPENAI_BASE_URL=... with AGENT_MODEL=..., "
                    "or AGENT_MODEL=tour"
                )
            )
        else:
            self._say(status.detail)

    def _say(self, text: str) -> None:
        end = "\n" if self._in_bar else ""
        self._in_bar = False
        self._out.write(f"{end}agentsite: {text}\n")
        self._out.flush()


logger = logging.getLogger(__name__)

CHILD = "agentsite.local_model.child"
END_S = 3
"""Seconds for which a child may run on after its input was closed; then it is killed."""

LINES_KEPT = 15
OWN_GROUP = os.name == "posix"


class ModelProcess:
    """One process of the model, to be run once, by `messages`; then `ended` says how it ended.

    `module` is the Python module that it runs. `returncode` stays None unless the process ended by
    itself.
    """

    def __init__(self, module: str = CHILD) -> None:
        self._module = module
        self._last_lines: deque[str] = deque(maxlen=LINES_KEPT)
        self.returncode: int | None = None

    async def messages(self, job: Job) -> AsyncGenerator[dict[str, Any], None]:
        """Start the process with `job` and yield its reports until it ends.

        Closing the generator ends the process, which is killed after `END_S` seconds; so iterate
        within `aclosing`. Raises `OSError` if the process cannot be started, `ValueError` for a
        report that is not JSON or too long.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self._module),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            cwd=settings.BASE_DIR,
            env=_harmless_environment(),
            # Ctrl-C in the terminal must reach only the web process, which drains its replies.
            start_new_session=OWN_GROUP,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        listener = asyncio.create_task(
            self._listen(process), name="standard error of the local model"
        )
        try:
            process.stdin.write(job.encode())
            async for line in process.stdout:
                yield json.loads(line)
            self.returncode = await process.wait()
        finally:
            await _end(process)
            await listener

    async def _listen(self, process: Process) -> None:
        """Keep the last lines of standard error, to log them if the process fails to start."""
        assert process.stderr is not None
        while not process.stderr.at_eof():
            # `readline` raises ValueError for a line that is too long. Drop it and read on: a full
            # pipe would block the process.
            with suppress(ValueError):
                if line := await process.stderr.readline():
                    self._last_lines.append(line.decode(errors="replace").rstrip())

    @property
    def ended(self) -> str:
        """The exit status or the signal that ended the process, in words.

        "no exit status" if it has not ended by itself.
        """
        code = self.returncode
        if code is None:
            return "no exit status"
        if code >= 0:
            return f"exit status {code}"
        with suppress(ValueError):
            return signal.Signals(-code).name
        return f"signal {-code}"

    @property
    def last_lines(self) -> str:
        """The last `LINES_KEPT` lines of standard error, or "".

        From a model that was ready, they may contain users' text.
        """
        return "\n".join(self._last_lines)


async def _end(process: Process) -> None:
    """Close the input, on which the process ends itself and its children; kill it after `END_S`."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), END_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def _harmless_environment() -> dict[str, str]:
    """Return the environment without secrets, which neither the model nor pip needs."""
    fields = Environment.model_fields.items()
    secret = {name.upper() for name, field in fields if "SecretStr" in str(field.annotation)}
    return {
        name: value for name, value in os.environ.items() if name.removeprefix(PREFIX) not in secret
    }


PAUSES_S = (0.5, 1, 2, 4, 8)
"""Pauses before restarts after a crash; after the last one, the model has failed."""

STEADY_S = 60
"""After a child was ready for this long, a crash counts as the first one."""


class LocalModel:
    """The `settings.MODEL_SERVICE` of the embedded model: supervises the child that serves it.

    `status` tells how far it is, also before `run` is called; `endpoint` is None unless the child
    is ready.
    """

    child = CHILD

    def __init__(self) -> None:
        self._weights = settings.LOCAL_MODEL_WEIGHTS
        self.status: ModelStatus = starting(self._weights)
        self.endpoint: Endpoint | None = None
        self._woken = asyncio.Event()
        self._changed: Callable[[], None] = _nobody
        self._terminal = Terminal(self._weights)
        self._ready_at: float | None = None

    def wake(self) -> None:
        """If the model has failed, set it to `starting` and let `run` start the child again.

        Else does nothing.
        """
        if self.status.state == "failed":
            self._set(starting(self._weights))
            self._woken.set()

    async def run(self, changed: Callable[[], None]) -> None:
        """Supervise the child until cancelled, calling `changed` after each change of `status`.

        Restarts a child that ends, after the pauses `PAUSES_S`. Once the model has failed, because
        a restart would not help or the pauses are used up, waits for `wake`. When cancelled, ends
        the child.
        """
        self._changed = changed
        while True:
            await self._keep_up()
            await self._woken.wait()
            self._woken.clear()

    async def _keep_up(self) -> None:
        """Run and restart the child until the model has failed."""
        pauses = iter(PAUSES_S)
        while True:
            process = await self._run_child()
            if self.status.state == "failed":
                return
            if self._ready_at and time.monotonic() - self._ready_at > STEADY_S:
                pauses = iter(PAUSES_S)
            pause = next(pauses, None)
            if process.returncode == -signal.SIGILL:
                self._set(failed(self._weights, Fault.NO_AVX2, {}))
                return
            if pause is None:
                reason = {"reason": process.ended}
                self._set(failed(self._weights, Fault.CRASHES, reason))
                return
            self._set(restarting(self._weights))
            await asyncio.sleep(pause)

    async def _run_child(self) -> ModelProcess:
        """Run one child until it ends."""
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
                    self._handle_message(job, message)
        except (OSError, ValueError) as exc:
            # The process could not be started or its report not be parsed: treated as a crash.
            logger.error("local model: %s", describe(exc))
        finally:
            self.endpoint = None
        if self.status.state != "failed":
            # Log its output only if it was never ready: later lines may contain text of users.
            lines = "" if self._ready_at else f"\n{process.last_lines}"
            logger.error("local model: process ended with %s%s", process.ended, lines)
        return process

    def _handle_message(self, job: Job, message: dict[str, Any]) -> None:
        match message["state"]:
            case "fetching":
                self._set(fetching(self._weights, message["done"]))
            case "loading":
                self._set(loading(self._weights))
            case "ready":
                self._ready_at = time.monotonic()
                self.endpoint = Endpoint(message["url"], job.key)
                self._set(ready(self._weights))
            case "failed":
                fault = Fault(message["fault"])
                self._set(failed(self._weights, fault, message["values"]))
            case "note":
                logger.info("local model: %s", message["text"])

    def _set(self, status: ModelStatus) -> None:
        self.status = status
        self._terminal.tell(status)
        self._changed()


def _nobody() -> None:
    """Do nothing; stands for `changed` before `run` is called."""
