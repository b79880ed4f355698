"""The SDK's events become the journal's."""

from types import SimpleNamespace
from typing import Any

from agents import Agent, AgentUpdatedStreamEvent, RawResponsesStreamEvent

from realtime.work.sdk import Translator


def raw(kind: str, **fields: Any) -> RawResponsesStreamEvent:
    return RawResponsesStreamEvent(data=SimpleNamespace(type=kind, **fields))  # type: ignore[arg-type]


def translate(translator: Translator, *events: Any) -> list[Any]:
    return [found for event in events for found in translator.translate(event)]


def text(delta: str) -> RawResponsesStreamEvent:
    return raw("response.output_text.delta", delta=delta)


def test_a_new_part_of_text_is_set_apart() -> None:
    part = raw("response.content_part.added")
    found = translate(Translator("a"), part, text("one"), part, text("two"), text(" more"))
    assert [payload["delta"] for _, payload in found] == ["one", "\n\ntwo", " more"]


def test_text_after_reasoning_is_set_apart_from_text_before() -> None:
    think = raw("response.reasoning_text.delta", delta="hm")
    found = translate(Translator("a"), think, text("one"), think, text("two"))
    assert [(kind, payload["delta"]) for kind, payload in found] == [
        ("reasoning.delta", "hm"),
        ("token", "one"),
        ("reasoning.delta", "hm"),
        ("token", "\n\ntwo"),
    ]


def test_what_cannot_be_stored_is_replaced() -> None:
    (found,) = translate(Translator("a"), text("a\x00b\udfff"))
    assert found == ("token", {"delta": "a\ufffdb\ufffd"})


def test_open_text_is_that_of_the_call_under_way() -> None:
    translator = Translator("a")
    translate(translator, text("done"), raw("response.completed"), text("half"))
    assert translator.open_text == "half"


def test_only_another_agent_is_a_change() -> None:
    events = [AgentUpdatedStreamEvent(new_agent=Agent(name=name)) for name in ("a", "b")]
    assert translate(Translator("a"), *events) == [("agent.changed", {"name": "b"})]
