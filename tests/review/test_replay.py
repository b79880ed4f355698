"""A reply shown again: from its journal, and from the sketch that is left of it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from conversations.models import Run, RunEvent, RunStatus
from conversations.review.timeline import read_replay
from conversations.runs.events import POINTS_MAX, draw_sketch, fold_events
from conversations.runs.lifecycle import Ending, finish_run
from tests.support.chats import ask, begin, make_user

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(ms: int) -> datetime:
    return START + timedelta(milliseconds=ms)


@pytest.fixture
def run(db: None) -> Run:
    """Two tokens, 100 and 250 ms after the question, and a tool between them."""
    claimed = begin(ask(make_user("ann"), "question"))
    call = {"tool_call_id": "c", "name": "search"}
    events: list[tuple[int, str, dict[str, Any]]] = [
        (2, "token", {"delta": "né, "}),
        (3, "tool.started", call),
        (4, "tool.finished", call | {"output": "x"}),
        (5, "token", {"delta": "yes"}),
    ]
    parts = [{"type": "text", "text": "né, yes"}]
    ending = Ending(status=RunStatus.COMPLETED, parts=parts)
    finish_run(claimed, last_seq=1, events=events, ending=ending)
    Run.objects.update(created_at=START)
    for seq, ms in enumerate((0, 100, 150, 200, 250, 300), 1):
        RunEvent.objects.filter(seq=seq).update(created_at=at(ms))
    return Run.objects.select_related("reply").get()


def expected() -> dict[str, Any]:
    steps = ["begun", "search: begun", "search: finished", "completed"]
    return {
        "text": "né, yes",
        "points": [[100, 4], [250, 7]],
        "steps": [list(pair) for pair in zip((0, 150, 200, 300), steps, strict=True)],
    }


def test_it_is_the_same_after_folding(run: Run) -> None:
    assert read_replay(run) == expected()
    Run.objects.update(ended_at=timezone.now() - timedelta(hours=1))
    assert fold_events(timedelta(minutes=10)) == 1
    assert not RunEvent.objects.filter(kind="token").exists()
    assert read_replay(Run.objects.select_related("reply").get()) == expected()


def test_a_reply_at_work_is_shown_as_far_as_it_is(db: None) -> None:
    begin(ask(make_user("ann"), "question"), "so", " far")
    replay = read_replay(Run.objects.select_related("reply").get())
    assert replay["text"] == "so far"
    assert replay["points"][-1][1] == 6


def test_a_sketch_is_small_and_ends_exactly() -> None:
    points = draw_sketch(START, ((at(10 * n), 3) for n in range(1, 5_001)))
    assert len(points) == POINTS_MAX
    assert (points[0], points[-1]) == ([10, 3], [50_000, 15_000])
    assert points == sorted(points)


def test_what_came_in_one_moment_is_one_point() -> None:
    assert draw_sketch(START, [(at(5), 1), (at(5), 2), (at(-5), 1)]) == [[5, 4]]
