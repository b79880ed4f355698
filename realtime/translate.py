"""From the SDK's stream events to events of the journal."""

from collections.abc import Iterator
from typing import Any

from agents import AgentUpdatedStreamEvent, RawResponsesStreamEvent, StreamEvent

from conversations.parts import SEPARATOR
from conversations.text import clean_text

Translated = tuple[str, dict[str, Any]]

TEXT_DELTAS = ("response.output_text.delta", "response.refusal.delta")
REASONING_DELTAS = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")


class Translator:
    """Pure: no clock, no database. `open_text` is the text of the model call under way.

    `has_text` when text was shown before, by a run that goes on.
    """

    def __init__(self, agent: str, *, has_text: bool = False) -> None:
        self._agent = agent
        self._has_text = has_text
        self._new_part = False
        self.open_text = ""

    def translate(self, event: StreamEvent) -> Iterator[Translated]:
        """The journal's events for one of the SDK's; most have none."""
        if isinstance(event, RawResponsesStreamEvent):
            yield from self._raw(event.data)
        elif isinstance(event, AgentUpdatedStreamEvent):
            yield from self._agent_changed(event.new_agent.name)

    def _raw(self, data: Any) -> Iterator[Translated]:
        if data.type in TEXT_DELTAS:
            yield from self._text(clean_text(data.delta))
        elif data.type in REASONING_DELTAS:
            yield from self._reasoning(clean_text(data.delta))
        elif data.type == "response.content_part.added":
            self._new_part = True
        elif data.type == "response.completed":
            # Only now the SDK makes an item of the text; one that failed or was cut has none.
            self.open_text = ""

    def _text(self, delta: str) -> Iterator[Translated]:
        if not delta:
            return
        separator = SEPARATOR if self._new_part and self._has_text else ""
        self._new_part, self._has_text = False, True
        self.open_text += delta
        yield "token", {"delta": separator + delta}

    def _reasoning(self, delta: str) -> Iterator[Translated]:
        if delta:
            self._new_part = True
            yield "reasoning.delta", {"delta": delta}

    def _agent_changed(self, name: str) -> Iterator[Translated]:
        if name != self._agent:
            self._agent = name
            yield "agent.changed", {"name": name}
