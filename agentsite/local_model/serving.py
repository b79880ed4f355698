"""llama.cpp's own OpenAI-compatible server, as we want it."""

from pathlib import Path
from typing import Any

from agentsite.local_model import machine
from agentsite.local_model.faults import Fault, LocalModelError
from agentsite.local_model.job import Job

TEMPLATE = Path(__file__).with_name("template.jinja")
SLOTS = 2
"""Replies at the same time; more wait in line."""

CONTEXT = 4_096
"""Tokens of one conversation, prompt and reply."""

REPLY_MAX = 1_024
CACHE_MIB = 256


def serve(job: Job, path: Path) -> tuple[Any, str]:
    """The running server, to be kept, and its base URL; raises `LocalModelError`."""
    machine.check_memory(job.weights.memory)
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {job.weights.name}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [job.key]
    # Its own pages, and pages of others, have no business here.
    params.ui = False
    params.cors_origins = ""
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * CONTEXT
    params.n_predict = REPLY_MAX
    params.cache_ram_mib = CACHE_MIB
    params.cpuparams.n_threads = machine.spare_cores()
    # Weights laid out anew would answer a fifth faster, but take twice as long to start and half
    # as much memory again.
    params.no_extra_bufts = True
    params.use_jinja = True
    if job.weights.sha256:
        params.chat_template = TEMPLATE.read_text()
    try:
        server = xllamacpp.Server(params)
    except (RuntimeError, ValueError) as exc:
        raise LocalModelError(Fault.NOT_A_MODEL, file=path.name) from exc
    return server, f"{server.listening_address}/v1"
