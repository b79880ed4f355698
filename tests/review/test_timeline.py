"""What a run's row and events say took how long."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conversations.models import Run, RunEvent, RunStatus
from conversations.review.drawing import draw, format_ms, format_value, nice_top, round_steps
from conversations.review.timeline import build_timeline

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(ms: float) -> datetime:
    return START + timedelta(milliseconds=ms)


def event(seq: int, kind: str, ms: float, *, epoch: int = 1, **payload: Any) -> RunEvent:
    return RunEvent(epoch=epoch, seq=seq, kind=kind, payload=payload, created_at=at(ms))


def run_of(**fields: Any) -> Run:
    ended = {"status": RunStatus.COMPLETED, "claimed_at": at(10), "ended_at": at(1000)}
    return Run(created_at=START, **(ended | fields))


def spans(run: Run, *events: RunEvent, now: float = 5000) -> list[tuple[str, float, float]]:
    return [(s.kind, s.start, s.end) for s in build_timeline(run, list(events), at(now)).spans]


def test_phases() -> None:
    assert spans(run_of(first_token_at=at(400))) == [
        ("queued", 0, 10),
        ("waiting", 10, 400),
        ("writing", 400, 1000),
    ]


def test_a_run_that_waits_and_one_without_a_token() -> None:
    waiting = run_of(claimed_at=None, ended_at=None, status=RunStatus.QUEUED)
    assert spans(waiting) == [("queued", 0, 5000)]
    assert spans(run_of()) == [("queued", 0, 10), ("waiting", 10, 1000)]


def test_tools_and_approvals_have_lanes_of_their_own() -> None:
    events = [
        event(2, "tool.started", 100, tool_call_id="a", name="search"),
        event(3, "tool.started", 150, tool_call_id="b", name="delete"),
        event(4, "tool.finished", 300, tool_call_id="a"),
        event(5, "input.requested", 310, request_id="r", tool="delete"),
        event(6, "input.resolved", 900, request_id="r", decision="approve"),
    ]
    timeline = build_timeline(run_of(), events, at(0))
    steps = [(span.label, span.start, span.end, span.outcome) for span in timeline.spans[2:]]
    assert steps == [
        ("search", 100, 300, "finished"),
        ("Approval of delete", 310, 900, "approve"),
        ("delete", 150, 1000, "not finished"),
    ]


def test_marks_tell_of_stops_and_new_beginnings() -> None:
    stopped = {"cancel_requested_at": at(800), "stopped_at": at(1000)}
    run = run_of(status=RunStatus.CANCELLED, first_token_at=at(500), **stopped)
    events = [event(1, "run.started", 100), event(1, "run.started", 300, epoch=2)]
    timeline = build_timeline(run, events, at(0))
    kinds = [mark.kind for mark in timeline.marks]
    assert kinds == ["claimed", "again", "first", "stop", "stopped", "end"]
    assert timeline.stop_ms == 200


def test_a_run_that_goes_on_behind_its_steps_has_not_begun_again() -> None:
    """Its first event has moved into the new epoch."""
    run = run_of(status=RunStatus.COMPLETED, first_token_at=at(500))
    timeline = build_timeline(run, [event(1, "run.started", 300, epoch=2)], at(0))
    assert [mark.kind for mark in timeline.marks] == ["claimed", "first", "end"]


def test_clocks_that_differ_draw_nothing_backwards() -> None:
    run = run_of(claimed_at=at(-50), first_token_at=at(-20))
    assert all(start >= 0 and end >= start for _, start, end in spans(run))


def test_a_drawing_fits_its_frame() -> None:
    drawing = draw(build_timeline(run_of(first_token_at=at(999.9)), [], at(0)))
    assert all(bar.x >= 0 and bar.x + bar.width <= drawing.width for bar in drawing.bars)
    assert [tick.label for tick in drawing.ticks] == [
        *("0 ms", "200 ms", "400 ms", "600 ms", "800 ms", "1 s")
    ]


@pytest.mark.parametrize(
    ("ms", "words"), [(0, "0 ms"), (999, "999 ms"), (2400, "2.4 s"), (185_000, "3 min 5 s")]
)
def test_durations(ms: float, words: str) -> None:
    assert format_ms(ms) == words


def test_axes_are_round() -> None:
    assert round_steps(0.9, 3) == [0, 0.5]
    assert [nice_top(values) for values in ([], [0], [7], [93], [401])] == [1, 1, 8, 100, 600]


def test_values_for_people() -> None:
    values = (None, 0, 0.12345, 999.96, 1234.5, 123_456.7, 99_999)
    shown = ["–", "0", "0.1235", "1,000", "1,234", "123,457", "99,999"]
    assert [format_value(value) for value in values] == shown
