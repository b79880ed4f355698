"""Progress of tools on its way to the journal."""

import asyncio
from typing import Any

import pytest

from realtime.work.run_context import TEXT_LENGTH, ProgressReports
from tests.support.waiting import Noticeboard

Told = tuple[str, dict[str, Any]]


class FakeJournal:
    """Keeps what is appended."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.board = Noticeboard()

    def append(self, kind: str, payload: dict[str, Any]) -> None:
        self.told.append((kind, payload))
        self.board.post()

    @property
    def texts(self) -> list[str]:
        return [payload["progress"] for _, payload in self.told]


@pytest.fixture
def journal() -> FakeJournal:
    return FakeJournal()


@pytest.fixture
def reports(journal: FakeJournal, settings: Any) -> Any:
    """A function: reports that are told once in so many milliseconds."""

    def make(interval_ms: float) -> ProgressReports:
        settings.REALTIME = {**settings.REALTIME, "progress_interval_ms": interval_ms}
        return ProgressReports(journal, asyncio.get_running_loop())  # type: ignore[arg-type]

    return make


async def test_the_first_at_once_and_the_latest_in_the_end(
    journal: FakeJournal, reports: Any
) -> None:
    told = reports(20)
    told.begin("c1")
    for step in range(100):
        told.report("c1", "count", f"step {step}", None)
    assert journal.texts == ["step 0"]
    await journal.board.until(lambda: len(journal.told) == 2)
    assert journal.texts == ["step 0", "step 99"]


async def test_each_call_has_its_own_time(journal: FakeJournal, reports: Any) -> None:
    told = reports(60_000)
    for call in ("c1", "c2"):
        told.begin(call)
        told.report(call, "count", call, 0.5)
        told.report(call, "count", "late", 0.6)
    assert journal.texts == ["c1", "c2"]
    told.end_all()


async def test_nothing_before_the_beginning_nor_after_the_end(
    journal: FakeJournal, reports: Any
) -> None:
    told = reports(0)
    told.report("c1", "count", "too early", None)
    told.begin("c1")
    told.end("c1")
    told.report("c1", "count", "too late", None)
    told.summarise("c1", "too late")
    assert journal.told == []


async def test_a_summary_and_a_failure_belong_to_their_call(reports: Any) -> None:
    told = reports(0)
    for call in ("c1", "c2"):
        told.begin(call)
    told.summarise("c1", "did it")
    told.fail("c2")
    one, two = told.end("c1"), told.end("c2")
    assert (one.summary, one.failed) == ("did it", False)
    assert (two.summary, two.failed) == ("", True)


async def test_from_a_thread_it_is_told_on_the_loop(journal: FakeJournal, reports: Any) -> None:
    told = reports(0)
    told.begin("c1")
    await asyncio.to_thread(told.report, "c1", "count", "from afar", None)
    await journal.board.until(lambda: journal.told)
    assert journal.texts == ["from afar"]


@pytest.mark.parametrize(("given", "shown"), [(-1.0, 0.0), (0.25, 0.25), (7.0, 1.0)])
async def test_what_is_told_is_within_bounds(
    journal: FakeJournal, reports: Any, given: float, shown: float
) -> None:
    told = reports(0)
    told.begin("c1")
    told.report("c1", "count", "a\nb\0" + "x" * 1_000, given)
    (_, payload) = journal.told[0]
    assert payload["fraction"] == shown
    assert payload["progress"].startswith("a b\ufffdx")
    assert len(payload["progress"]) == TEXT_LENGTH
