"""The tour: scripted replies on the real machinery. It is not an AI, and says so.

Everything but the model is real: the SDK's runner, its tools, streaming, stop and resume.
"""

import asyncio
import json
import re
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Model, ModelResponse, function_tool
from agents.items import TResponseStreamEvent
from agents.tool_context import ToolContext
from django.utils.translation import gettext_lazy as _
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseContentPartAddedEvent,
    ResponseFunctionToolCall,
    ResponseOutputItem,
    ResponseOutputItemDoneEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
)

from agentsite import tour_texts
from realtime.registry import AgentEntry
from realtime.run_context import RunContext

WORD_PAUSE_S = 0.03
TOOL_PAUSE_S = 0.4
SHELVES = ("history", "geography", "poetry", "science", "cooking")


@function_tool
async def search_library(context: ToolContext[RunContext], subject: str) -> str:
    """Look through the shelves of a library that does not exist."""
    for place, shelf in enumerate(SHELVES, 1):
        context.context.progress(context, f"Looking at {shelf}", place / len(SHELVES))
        await asyncio.sleep(TOOL_PAUSE_S)
    context.context.summarise(context, f"Searched {len(SHELVES)} shelves")
    return f"{len(SHELVES)} shelves were searched for “{subject}”."


class TourModel(Model):
    """Answers from a script, one word at a time, as a provider's stream would."""

    is_scripted = True

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        raise NotImplementedError("the tour only streams")

    async def stream_response(
        self,
        system_instructions: str | None,
        input: Any,  # noqa: A002  (the SDK's name)
        *args: Any,
        **kwargs: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        last = input[-1] if isinstance(input, list) else {"content": input}
        if last.get("type") == "function_call_output":
            events = _say(tour_texts.tool_result(str(last["output"])))
        elif re.search(r"\b(tool|search|library)\b", _text(last), re.IGNORECASE):
            events = _call_tool(_text(last))
        else:
            events = _say(_choose(_text(last)))
        async for event in events:
            yield event


def _text(item: dict[str, Any]) -> str:
    content = item.get("content", "")
    return content if isinstance(content, str) else ""


def _choose(asked: str) -> str:
    if re.search(r"\b(long|story|stop)\b", asked, re.IGNORECASE):
        return tour_texts.LONG
    if re.search(r"\b(markdown|table|code|format)\b", asked, re.IGNORECASE):
        return tour_texts.MARKDOWN
    return tour_texts.WELCOME


async def _say(text: str) -> AsyncIterator[TResponseStreamEvent]:
    item_id = f"msg_{uuid.uuid4().hex}"
    part = ResponseOutputText(text="", type="output_text", annotations=[])
    yield ResponseContentPartAddedEvent(
        item_id=item_id,
        output_index=0,
        content_index=0,
        part=part,
        sequence_number=0,
        type="response.content_part.added",
    )
    for word in re.findall(r"\S+\s*", text):
        await asyncio.sleep(WORD_PAUSE_S)
        yield text_event(item_id, word)
    message = ResponseOutputMessage(
        id=item_id,
        content=[ResponseOutputText(text=text, type="output_text", annotations=[])],
        role="assistant",
        status="completed",
        type="message",
    )
    for event in end_events(message):
        yield event


def text_event(item_id: str, delta: str) -> TResponseStreamEvent:
    """A piece of the text of the message `item_id`."""
    return ResponseTextDeltaEvent(
        item_id=item_id,
        output_index=0,
        content_index=0,
        delta=delta,
        logprobs=[],
        sequence_number=0,
        type="response.output_text.delta",
    )


async def _call_tool(subject: str) -> AsyncIterator[TResponseStreamEvent]:
    call = ResponseFunctionToolCall(
        call_id=f"call_{uuid.uuid4().hex}",
        name=search_library.name,
        arguments=_arguments(subject),
        type="function_call",
    )
    for event in end_events(call):
        yield event


def _arguments(subject: str) -> str:
    return json.dumps({"subject": subject[:80]})


def end_events(item: ResponseOutputItem) -> list[TResponseStreamEvent]:
    """The events that end a model call whose output is `item`."""
    response = Response(
        id=f"resp_{uuid.uuid4().hex}",
        created_at=time.time(),
        model="tour",
        object="response",
        output=[item],
        parallel_tool_calls=False,
        tool_choice="auto",
        tools=[],
    )
    return [
        ResponseOutputItemDoneEvent(
            item=item, output_index=0, sequence_number=0, type="response.output_item.done"
        ),
        ResponseCompletedEvent(response=response, sequence_number=0, type="response.completed"),
    ]


ENTRY = AgentEntry(
    Agent[RunContext](
        name=tour_texts.NAME, instructions="Scripted.", model=TourModel(), tools=[search_library]
    ),
    description=_(
        "A guided tour of this chat: its answers are scripted and stream through the real "
        "machinery. Set a model, and your own agent answers here."
    ),
    starters=[_("Show me some Markdown"), _("Write a long reply"), _("Use a tool")],
)
