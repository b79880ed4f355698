"""Brings the weights into the cache folder: once, resumably, and only if their hash is right."""

import errno
import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from django.core.files import locks

from agentsite.local_model import machine
from agentsite.local_model.faults import Fault, LocalModelError, SourceError
from agentsite.local_model.sources import LOOK_S, Mirror, Official, Source
from agentsite.local_model.weights import MIB, Weights

logger = logging.getLogger(__name__)

Report = Callable[[int], None]
"""Called with the bytes that are there, several times a second."""

ROUNDS = 2
PAUSE_S = 2.0
MARGIN = 256 * MIB
"""What is left free on the disk, and what packages of the mirror take beside the file."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def fetch(weights: Weights, folder: Path, *, mirror: bool, report: Report) -> Path:
    """The file, fetched if it is not there; raises `LocalModelError`.

    What has come before an interruption is kept. Of several processes one fetches, and the
    others wait for it.
    """
    target = weights.file_in(folder)
    if not weights.is_fetched:
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if is_there(weights, target):
            return target
        download = Download(weights, folder, mirror=mirror, report=report)
        with locked(folder / "fetch.lock", download.watch):
            if not is_there(weights, target):
                download.run()
    except OSError as exc:
        if exc.errno in FULL:
            free = shutil.disk_usage(folder).free
            raise LocalModelError(Fault.NO_ROOM, needed=weights.size, free=free) from exc
        raise LocalModelError(Fault.NO_FOLDER, reason=exc.strerror or str(exc)) from exc
    return target


def is_there(weights: Weights, target: Path) -> bool:
    """A file gets its name only after its hash was found to be right."""
    return target.is_file() and target.stat().st_size == weights.size


class Download:
    """One file on its way; `partial` holds its first bytes, whichever source they are from."""

    def __init__(self, weights: Weights, folder: Path, *, mirror: bool, report: Report) -> None:
        self._weights = weights
        self._target = weights.file_in(folder)
        self._partial = partial_of(self._target)
        self._scratch = folder / "mirror"
        self._report = report
        self._told = 0
        self._sources: list[Source] = [Official(weights)] if weights.url else []
        if mirror and weights.parts:
            self._sources.append(Mirror(weights, self._scratch))
        self._mirror = mirror

    @property
    def size(self) -> int:
        return self._partial.stat().st_size if self._partial.exists() else 0

    def watch(self) -> None:
        """Somebody else fetches: tell how far that is."""
        self._tell(self.size)

    def _tell(self, done: int) -> None:
        """Never less than before, whatever is counted twice or thrown away."""
        self._told = max(self._told, min(done, self._weights.size))
        self._report(self._told)

    def run(self) -> None:
        """Try the sources in turn, twice; raises `LocalModelError` when none gave the file."""
        machine.check_room(self._partial.parent, self._weights.size - self.size + MARGIN)
        wrong: list[Source] = []
        for place in range(ROUNDS):
            time.sleep(PAUSE_S if place else 0)
            for source in self._sources:
                if source not in wrong and self._take(source, wrong):
                    self._partial.replace(self._target)
                    shutil.rmtree(self._scratch, ignore_errors=True)
                    return
        if wrong:
            raise LocalModelError(Fault.WRONG_HASH)
        raise LocalModelError(Fault.UNREACHABLE if self._mirror else Fault.MIRROR_OFF)

    def _take(self, source: Source, wrong: list[Source]) -> bool:
        """Whether all of it came from there and is right; else it is among the `wrong` ones, or
        out of reach."""
        while True:
            began = self.size
            try:
                if began < self._weights.size:
                    self._fill(source)
            except SourceError as exc:
                logger.info("%s", exc)
                if self.size == began:
                    return False
                continue
            if self._is_right():
                return True
            self._partial.unlink()
            logger.info("wrong hash of what was begun at byte %d", began)
            if not began:
                wrong.append(source)
                return False

    def _fill(self, source: Source) -> None:
        with self._partial.open("ab") as file:
            written = file.tell()
            with closing(source.read(written)) as pieces:
                for piece in pieces:
                    file.write(piece[: self._weights.size - written])
                    written += len(piece)
                    self._tell(written + source.ahead())
        if written < self._weights.size:
            raise SourceError(f"{type(source).__name__}: ended after {written} bytes")

    def _is_right(self) -> bool:
        with self._partial.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self._weights.sha256


def partial_of(target: Path) -> Path:
    """Where a file grows until it is whole."""
    return target.with_suffix(".partial")


@contextmanager
def locked(path: Path, while_waiting: Callable[[], None]) -> Iterator[None]:
    """One process at a time; the lock goes with the process that holds it."""
    with path.open("a") as file:
        while not locks.lock(file, locks.LOCK_EX | locks.LOCK_NB):
            while_waiting()
            time.sleep(LOOK_S)
        yield
