"""Replies arrive whole and in order, in both of the model's APIs."""

from typing import Any

import pytest

from tests.support.client import ChatClient, event
from tests.support.kept import converge
from tests.support.provider import Provider, Reply, ToolCall, words
from tests.support.site import Site

FAMILY = "👨‍👩‍👧‍👦"
HARD_TEXT = [
    *("Größe ", "日本", "語。\n", "\u2028", "שלום ", "e", "\u0301", *FAMILY),
    *('"\\n" ', "data: ", "\r\n\r\n", " <script>", "\n\n[DONE]"),
]


def usage_of(end: dict[str, Any]) -> tuple[str, dict[str, int]]:
    return end["metadata"]["usage_source"], end["metadata"]["usage"]


async def ask(client: ChatClient, content: str, session_id: str = "") -> dict[str, Any]:
    """A chat, its end awaited and followed by a resume, which shows all of the session."""
    accepted = await client.chat(content, session_id)
    await client.resume(accepted["session_id"])
    end = await client.wait_end(accepted["run_id"])
    return {**accepted, "end": end}


@pytest.mark.parametrize("piece_bytes", [None, 1, 7])
async def test_any_text_arrives_whole(
    either_site: Site, provider: Provider, piece_bytes: int | None
) -> None:
    ann = either_site.users["ann"]
    reply = Reply(HARD_TEXT, piece_bytes=piece_bytes, input_tokens=21, cached_tokens=8)
    provider.queue(reply)
    async with either_site.chat(ann) as client:
        asked = await ask(client, f"Was heißt {FAMILY}?")
        kept = await converge(either_site, ann, asked["session_id"], client)
    assert asked["end"]["content"] == reply.text
    assert kept.prompts == [f"Was heißt {FAMILY}?"]
    assert provider.wait_call().prompt == f"Was heißt {FAMILY}?"
    assert usage_of(asked["end"]) == (
        "measured",
        {
            "input_tokens": 21,
            "output_tokens": len(HARD_TEXT),
            "total_tokens": 21 + len(HARD_TEXT),
            "cached_input_tokens": 8,
            "reasoning_tokens": 0,
        },
    )


async def test_tools_run_between_two_texts(either_site: Site, provider: Provider) -> None:
    ann = either_site.users["ann"]
    calls = [ToolCall("look_up", '{"word": "Größe"}'), ToolCall("look_up", '{"word": "mill"}')]
    provider.queue(Reply(["Let me ", "look."], tool_calls=calls), Reply(["Both ", "found."]))
    async with either_site.chat(ann) as client:
        asked = await ask(client, "Look twice")
        kept = await converge(either_site, ann, asked["session_id"], client)
        # The strict stand-in takes the history with its tool calls.
        again = await ask(client, "And again", asked["session_id"])
        await converge(either_site, ann, asked["session_id"], client)
    assert asked["end"]["content"] == "Let me look.\n\nBoth found."
    assert again["end"]["content"] == "You said: And again"
    assert [call.refusal for call in provider.calls] == ["", "", ""]
    assert usage_of(asked["end"])[0] == "measured"
    assert usage_of(asked["end"])[1]["output_tokens"] == 6
    run = client.transcript.runs[asked["run_id"]]
    for name in ("tool.started", "tool.progress", "tool.finished"):
        assert len([f for f in run.events if event(name)(f)]) == 2, name
    tools = [part for part in kept.reply(run.run_id)["parts"] if part["type"] == "tool"]
    assert [part["output"] for part in tools] == ["“Größe” was found.", "“mill” was found."]


async def test_reasoning_is_told_apart_from_the_answer(
    either_site: Site, provider: Provider
) -> None:
    ann = either_site.users["ann"]
    provider.queue(Reply(["Four."], reasoning=["Two and ", "two."]))
    async with either_site.chat(ann) as client:
        asked = await ask(client, "2 + 2?")
        kept = await converge(either_site, ann, asked["session_id"], client)
        await ask(client, "Sure?", asked["session_id"])
    assert asked["end"]["content"] == "Four."
    assert usage_of(asked["end"])[1]["reasoning_tokens"] == 2
    shown = [(part["type"], part["text"]) for part in kept.reply(asked["run_id"])["parts"]]
    assert shown == [("reasoning", "Two and two."), ("text", "Four.")]
    assert [call.refusal for call in provider.calls] == ["", ""]


async def test_ten_thousand_tiny_deltas_are_few_frames(
    either_site: Site, provider: Provider
) -> None:
    ann = either_site.users["ann"]
    reply = Reply(words(10_000))
    provider.queue(reply)
    async with either_site.chat(ann) as client:
        asked = await ask(client, "Much, please")
        await converge(either_site, ann, asked["session_id"], client)
    assert asked["end"]["content"] == reply.text
    assert len([frame for frame in client.frames if frame["type"] == "token"]) < 500
