"""The process that fetches and serves the embedded model.

Its supervisor starts it as `python -m agentsite.local_model.child`. It reads a job from standard
input, and exits when that closes, so that it never outlives its parent. It reports its state on
standard output, one JSON object per line: `{"state", ...}`.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from agentsite.local_model import weights
from agentsite.local_model.download import fetch
from agentsite.local_model.weights import Fault, Job, LocalModelError, decode

TEMPLATE = Path(__file__).with_name("template.jinja")
SLOTS = 2
"""Concurrent replies; further requests wait."""

CONTEXT = 4_096
"""The tokens of prompt and reply together."""

REPLY_MAX = 1_024
CACHE_MIB = 256


def serve(job: Job, path: Path) -> tuple[Any, str]:
    """Start a server of the model in the file `path`; return it with its base URL.

    The model is loaded when this returns. The server runs only as long as the caller keeps the
    returned object; it listens on a free port of 127.0.0.1 and asks for `job.key`. Raises
    `LocalModelError` if memory is short or the file is no model.
    """
    weights.check_memory(job.weights.memory)
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {job.weights.name}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [job.key]
    # Neither the server's own page nor pages of other origins may use it.
    params.ui = False
    params.cors_origins = ""
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT
    params.n_predict = REPLY_MAX
    params.cache_ram_mib = CACHE_MIB
    params.cpuparams.n_threads = weights.spare_cores()
    # Repacked weights would answer a fifth faster, but take twice as long to load and half as much
    # memory again.
    params.no_extra_bufts = True
    params.use_jinja = True
    if job.weights.sha256:
        params.chat_template = TEMPLATE.read_text()
    try:
        server = xllamacpp.Server(params)
    except (RuntimeError, ValueError) as exc:
        raise LocalModelError(Fault.NOT_A_MODEL, file=path.name) from exc
    return server, f"{server.listening_address}/v1"


REPORT_S = 0.25


class Teller:
    """Reports to the parent on standard output; create one per process.

    From then on, what anything else writes to standard output goes to standard error.
    """

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self._told_at = 0.0

    def tell(self, state: str, **fields: Any) -> None:
        """Write one report, `state` and `fields`, as a line of JSON, at once."""
        self._out.write(json.dumps({"state": state, **fields}) + "\n")

    def progress(self, done: int) -> None:
        """Report `done`, the bytes fetched, unless the last such report is under `REPORT_S` old.

        What is left out is not reported later.
        """
        now = time.monotonic()
        if now - self._told_at >= REPORT_S:
            self._told_at = now
            self.tell("fetching", done=done)


class Notes(logging.Handler):
    """Forwards log records to the parent, which writes the log."""

    def __init__(self, teller: Teller) -> None:
        super().__init__()
        self._teller = teller

    def emit(self, record: logging.LogRecord) -> None:
        self._teller.tell("note", text=record.getMessage())


def main() -> None:
    teller = Teller()
    logging.basicConfig(handlers=[Notes(teller)], level=logging.INFO)
    job = decode(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        server, url = _bring_up(job, teller)
    except LocalModelError as exc:
        teller.tell("failed", fault=exc.fault, values=exc.values)
        return
    teller.tell("ready", url=url)
    threading.Event().wait()
    del server


def _bring_up(job: Job, teller: Teller) -> tuple[Any, str]:
    """Fetch the weights and serve them, after checks that need no download."""
    weights.check_processor()
    weights.check_runtime()
    path = fetch(job.weights, job.folder, mirror=job.mirror, report=teller.progress)
    teller.tell("loading")
    return serve(job, path)


def _end_with_parent() -> None:
    """When standard input closes, kill this process and the processes that it started."""
    # Read the descriptor directly: the lock of `sys.stdin` would block the interpreter's exit.
    while os.read(0, 4_096):
        pass
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    main()
