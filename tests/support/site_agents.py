"""Agents for in-process tests, with scripted models of their own."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Model, ModelResponse
from agents.items import TResponseStreamEvent
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from agentsite.tour import end_events, text_event
from realtime.registry import AgentEntry


class EchoModel(Model):
    """Repeats the last message, word by word, `times` times."""

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        raise NotImplementedError

    async def stream_response(
        self,
        system_instructions: str | None,
        input: Any,  # noqa: A002  (the SDK's name)
        *args: Any,
        **kwargs: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        words = echo_words(input[-1]["content"])
        for word in words:
            await asyncio.sleep(0)
            yield text_event("msg_echo", word)
        for event in end_events(message("".join(words))):
            yield event


class PatientModel(EchoModel):
    """Says one word and then nothing more."""

    async def stream_response(
        self, *args: Any, **kwargs: Any
    ) -> AsyncIterator[TResponseStreamEvent]:
        yield text_event("msg_echo", "well ")
        await asyncio.Event().wait()


MODELS = {"echo": EchoModel, "patient": PatientModel}


def echo_words(asked: str) -> list[str]:
    """Return the deltas of the reply to `asked`."""
    return [f"{word}{place} " for place in range(5) for word in asked.split()]


def message(text: str) -> ResponseOutputMessage:
    return ResponseOutputMessage(
        id="msg_echo",
        content=[ResponseOutputText(text=text, type="output_text", annotations=[])],
        role="assistant",
        status="completed",
        type="message",
    )


AGENTS = [
    AgentEntry(Agent(name=name, instructions="Echo.", model=model()))
    for name, model in MODELS.items()
]
