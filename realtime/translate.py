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

REASONING_DELTAS = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")


class Translator:
    """Pure: no clock, no database. `open_text` is the text of the model call under way.

    `has_text` when text was shown before, by a run that goes on.
    """

    def __init__(self, agent: str, *, has_text: bool = False) -> None:
        self._agent = agent
        self._has_text = has_text
        self._new_part = False
        self._is_structured = False
        self._is_fenced = False
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
        elif data.type == "response.completed":
            yield from self._end_fence()
            # Only now the SDK makes an item of the text; one that failed or was cut has none.
            self.open_text = ""

    def _text(self, delta: str) -> Iterator[Translated]:
        if not delta:
            return
        before = SEPARATOR if self._new_part and self._has_text else ""
        if self._is_structured and not self._is_fenced:
            self._is_fenced = True
            before += FENCE
        self._new_part, self._has_text = False, True
        self.open_text += delta
        yield "token", {"delta": before + delta}

    def _end_fence(self) -> Iterator[Translated]:
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
