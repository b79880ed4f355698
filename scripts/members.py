"""Processes that are kept running: started again when they end, stopped within a time limit."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from servers import Command
from venvs import SetupError

START_S = 120.0
STOP_S = 10.0
LOOK_S = 0.2
STEADY_S = 10.0
"""A process that lives longer is started again at once when it ends."""
LONGEST_PAUSE_S = 15.0
LOG_LINES = 12
LOG_BYTES = 10_000_000
"""A longer log is moved to `<name>.log.1`, in place of the one before."""


def say(text: str) -> None:
    print(f"agentsite: {text}", flush=True)


class Member:
    """One process of the cluster, started again whenever it ends before `stop`.

    `is_ready` is called in a thread. `folder` gets its output, and its process id in a file.
    """

    def __init__(
        self,
        name: str,
        command: Command,
        is_ready: Callable[[], bool],
        folder: Path,
        *,
        env: Mapping[str, str] = os.environ,
        stop_signal: signal.Signals = signal.SIGTERM,
        stop_s: float = STOP_S,
    ) -> None:
        self.name = name
        self._command = command
        self._is_ready = is_ready
        self._log = folder / "logs" / f"{name}.log"
        self._pid = folder / "pids" / name
        self._env = dict(env)
        self._stop_signal = stop_signal
        self._stop_s = stop_s
        self._process: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()
        self._is_stopping = self._is_restarting = False
        self._keeping: asyncio.Task[None] | None = None

    @property
    def _is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process, wait until it is ready, and keep it running from then on.

        Raises `SetupError` if it ends instead, or is not ready within `START_S`.
        """
        self._log.write_bytes(b"")
        await self._spawn()
        await self._until_ready()
        self._keeping = asyncio.create_task(self._keep(), name=self.name)

    async def restart(self) -> None:
        """End the process as `stop` does, and wait until its successor is ready."""
        self._is_restarting = self._is_running
        self._ready.clear()
        await self._end()
        await self._ready.wait()

    async def stop(self) -> None:
        """Ask the process to end, and kill it after `stop_s` seconds."""
        self._is_stopping = True
        await self._end()
        if self._keeping is not None:
            self._keeping.cancel()
        self._pid.unlink(missing_ok=True)

    def kill(self) -> None:
        """Kill the process and all that it started."""
        self._is_stopping = True
        if self._process is not None and self._is_running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def rotate_log(self) -> None:
        """Move a log that is longer than `LOG_BYTES` aside, and let the process begin anew.

        The process keeps its file open, so what it holds is copied. Lines that are written at the
        same moment are lost.
        """
        if self._log.exists() and self._log.stat().st_size > LOG_BYTES:
            shutil.copyfile(self._log, self._log.with_suffix(".log.1"))
            os.truncate(self._log, 0)

    async def _end(self) -> None:
        process = self._process
        if process is None or not self._is_running:
            return
        process.send_signal(self._stop_signal)
        try:
            async with asyncio.timeout(self._stop_s):
                await process.wait()
        except TimeoutError:
            say(f"{self.name} has not ended within {self._stop_s:.0f} s: killed")
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def _spawn(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command.launch(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._command.cwd,
                # Ctrl-C in the terminal reaches the cluster alone, which stops all in order.
                start_new_session=True,
            )
        self._pid.write_text(f"{self._process.pid}\n")

    async def _until_ready(self) -> None:
        process = self._process
        assert process is not None, "not started"
        try:
            async with asyncio.timeout(START_S):
                # No event of this process tells that another one is ready.
                while process.returncode is None and not await asyncio.to_thread(  # noqa: ASYNC110
                    self._is_ready
                ):
                    await asyncio.sleep(LOOK_S)
        except TimeoutError as exc:
            told = f"{self.name} is not ready after {START_S:.0f} s"
            raise SetupError(told + self._end_of_log()) from exc
        if process.returncode is not None:
            told = f"{self.name} ended as it started ({describe(process.returncode)})"
            raise SetupError(told + self._end_of_log())
        self._ready.set()

    async def _keep(self) -> None:
        """Start the process again each time that it ends, with growing pauses if that is often."""
        pause_s = 0.0
        while True:
            assert self._process is not None, "not started"
            began = asyncio.get_running_loop().time()
            status = await self._process.wait()
            if self._is_stopping:
                return
            self._ready.clear()
            if not self._is_restarting:
                say(f"{self.name} has ended ({describe(status)}): starting it again")
            self._is_restarting = False
            lived_s = asyncio.get_running_loop().time() - began
            pause_s = 0.0 if lived_s > STEADY_S else min(LONGEST_PAUSE_S, 2 * pause_s + 0.5)
            await asyncio.sleep(pause_s)
            await self._spawn()
            try:
                await self._until_ready()
                say(f"{self.name} is back (process {self._process.pid})")
            except SetupError as exc:
                say(str(exc))
                await self._end()

    def _end_of_log(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "".join(f"\n    {line}" for line in [f"the end of {self._log}:", *lines])


def describe(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
