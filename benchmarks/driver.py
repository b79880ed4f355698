"""Load generators in processes of their own: get ready, wait for the start, report the results."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.support.site import ROOT


@dataclass(frozen=True)
class Scenario:
    """A load of `clients` in parallel, each requesting `rounds` replies in sequence.

    They start within `ramp_s` seconds, so that their tokens are not synchronous.
    """

    clients: int
    rate: int
    tokens: int
    rounds: int = 1
    ramp_s: float = 1.0

    @property
    def prompt(self) -> str:
        """The prompt in the form that the stand-in model understands."""
        return f"tokens={self.tokens} rate={self.rate}"

    @property
    def total_tokens(self) -> int:
        return self.clients * self.rounds * self.tokens


@dataclass
class Seen:
    """What the clients measured: times of each reply, frames, faults."""

    ttft_ms: list[float] = field(default_factory=list)
    reply_s: list[float] = field(default_factory=list)
    frames: int = 0
    faults: list[str] = field(default_factory=list)

    def note(self, asked_at: float, first_at: float | None) -> None:
        """Record a reply that has just ended; times are `time.perf_counter()` seconds."""
        now = time.perf_counter()
        self.ttft_ms.append(((first_at or now) - asked_at) * 1000)
        self.reply_s.append(now - asked_at)


class Driver:
    """A load generator's process, as seen by the process that starts it."""

    def __init__(self, module: str, env: dict[str, str], **task: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._write(json.dumps(task))

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self) -> None:
        said = self._read()
        assert said == "ready", f"the load process said {said!r}"

    def run(self) -> Seen:
        """Start the load and wait for its results."""
        self._write("go")
        return Seen(**json.loads(self._read()))

    def close(self) -> None:
        self._process.communicate()

    def _write(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


async def be_driven(make_load: Callable[..., Awaitable[Callable[[], Awaitable[Seen]]]]) -> None:
    """Run in a load generator's process: `make_load(**task)` gets ready and returns the load."""
    task = json.loads(await _next_line())
    scenario = Scenario(**task.pop("scenario"))
    load = await make_load(scenario, **task)
    print("ready", flush=True)
    await _next_line()
    print(json.dumps(asdict(await load())), flush=True)
    # The parent reads our CPU time and memory: stay alive until it is done.
    await _next_line()


async def _next_line() -> str:
    return await asyncio.to_thread(sys.stdin.readline)
