"""What this computer can bear."""

import os
import platform
import shutil
import sys
from pathlib import Path

from agentsite.local_model.faults import Fault, LocalModelError

CPU_INFO = Path("/proc/cpuinfo")
MEMORY_INFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
KIB = 1_024


def check_processor() -> None:
    """The runtime is built for AVX2; without it, it would be killed by the processor."""
    if platform.machine() not in ("x86_64", "AMD64") or not CPU_INFO.exists():
        return
    if "avx2" not in CPU_INFO.read_text().split():
        raise LocalModelError(Fault.NO_AVX2)


def check_runtime() -> None:
    """Raises `LocalModelError` when llama.cpp cannot be loaded here."""
    try:
        import xllamacpp  # noqa: F401
    except ModuleNotFoundError as exc:
        reason = f"there is no xllamacpp for {sys.platform} on {platform.machine()}"
        raise LocalModelError(Fault.NO_RUNTIME, reason=reason) from exc
    except ImportError as exc:
        raise LocalModelError(Fault.NO_RUNTIME, reason=str(exc)) from exc


def check_room(folder: Path, needed: int) -> None:
    """Whether so many bytes fit in there."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise LocalModelError(Fault.NO_ROOM, needed=needed, free=free)


def check_memory(needed: int) -> None:
    """Where it cannot be found out, it is taken to be enough."""
    available = available_memory()
    if available is not None and available < needed:
        raise LocalModelError(Fault.NO_MEMORY, needed=needed, available=available)


def available_memory() -> int | None:
    """In bytes, of the machine, and of the container that this runs in."""
    limits = [limit for limit in (_system_memory(), _container_memory()) if limit is not None]
    return min(limits, default=None)


def _system_memory() -> int | None:
    if not MEMORY_INFO.exists():
        return None
    lines = dict(line.split(":", 1) for line in MEMORY_INFO.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * KIB


def _container_memory() -> int | None:
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) - used + int(stat.get("inactive_file", 0))


def spare_cores() -> int:
    """One core stays with the web process: a model on all of them is slower, not faster."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    return max(1, cores - 1)
