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
    """A model call whose end has not been read; sizes are in bytes.

    How long its input is takes a pass over the whole context, and is found out only for an
    estimate: most servers say what a call took.
    """

    counted_before: int
    instructions: str
    items: list[Any]
    output_size: int = 0
    is_refused: bool = False


class InputSizes:
    """Sizes of inputs that each go on from the one before: only new items are encoded."""

    def __init__(self) -> None:
        self._known: list[tuple[Any, int]] = []

    def measure(self, items: list[Any]) -> int:
        """The size of `items` as one JSON list, in bytes."""
        same = 0
        for item, (known, _) in zip(items, self._known, strict=False):
            if item != known:
                break
            same += 1
        new = [(item, _encoded_size(item)) for item in items[same:]]
        self._known = self._known[:same] + new
        return 2 * max(1, len(items)) + sum(size for _, size in self._known)


def _encoded_size(item: Any) -> int:
    return byte_count(json.dumps(item, default=str, ensure_ascii=False))


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
        self._sizes = InputSizes()

    def start(self, counted: Usage) -> None:
        """The SDK begins to count from here; it goes on from what a suspended run has kept."""
        self._inherited = measured(counted)

    def begin_call(self, counted: Usage, instructions: str | None, items: list[Any]) -> None:
        """A request is about to be sent."""
        self._open = OpenCall(counted.total_tokens, instructions or "", list(items))

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
            self._extra = add_usage(self._extra, self._estimate(call))
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
            return add_usage(total, self._estimate(call))
        # Most servers take nothing for what they refuse, but none of them says so.
        return total if total.input_tokens else TokenUsage()

    def _estimate(self, call: OpenCall) -> TokenUsage:
        given = byte_count(call.instructions) + self._sizes.measure(call.items)
        return TokenUsage(
            tokens_in(given), tokens_in(call.output_size), source=UsageSource.ESTIMATED
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
