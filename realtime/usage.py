"""What a run's model calls take: as the model's server says, else estimated from their text."""

import json
from dataclasses import dataclass
from typing import Any

from agents.usage import Usage
from openai.types.responses import ResponseUsage

from conversations.models import UsageSource
from conversations.tokens import byte_count, tokens_in
from conversations.usage import NO_USAGE, TokenUsage, add_usage, subtract_usage
from realtime.conf import get_conf

LAST_EVENTS = ("response.completed", "response.incomplete", "response.failed")


@dataclass
class OpenCall:
    """A model call whose end has not been read; sizes are in bytes."""

    counted_before: int
    input_size: int
    output_size: int = 0
    is_refused: bool = False


class UsageMeter:
    """Follows the model calls of one run.

    The SDK counts what a completed call says of itself; this counts the rest: calls that were cut
    short, and those of servers that say nothing.
    """

    def __init__(self, before: TokenUsage = NO_USAGE) -> None:
        """`before` is what the run has taken before this worker took it."""
        self._open: OpenCall | None = None
        self._extra = before
        self._inherited = NO_USAGE
        self._output_size = 0

    def start(self, counted: Usage) -> None:
        """The SDK begins to count from here; it goes on from what a suspended run has kept."""
        self._inherited = measured(counted)

    def begin_call(self, counted: Usage, instructions: str | None, items: list[Any]) -> None:
        """A request is about to be sent."""
        text = (instructions or "") + json.dumps(items, default=str, ensure_ascii=False)
        self._open = OpenCall(counted.total_tokens, byte_count(text))

    def note(self, event: Any) -> None:
        """Take in a raw event of the stream."""
        if self._open is None:
            return
        self._open.is_refused = False
        if event.type in LAST_EVENTS:
            self._end_call(self._open, event)
        elif event.type.endswith(".delta") and isinstance(event.delta, str):
            self._grow(self._open, byte_count(event.delta))

    @property
    def is_over(self) -> bool:
        """Whether more was made than a reply may have."""
        return tokens_in(self._output_size) > get_conf().output_tokens

    def _grow(self, call: OpenCall, size: int) -> None:
        call.output_size += size
        self._output_size += size

    def _end_call(self, call: OpenCall, event: Any) -> None:
        said: ResponseUsage | None = event.response.usage
        if said is None or not said.total_tokens:
            self._extra = add_usage(self._extra, _estimated(call))
        elif event.type != "response.completed":
            self._extra = add_usage(self._extra, measured(said))
        self._open = None

    def note_refusal(self) -> None:
        """The request was turned away before it was answered."""
        if self._open is not None and not self._open.output_size:
            self._open.is_refused = True

    def total(self, counted: Usage | None) -> TokenUsage:
        """Of the whole run, which has ended; `counted` is the SDK's part of it."""
        total = self._extra
        if counted is not None:
            total = add_usage(total, subtract_usage(measured(counted), self._inherited))
        call, self._open = self._open, None
        if call is None or (counted and counted.total_tokens > call.counted_before):
            return total
        if not call.is_refused:
            return add_usage(total, _estimated(call))
        # Most servers take nothing for what they refuse, but none of them says so.
        return total if total.input_tokens else TokenUsage()


def _estimated(call: OpenCall) -> TokenUsage:
    return TokenUsage(
        tokens_in(call.input_size), tokens_in(call.output_size), source=UsageSource.ESTIMATED
    )


def measured(usage: Usage | ResponseUsage) -> TokenUsage:
    """What the model's server has said."""
    return TokenUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_input_tokens=usage.input_tokens_details.cached_tokens,
        reasoning_tokens=usage.output_tokens_details.reasoning_tokens,
        source=UsageSource.MEASURED,
    )
