"""What is shown of a run, frame by frame."""

from typing import Any

import pytest

from agentsite.client.events import (
    ApprovalDecided,
    ApprovalNeeded,
    Ended,
    Reasoning,
    Rewritten,
    Started,
    Text,
    ToolEnded,
    ToolStarted,
)
from agentsite.client.http import ReplyError
from agentsite.client.reply import Frame, GapError, RunView

REQUEST: dict[str, Any] = {
    "request_id": "r",
    "tool": "erase",
    "description": "Erases a file.",
    "arguments": "{}",
    "expires_at": "2030-01-01",
}


def status(event: str, seq: int | None = None, epoch: int = 1, **fields: Any) -> Frame:
    at = {"event": event, "run_id": "run", "epoch": epoch, **fields}
    return {"type": "status", "content": "", "metadata": at if seq is None else at | {"seq": seq}}


def token(text: str, seq: int, epoch: int = 1) -> Frame:
    return {"type": "token", "content": text, "metadata": {"epoch": epoch, "seq": seq}}


def complete(text: str, seq: int, epoch: int = 1) -> Frame:
    at = {"epoch": epoch, "seq": seq, "finish_reason": "completed"}
    return {
        "type": "complete",
        "content": text,
        "metadata": at | {"usage": {}, "usage_source": "unknown"},
    }


def snapshot(seq: int, *parts: dict[str, Any], epoch: int = 1) -> Frame:
    return status("snapshot", seq, epoch, parts=list(parts))


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


@pytest.fixture
def view() -> RunView:
    """Has begun, and said three words."""
    view = RunView()
    assert view.take(status("run.started", 1, agent="a")) == [Started("a")]
    assert view.take(token("one two ", 2)) == [Text("one two ")]
    assert view.take(token("three", 3)) == [Text("three")]
    return view


def test_frames_count_once(view: RunView) -> None:
    assert view.take(token("three", 3)) == []
    assert view.take(status("run.started", 1, agent="a")) == []
    assert (view.text, view.cursor) == ("one two three", {"epoch": 1, "seq": 3})


@pytest.mark.parametrize(
    "frame",
    [token("five", 5), token("five", 2, epoch=2), status("run.head", 9, status="completed")],
)
def test_a_gap_changes_nothing(view: RunView, frame: Frame) -> None:
    with pytest.raises(GapError):
        view.take(frame)
    assert (view.text, view.cursor) == ("one two three", {"epoch": 1, "seq": 3})


def test_what_a_newer_server_tells_is_passed_over(view: RunView) -> None:
    assert view.take(status("run.dreaming", 4)) == []
    assert view.take(status("run.weather")) == []
    assert view.take(token(" four", 5)) == [Text(" four")]


def test_a_snapshot_tells_what_is_new(view: RunView) -> None:
    tool = {"type": "tool", "tool_call_id": "t", "name": "look", "status": "finished", "output": ""}
    events = view.take(snapshot(9, text("one two three"), tool, text("four")))
    assert events == [Text("\n\nfour"), ToolEnded("t", "look", failed=False)]
    assert view.take(snapshot(9, text("one two three"), tool, text("four"))) == []
    assert view.take(snapshot(8)) == []
    assert view.take(complete("one two three\n\nfour.", 12))[0] == Text(".")


def test_a_snapshot_of_something_else_replaces(view: RunView) -> None:
    assert view.take(snapshot(2, text("uno"), epoch=2)) == [Rewritten("uno")]
    assert view.take(token(" dos", 3, epoch=2)) == [Text(" dos")]


def test_a_reset_begins_again(view: RunView) -> None:
    assert view.take(status("run.reset", epoch=2)) == [Rewritten("")]
    assert view.take(status("run.reset", epoch=2)) == []
    assert view.take(token("late", 4)) == []
    assert view.take(status("run.started", 1, epoch=2, agent="a")) == [Started("a")]
    assert view.take(complete("uno", 2, epoch=2))[0] == Text("uno")


def test_a_new_epoch_that_was_not_told_of_begins_again(view: RunView) -> None:
    events = view.take(status("run.started", 1, epoch=2, agent="a"))
    assert events == [Rewritten(""), Started("a")]


def test_the_end_is_whole_in_itself(view: RunView) -> None:
    end = Ended("one two three four", "completed")
    assert view.take(complete("one two three four", 40)) == [Text(" four"), end]
    assert view.take(complete("one two three four", 40)) == []
    assert view.end == end


def test_an_error_keeps_the_text(view: RunView) -> None:
    at = {"epoch": 1, "seq": 9, "code": "provider_cut", "retryable": True, "terminal": True}
    assert view.take({"type": "error", "content": "It broke.", "metadata": at}) == []
    assert isinstance(view.end, ReplyError)
    assert (view.end.code, str(view.end), view.text) == (
        *("provider_cut", "It broke."),
        "one two three",
    )


def test_steps(view: RunView) -> None:
    asked: dict[str, Any] = {"tool_call_id": "t", "name": "look"}
    assert view.take(status("reasoning.delta", 4, delta="hm")) == [Reasoning("hm")]
    assert view.take(status("tool.started", 5, **asked)) == [ToolStarted("t", "look")]
    told = view.take(status("tool.failed", 6, **asked, output="no"))
    assert told == [ToolEnded("t", "look", failed=True, output="no")]


def test_requests(view: RunView) -> None:
    needed = ApprovalNeeded(**REQUEST)
    assert view.take(status("input.requested", 4, **REQUEST)) == [needed]
    assert view.open_requests == ["r"]
    part = {"type": "approval", **REQUEST}
    assert view.take(snapshot(5, text("one two three"), part)) == []
    decided = part | {"decision": "approve", "by": "ben"}
    events = view.take(snapshot(6, text("one two three"), decided))
    assert events == [ApprovalDecided("r", "approve", "ben")]
    assert view.open_requests == []
