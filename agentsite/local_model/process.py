"""One child process of the model, from its start to its end."""

import asyncio
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

from django.conf import settings

from agentsite.local_model.job import Job
from agentsite.settings import PREFIX, Environment

logger = logging.getLogger(__name__)

CHILD = "agentsite.local_model.child"
END_S = 3
"""How long a child may take to end when its input is closed."""

LINES_KEPT = 15
OWN_GROUP = os.name == "posix"


class ModelProcess:
    """`messages` runs it; afterwards `ended` says in words what became of it."""

    def __init__(self, module: str = CHILD) -> None:
        self._module = module
        self._last_lines: deque[str] = deque(maxlen=LINES_KEPT)
        self.returncode: int | None = None

    async def messages(self, job: Job) -> AsyncGenerator[dict[str, Any], None]:
        """What it tells, until it ends; it is ended when the generator is closed."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self._module),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            cwd=settings.BASE_DIR,
            env=_harmless_environment(),
            # Ctrl-C in the terminal is for the web process, which lets replies end.
            start_new_session=OWN_GROUP,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        listener = asyncio.create_task(self._listen(process), name="the model's complaints")
        try:
            process.stdin.write(job.encode())
            async for line in process.stdout:
                yield json.loads(line)
            self.returncode = await process.wait()
        finally:
            await _end(process)
            await listener

    async def _listen(self, process: Process) -> None:
        """What it says beside that is kept for the case that it never gets ready."""
        assert process.stderr is not None
        while not process.stderr.at_eof():
            # A line without an end is dropped; unread, it would hold up the process.
            with suppress(ValueError):
                if line := await process.stderr.readline():
                    self._last_lines.append(line.decode(errors="replace").rstrip())

    @property
    def ended(self) -> str:
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
        return "\n".join(self._last_lines)


async def _end(process: Process) -> None:
    """It ends itself when its input closes, and all that it has started with it."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), END_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def _harmless_environment() -> dict[str, str]:
    """Ours without its secrets: neither the model nor pip has a use for them."""
    fields = Environment.model_fields.items()
    secret = {name.upper() for name, field in fields if "SecretStr" in str(field.annotation)}
    return {
        name: value for name, value in os.environ.items() if name.removeprefix(PREFIX) not in secret
    }
