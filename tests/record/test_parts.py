"""Folding: tokens joined are the text parts joined, however they were merged."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from conversations.models import join_text
from conversations.sessions.parts import SEPARATOR, fold

TOOL: dict[str, Any] = {"tool_call_id": "t", "name": "f"}


def test_text_tool_text() -> None:
    events = [
        ("run.started", {"agent": "a"}),
        ("token", {"delta": "before"}),
        ("tool.started", {**TOOL, "arguments": "{}"}),
        ("tool.progress", {**TOOL, "progress": "half", "fraction": 0.5}),
        ("tool.finished", {**TOOL, "output": "42"}),
        ("token", {"delta": SEPARATOR + "after"}),
        ("complete", {"finish_reason": "completed"}),
    ]
    folder = fold(events)
    assert [part["type"] for part in folder.parts] == ["text", "tool", "text"]
    assert folder.parts[1]["status"] == "finished"
    assert folder.parts[1]["output"] == "42"
    assert join_text(folder.close()) == "before\n\nafter"


def test_a_tool_still_at_work_has_failed_at_the_end() -> None:
    assert fold([("tool.started", TOOL)]).close()[0]["status"] == "failed"


steps = st.lists(st.one_of(st.text(min_size=1, max_size=5), st.just(None)), max_size=12)


@given(steps)
def test_joined_tokens_are_the_joined_parts(plan: list[str | None]) -> None:
    """None is a tool; the first token after one begins with the separator if there was text."""
    events: list[tuple[str, dict[str, Any]]] = []
    tokens, after_tool = "", False
    for number, step in enumerate(plan):
        if step is None:
            call = {"tool_call_id": str(number), "name": "f"}
            events += [("tool.started", call), ("tool.finished", {**call, "output": ""})]
            after_tool = True
            continue
        delta = SEPARATOR + step if after_tool and tokens else step
        tokens, after_tool = tokens + delta, False
        events.append(("token", {"delta": delta}))
    assert join_text(fold(events).parts) == tokens
