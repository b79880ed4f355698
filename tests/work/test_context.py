"""What the model is given of earlier turns: in order, whole, and no more than it takes."""

import uuid
from dataclasses import replace
from typing import Any

import pytest
from agents.models.chatcmpl_converter import Converter
from hypothesis import given
from hypothesis import strategies as st

from agentsite.settings import Environment
from conversations.models import Run
from conversations.runs.inputs import LOST_OUTPUT, STOPPED_OUTPUT, Gauge, Turn, items_of_parts, mend
from conversations.text import estimate_items, estimate_text
from realtime.providers.call_items import CLIPPED, as_message, settle
from realtime.work.context import (
    SUMMARY,
    UNKNOWN,
    Window,
    get_budget,
    model_items,
    preface_of,
    stored_items,
)
from tests.support.provider.checks import refusal

Items = list[dict[str, Any]]

RUN = Run(agent="assistant", model="m")


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


def reasoning(_: str) -> dict[str, Any]:
    return {"type": "reasoning", "id": "rs_1", "summary": []}


def said(text: str) -> Turn:
    return Turn(uuid.uuid4(), text=text)


def gauge(**sizes: int) -> Gauge:
    return Gauge("assistant", "m", **sizes)


def replied(*items: dict[str, Any], **sizes: int) -> Turn:
    return Turn(uuid.uuid4(), items=list(items), gauge=gauge(**sizes))


def fit(turns: list[Turn], budget: int) -> list[Turn]:
    return Window(RUN, budget).fill(turns)


def refusals(items: Items) -> list[str]:
    """Why the stand-in would not take these, by either API."""
    items = settle(items)
    messages = Converter.items_to_messages(map(as_message, items))  # type: ignore[arg-type]
    bodies: dict[str, dict[str, Any]] = {
        "chat": {"stream": True, "messages": messages, "tools": ["f"]},
        "responses": {"stream": True, "input": items},
    }
    return [why for api, body in bodies.items() if (why := refusal(api, body))]


made = st.lists(
    st.builds(
        lambda make, name: make(name),
        st.sampled_from([call, call, output, output, message, reasoning]),
        st.sampled_from("ab"),
    ),
    max_size=10,
)


class TestMending:
    @given(st.lists(st.tuples(made, st.sampled_from(["", "cut"])), min_size=1, max_size=4))
    def test_every_provider_takes_what_any_turns_left(self, turns: list[tuple[Items, str]]) -> None:
        items = [*(t for m, cut in turns for t in (said("go on"), replied(*stored_items(m, cut))))]
        given_items = model_items([*items, said("and now?")])
        assert refusals(given_items) == []
        calls = [item["call_id"] for item in given_items if item.get("type") == "function_call"]
        assert len(calls) == len(set(calls)), "an id occurs twice"

    @given(made)
    def test_nothing_is_mended_twice(self, items: Items) -> None:
        assert mend(mend(items)) == mend(items)

    def test_ids_and_reasoning_are_left_out(self) -> None:
        items = stored_items([reasoning(""), call("a"), output("a"), message("done")], "")
        assert items == [
            {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": "42"},
            {"role": "assistant", "content": "done"},
        ]

    def test_what_came_between_a_call_and_its_output_follows_them(self) -> None:
        items = mend([call("a"), call("b"), message("meanwhile"), output("b"), output("a")])
        assert [item.get("call_id") for item in items] == ["a", "b", "a", "b", None]

    def test_each_call_of_one_id_keeps_its_own_output(self) -> None:
        first, second = output("a") | {"output": "1"}, output("a") | {"output": "2"}
        items = mend([call("a"), first, call("a"), second])
        assert [(item["call_id"], item.get("output")) for item in items] == [
            *(("a", None), ("a", "1")),
            *(("a_2", None), ("a_2", "2")),
        ]

    def test_cut_text_comes_last(self) -> None:
        assert stored_items([message("one")], "two") == [
            {"role": "assistant", "content": "one"},
            {"role": "assistant", "content": "two"},
        ]

    def test_a_call_that_was_stopped_says_so(self) -> None:
        assert stored_items([call("a")], "")[-1]["output"] == STOPPED_OUTPUT

    def test_what_no_database_holds_is_replaced(self) -> None:
        held = {"type": "function_call_output", "call_id": "a", "output": "a\x00b\ud800"}
        assert stored_items([call("a"), held], "")[1]["output"] == "a\ufffdb\ufffd"

    def test_parts_become_items(self) -> None:
        tool = {"type": "tool", "name": "f", "arguments": "{}", "status": "finished"}
        parts = [
            {"type": "reasoning", "text": "hm"},
            {**tool, "tool_call_id": "a", "output": "1"},
            {**tool, "tool_call_id": "b", "status": "failed"},
            {**tool, "tool_call_id": "c", "output": ""},
            {"type": "text", "text": "so far"},
        ]
        items = items_of_parts(parts)
        outputs = [item["output"] for item in items if "output" in item]
        assert (outputs, items[-1]["content"]) == (["1", LOST_OUTPUT, ""], "so far")
        assert refusals(model_items([said("?"), replied(*items), said("!")])) == []


class TestEstimates:
    @pytest.mark.parametrize(
        ("text", "tokens"),
        [
            ("The herons stand in the shade of the old mill, waiting for fish.", 14),
            ("def add(first: int, second: int) -> int:\n    return first + second\n", 18),
            ("Цапли стоят в тени старой мельницы и ждут рыбу.", 14),
            ("鹭鸶站在老磨坊的阴影里等着鱼。", 14),
            ("サギは古い水車小屋の陰で魚を待っている。", 16),
            ("왜가리는 오래된 방앗간 그늘에서 물고기를 기다린다.", 19),
            ("🦩🐟🌊", 5),
            ("", 0),
        ],
    )
    def test_rather_too_many_than_too_few(self, text: str, tokens: int) -> None:
        """`tokens` as a tokenizer of today counts them."""
        assert tokens <= estimate_text(text) <= 2 * tokens

    @given(st.text(), st.text())
    def test_texts_add_up(self, one: str, two: str) -> None:
        together = estimate_text(one + two)
        assert together == pytest.approx(estimate_text(one) + estimate_text(two))


class TestBudgets:
    @pytest.mark.parametrize(
        ("model", "tokens"),
        [
            ("gpt-4o-mini", 96_000),
            ("gpt-4", 6_000),
            ("openai/GPT-5.4-mini", 128_000),
            ("some-model", UNKNOWN),
        ],
    )
    def test_known_families(self, model: str, tokens: int) -> None:
        assert get_budget(model) == tokens

    def test_the_sites_own_come_first(self, settings: Any) -> None:
        settings.REALTIME = {**settings.REALTIME, "context_tokens": "gpt-4o=500, 900"}
        names = ("gpt-4o-mini", "gpt-4o", "gpt-5", "x")
        assert [get_budget(name) for name in names] == [500, 500, 900, 900]

    @pytest.mark.parametrize("text", ["gpt", "gpt=", "gpt=-5", "gpt=100", "12"])
    def test_nonsense_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="must give at least 256 tokens"):
            Environment(debug=True, context_tokens=text)


class TestFitting:
    def test_the_newest_turns_that_fit(self) -> None:
        turns = [said("now"), replied(message("x" * 3_600)), said("two")]
        turns += [replied(message("x" * 3_600)), said("one")]
        assert len(fit(turns, 10_000)) == 5
        assert fit(turns, 1_200) == turns[2::-1]
        assert fit(turns, 900) == turns[:1]

    def test_what_was_measured_corrects_the_estimate(self) -> None:
        earlier = [replied(message("x" * 3_600)), said("one")]
        light = [said("now"), replied(message("ok"), estimate=1_000, measured=500), said("two")]
        heavy = [said("now"), replied(message("ok"), estimate=1_000, measured=1_500), said("two")]
        assert len(fit([*light, *earlier], 700)) == 5
        assert len(fit([*heavy, *earlier], 1_400)) == 3

    def test_instructions_and_tools_count(self) -> None:
        """A first question of 10 tokens that was measured with 900 brings 890 of them along."""
        turns = [said("now"), replied(message("ok"), estimate=10, measured=900), said("x" * 1_000)]
        assert len(fit(turns, 1_000)) == 1
        assert len(fit(turns, 1_500)) == 3

    def test_another_models_measure_does_not_count(self) -> None:
        turns = [said("now"), replied(message("ok"), estimate=10, measured=900), said("one")]
        assert len(Window(Run(agent="assistant", model="n"), 800).fill(turns)) == 3

    def test_after_a_refusal_half_as_much(self) -> None:
        turns = [
            said("now"),
            replied(refused=400),
            said("x" * 600),
            replied(message("1")),
            said(""),
        ]
        assert len(fit(turns, 10_000)) == 3
        assert len(fit([replace(turns[0], gauge=gauge(refused=300)), *turns[1:]], 10_000)) == 1

    def test_a_long_output_is_cut(self) -> None:
        found = call("a"), output("a") | {"output": "x" * 50_000}
        turns = fit([said("now"), replied(*found), said("one")], 10_000)
        assert turns[1].items[1]["output"] == "x" * 5_000 + CLIPPED

    def test_it_is_known_how_full_it_is(self) -> None:
        turns = [said("x" * 1_800), replied(message("ok")), said("x" * 1_800)]
        half, full = Window(RUN, 2_100), Window(RUN, 600)
        assert (len(half.fill(turns)), len(full.fill(turns))) == (3, 1)
        assert half.share == pytest.approx(0.5, abs=0.02)
        assert not half.is_full
        assert full.is_full

    def test_a_summary_takes_room_and_comes_with_the_first_text(self) -> None:
        window = Window(RUN, 1_000)
        window.reserve(preface_of("x" * 1_800))
        turns = window.fill([said("now"), replied(message("ok")), said("x" * 1_800)])
        assert turns[0].text == "now"
        items = model_items(turns, preface_of("They met."))
        assert items == [{"role": "user", "content": SUMMARY.format(text="They met.") + "now"}]

    @given(
        st.lists(st.tuples(st.integers(0, 400), made, st.integers(0, 900)), max_size=6),
        st.integers(256, 2_000),
    )
    def test_within_the_budget_or_the_prompt_alone(
        self, spoken: list[tuple[int, Items, int]], budget: int
    ) -> None:
        turns = [said("now")]
        for asked, items, size in spoken:
            turns += [replied(*stored_items(items, "y" * size)), said("x" * asked)]
        kept = fit(turns, budget)
        given_items = model_items(kept)
        assert kept[-1].text == "now"
        assert kept[0].text is not None
        # An id that is changed grows by a character or two.
        assert len(kept) == 1 or estimate_items(given_items) <= budget + len(given_items)
        assert refusals(given_items) == []
