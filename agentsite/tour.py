"""The tour: an agent with scripted replies, which is not an AI and says so.

Only the model is replaced: the SDK's runner, tools, streaming, stop and resume are real.
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

from realtime.registry import AgentEntry
from realtime.work.run_context import RunContext

NAME = "tour"
LABEL = "Scripted, not an AI."

WELCOME = f"""{LABEL} This is a tour of the chat with replies that were written in advance. \
Nothing here understands what you write, but everything else is real: the words come over a \
WebSocket, and each of them was stored before you saw it.

Ask for one of these:

- a long reply, to press Stop in the middle, or to reload the page while it is written
- Markdown, to see how formatted text looks
- a tool, to watch one report its progress

To have a model answer instead, set `OPENAI_API_KEY`, or `OPENAI_BASE_URL` and `AGENT_MODEL`, \
and start again.
"""

MARKDOWN = f"""{LABEL} A reply may hold any Markdown.

## A list

1. Numbered entries
2. with *emphasis*, **strong words** and `code`

## A table

| what happens | what is kept |
| --- | --- |
| the page is reloaded | everything |
| the network goes away | everything |
| the server is restarted | everything that was shown |

## Some code

```python
def greet(name: str) -> str:
    return f"Hello, {{name}}."
```

> And a quotation, for good measure.
"""

_PARAGRAPHS = (
    "A reply is a row in the database before it is a word on a page. The server asks the model, "
    "gathers what comes for a few hundredths of a second, commits it, and only then shows it.",
    "So a page may leave at any time. When it comes back it says how far it had read, and is sent "
    "what came after that: not the whole reply again, and not a word twice.",
    "Press Stop and the request to the model is closed at once. What was written until then "
    "stays, and the next message goes on from there.",
    "Open this conversation in a second window and both are written at the same time. Write in "
    "one while the other waits, and the message takes its place in the queue.",
    "If the server itself is lost in the middle of a reply, the part that was shown is still "
    "there afterwards, and the page offers to continue or to begin again.",
)

LONG = (
    f"{LABEL} This reply is long on purpose. Stop it, reload it, or watch it from two windows.\n\n"
    + "\n\n".join(f"{number}. {text}" for number, text in enumerate(_PARAGRAPHS * 4, 1))
)


def tool_result(found: str) -> str:
    """Return the scripted reply that quotes `found`, the tool's result."""
    return f"{LABEL} The tool has finished and told me: {found} Its steps are shown above."


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
    """Streams replies from a script, word by word, in the events of a provider.

    Words of the last message choose the reply, or a call of the tool; the result of a tool is
    quoted. `get_response` is not supported.
    """

    is_scripted = True

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        raise NotImplementedError("the tour supports streaming only")

    async def stream_response(
        self,
        system_instructions: str | None,
        input: Any,  # noqa: A002  (the SDK's name)
        *args: Any,
        **kwargs: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        last = input[-1] if isinstance(input, list) else {"content": input}
        if last.get("type") == "function_call_output":
            events = _say(tool_result(str(last["output"])))
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
        return LONG
    if re.search(r"\b(markdown|table|code|format)\b", asked, re.IGNORECASE):
        return MARKDOWN
    return WELCOME


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
    """Return the event that adds the piece of text `delta` to the output message `item_id`."""
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
    """Return the events that end a model call whose only output is `item`, in their order."""
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
        name=NAME, instructions="Scripted.", model=TourModel(), tools=[search_library]
    ),
    description=_(
        "A guided tour of this chat: its answers are scripted and stream through the real "
        "machinery. Set a model, and your own agent answers here."
    ),
    starters=[_("Show me some Markdown"), _("Write a long reply"), _("Use a tool")],
)
