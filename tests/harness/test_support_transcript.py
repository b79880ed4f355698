"""The strict reader accepts what the protocol allows, and nothing else."""

from typing import Any

import pytest

from tests.support.transcript import BaseClient, Frame, RunView, Transcript


def metadata_of(run: int, seq: int, epoch: int = 0, **fields: Any) -> dict[str, Any]:
    place = {"run_id": f"run-{run}", "run_number": run, "epoch": epoch, "seq": seq}
    return {**place, "message_id": f"message-{run}", **fields}


def frame_of(kind: str, content: str, metadata: dict[str, Any]) -> Frame:
    return {"type": kind, "session_id": "s", "content": content, "metadata": metadata}


def started(run: int = 1, epoch: int = 0) -> Frame:
    fields = metadata_of(run, 1, epoch, event="run.started", agent="tester")
    return frame_of("status", "thinking", fields)


def token(content: str, seq: int, run: int = 1, epoch: int = 0) -> Frame:
    return frame_of("token", content, metadata_of(run, seq, epoch))


def complete(content: str, seq: int, run: int = 1, epoch: int = 0) -> Frame:
    usage: dict[str, Any] = {"usage": {}, "usage_source": "unknown"}
    fields = metadata_of(run, seq, epoch, **usage, html="", finish_reason="completed")
    return frame_of("complete", content, fields)


def failed(seq: int, run: int = 1) -> Frame:
    error: dict[str, Any] = {"code": "internal", "retryable": True, "terminal": True}
    return frame_of("error", "sorry", metadata_of(run, seq, **error))


def status(event: str, **fields: Any) -> Frame:
    return frame_of("status", "", {"event": event, **fields})


def snapshot(text: str, seq: int, run: int = 1, epoch: int = 0) -> Frame:
    tool = {"type": "tool", "tool_call_id": "1", "name": "add", "status": "started"}
    parts = [tool, {"type": "text", "text": text}]
    fields = metadata_of(run, seq, epoch, parts=parts, run_status="running")
    return status("snapshot", **fields)


def resumed() -> Frame:
    return status("resumed", rev=7, recovered=True, run_id="run-1")


def accepted(*, duplicate: bool) -> Frame:
    fields = {"user_message_id": "u", "message_id": "message-1", "run_id": "run-1"}
    return status("accepted", **fields, outcome="started", duplicate=duplicate)


def reset(epoch: int) -> Frame:
    fields = {"run_id": "run-1", "run_number": 1, "epoch": epoch, "reason": "worker_lost"}
    return status("run.reset", **fields)


WHOLE = [started(), token("he", 2), token("y", 3), complete("hey", 4)]
SECOND = [started(2), token("you", 2, 2), complete("you", 3, 2)]


@pytest.mark.parametrize(
    ("frames", "texts"),
    [
        ([accepted(duplicate=False), *WHOLE, *SECOND], ["hey", "you"]),
        ([started(), token("he", 2), failed(3), *SECOND], ["he", "you"]),
        ([started(), snapshot("hey", 9), token("!", 10), complete("hey!", 11)], ["hey!"]),
        ([started(), token("x", 2), reset(1), started(epoch=1), token("y", 2, epoch=1)], ["y"]),
        ([*WHOLE, resumed(), complete("hey", 4)], ["hey"]),
        ([started(), token("he", 2), resumed(), complete("hey", 90)], ["hey"]),
        ([started(), resumed(), token("a", 2), accepted(duplicate=True)], ["a"]),
        ([started(), token("a", 2), resumed(), started(), token("a", 2), token("b", 3)], ["ab"]),
        ([started(), token("merged", 90), complete("merged", 91)], ["merged"]),
        ([started(), started(epoch=1), token("again", 2, epoch=1)], ["again"]),
        ([started(), complete("", 1, run=2), *WHOLE[1:]], ["hey", ""]),
    ],
)
def test_allowed(frames: list[Frame], texts: list[str]) -> None:
    transcript = Transcript()
    transcript.apply_all(frames)
    assert transcript.texts("s") == texts


@pytest.mark.parametrize(
    ("frames", "fault"),
    [
        ([resumed(), token("a", 2)], "seq was 0"),
        ([resumed(), started(), token("a", 3)], "seq was 1"),
        ([started(), complete("", 3)], "seq was 1"),
        ([started(), token("a", 9), complete("ab", 10)], "added up to 'a'"),
        ([started(), token("a", 2), token("a", 2)], "seq was 2"),
        ([started(), token("a", 2, epoch=1)], "epoch was 0"),
        ([resumed(), started(), started(epoch=1)], "epoch was 0"),
        ([started(), token("a", 2), started(epoch=1)], "epoch was 0"),
        ([*WHOLE, complete("hey", 4)], "after the end"),
        ([*WHOLE, token("!", 5)], "after the end"),
        ([*WHOLE, resumed(), complete("other", 4)], "different end"),
        ([started(), token("he", 2), complete("hey", 3)], "added up to 'he'"),
        ([started(), started(2)], r"before the end of \[1\]"),
        ([started(2), started()], r"after frames of \[2\]"),
        ([started(), snapshot("b", 2, run=2)], r"before the end of \[1\]"),
        ([started(), token("a", 2), snapshot("", 1)], "from the past"),
        ([started(), token("he", 2), resumed(), token("y", 4)], "seq was 2"),
        ([*WHOLE, reset(1)], "reset after the end"),
        ([started(), accepted(duplicate=False)], "accepted after"),
    ],
)
def test_ruled_out(frames: list[Frame], fault: str) -> None:
    transcript = Transcript()
    transcript.apply_all(frames[:-1])
    with pytest.raises(AssertionError, match=fault):
        transcript.apply(frames[-1])


def test_shape_is_checked() -> None:
    with pytest.raises(AssertionError, match="metadata"):
        Transcript().apply(frame_of("token", "a", {"seq": 1}))


def message(rev: int, **fields: Any) -> Frame:
    whole = {"number": 1, "role": "user", "created_at": "2026-01-01T00:00:00+00:00", "rev": rev}
    return status("message.updated", **whole | fields)


def test_messages_are_shown() -> None:
    transcript = Transcript()
    transcript.apply(message(3, message_id="u", parts=[{"type": "text", "text": "hi"}]))
    transcript.apply(message(4, message_id="u"))
    transcript.apply_all(WHOLE)
    assert transcript.shown("s") == {"u": "hi", "message-1": "hey"}
    wrong = message(5, message_id="message-1", run_id="run-1", parts=[])
    with pytest.raises(AssertionError, match="not what was shown"):
        transcript.apply(wrong)


def test_cursor_is_behind_what_may_be_cut_apart() -> None:
    transcript = Transcript()
    transcript.apply_all([message(3, message_id="u"), message(3, message_id="v"), *WHOLE])
    assert transcript.cursor("s") == {"rev": 0, "run_id": "run-1", "epoch": 0, "seq": 4}
    transcript.apply(message(4, message_id="u"))
    assert transcript.cursor("s")["rev"] == 3


def test_nothing_is_repeated_on_a_new_socket() -> None:
    transcript = Transcript()
    transcript.apply_all([started(), token("a", 2)])
    transcript.reconnect()
    transcript.apply(resumed())
    with pytest.raises(AssertionError, match="seq was 2"):
        transcript.apply(token("a", 2))


def test_goes_on_from_a_page() -> None:
    transcript = Transcript()
    transcript.seed(RunView("s", "run-1", 1, seq=2, text="he", message_id="message-1"), rev=5)
    transcript.apply_all([resumed(), *WHOLE[2:]])
    assert transcript.text("run-1") == "hey"


def test_base_client_compares_the_whole() -> None:
    client = BaseClient()
    for frame in WHOLE:
        client.apply({"type": frame["type"], "content": frame["content"]})
    assert client.replies == ["hey"]
    with pytest.raises(AssertionError, match="added up to ''"):
        client.apply({"type": "complete", "content": "hey"})
