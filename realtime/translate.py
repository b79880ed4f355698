"""From the SDK's stream events to events of the journal."""

from collections.abc import Iterator
from typing import Any

from agents import Agent, AgentUpdatedStreamEvent, RawResponsesStreamEvent, StreamEvent

from conversations.parts import SEPARATOR
from conversations.text import clean_text

Translated = tuple[str, dict[str, Any]]

TEXT_DELTAS = ("response.output_text.delta", "response.refusal.delta")
FENCE, FENCE_END = "```json\n", "\n```"
"""Around structured output, so that people can read it."""
JSON_STARTS = ("{", "[", '"')
"""Of structured output that the model has not set apart itself."""

REASONING_DELTAS = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")


class Translator:
    """Pure: no clock, no database. `open_text` is text that no finished item holds.

    `has_text` when text was shown before, by a run that goes on.
    """

    def __init__(self, agent: str, *, has_text: bool = False) -> None:
        self._agent = agent
        self._has_text = has_text
        self._new_part = False
        self._is_structured = False
        self._is_fenced = False
        self._is_open = False
        self._done_text = ""
        self._call_text = ""
        self.open_text = ""

    def translate(self, event: StreamEvent) -> Iterator[Translated]:
        """The journal's events for one of the SDK's; most have none."""
        if isinstance(event, RawResponsesStreamEvent):
            yield from self._raw(event.data)
        elif isinstance(event, AgentUpdatedStreamEvent):
            yield from self._agent_changed(event.new_agent)

    def _raw(self, data: Any) -> Iterator[Translated]:
        if data.type in TEXT_DELTAS:
            yield from self._text(clean_text(data.delta))
        elif data.type in REASONING_DELTAS:
            yield from self._reasoning(clean_text(data.delta))
        elif data.type == "response.content_part.added":
            self._new_part = True
        elif data.type == "response.content_part.done":
            yield from self._end_fence()
        elif data.type == "response.output_item.done":
            self._done_text += _text_of(data.item)
        elif data.type == "response.completed":
            yield from self._complete(getattr(data, "response", None))

    def _complete(self, response: Any) -> Iterator[Translated]:
        """The end of a model call; with what its items say and no delta has said."""
        whole = "".join(map(_text_of, getattr(response, "output", None) or ())) or self._done_text
        if whole.startswith(self.open_text):
            self._new_part |= not self.open_text
            yield from self._text(whole[len(self.open_text) :])
        yield from self._end_fence()
        # Only now the SDK makes an item of the text; one that failed or was cut has none.
        self._call_text, self.open_text, self._done_text = self.open_text, "", ""

    def reopen(self) -> None:
        """The SDK has made no item of the latest call, which was a refusal."""
        self.open_text = self._call_text

    def finish(self, text: str) -> Iterator[Translated]:
        """The answer of a run that no model call has written: the output of a tool."""
        self._new_part = True
        self._is_structured = False
        yield from self._text(clean_text(text))

    def _text(self, delta: str) -> Iterator[Translated]:
        if not delta:
            return
        before = SEPARATOR if self._new_part and self._has_text else ""
        if self._is_structured and not self._is_open and delta.lstrip()[:1] in JSON_STARTS:
            self._is_fenced = True
            before += FENCE
        self._new_part, self._has_text, self._is_open = False, True, True
        self.open_text += delta
        yield "token", {"delta": before + delta}

    def _end_fence(self) -> Iterator[Translated]:
        self._is_open = False
        if self._is_fenced:
            self._is_fenced = False
            yield "token", {"delta": FENCE_END}

    def _reasoning(self, delta: str) -> Iterator[Translated]:
        if delta:
            self._new_part = True
            yield "reasoning.delta", {"delta": delta}

    def _agent_changed(self, agent: Agent[Any]) -> Iterator[Translated]:
        self._is_structured = agent.output_type not in (None, str)
        if agent.name != self._agent:
            self._agent = agent.name
            self._new_part = True
            yield "agent.changed", {"name": agent.name}


def _text_of(item: Any) -> str:
    """The text and the refusals of a message; empty for any other item."""
    if getattr(item, "type", "") != "message":
        return ""
    parts = getattr(item, "content", None) or ()
    said = (getattr(part, "text", None) or getattr(part, "refusal", None) or "" for part in parts)
    return clean_text("".join(said))
