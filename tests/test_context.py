"""What the model is given of earlier turns is always in order and whole."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from conversations.queries import Turn
from realtime.context import CANCELLED_OUTPUT, model_input, stored_items


def call(call_id: str) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": "fc_1",
        "status": "completed",
        "call_id": call_id,
        "name": "f",
        "arguments": "{}",
    }


def output(call_id: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": "42"}


def message(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "role": "assistant", "id": "msg_1", "content": content}


def test_ids_and_reasoning_are_left_out() -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": []}
    items = stored_items([reasoning, call("a"), output("a"), message("done")], "")
    assert items == [
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "42"},
        {"role": "assistant", "content": "done"},
    ]


def test_cut_text_comes_last() -> None:
    assert stored_items([message("one")], "two") == [
        {"role": "assistant", "content": "one"},
        {"role": "assistant", "content": "two"},
    ]


@given(st.lists(st.tuples(st.sampled_from([call, output]), st.sampled_from("abc")), max_size=8))
def test_every_call_has_one_output_after_it(made: list[Any]) -> None:
    unique = {(make.__name__, call_id): make(call_id) for make, call_id in made}
    items = stored_items(unique.values(), "")
    calls = [item["call_id"] for item in items if item["type"] == "function_call"]
    outputs = [item["call_id"] for item in items if item["type"] == "function_call_output"]
    assert sorted(calls) == sorted(outputs)
    for call_id in calls:
        kinds = [item["type"] for item in items if item["call_id"] == call_id]
        assert kinds == ["function_call", "function_call_output"]


def test_a_call_that_was_stopped_says_so() -> None:
    assert stored_items([call("a")], "")[-1]["output"] == CANCELLED_OUTPUT


def test_turns_become_input_in_order() -> None:
    turns = [Turn("hi", []), Turn(None, [{"role": "assistant", "content": "hello"}]), Turn("?", [])]
    assert model_input(turns) == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "?"},
    ]
