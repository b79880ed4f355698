"""The usage of a run's model calls: as the server reports it, else estimated from their text."""

import math
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from typing import Any

from agents.usage import Usage
from openai.types.responses import ResponseUsage

from conversations.models import UsageSource
from conversations.runs.usage import (
    NO_USAGE,
    TOKEN_COLUMNS,
    TokenUsage,
    add_usage,
    price,
    subtract_usage,
    sum_costs,
)
from conversations.text import estimate_item, estimate_text
from realtime.conf import get_conf

MAX_COUNT = 2**31 - 1
"""The largest count of tokens that every database can hold."""

LAST_EVENTS = ("response.completed", "response.incomplete", "response.failed")


@dataclass
class OpenCall:
    """A model call whose end has not been read; `output` estimates its output tokens so far.

    `counted_before` is the SDK's count of the run's tokens before the call. `is_refused` is whether
    the server's latest answer to it was a refusal. `instructions` and
    `items` are what was sent. They are measured only if the usage must be estimated, as that takes
    a pass over the whole context; most servers report usage.
    """

    counted_before: int
    instructions: str
    items: list[Any]
    model: str
    output: float = 0.0
    is_refused: bool = False


class InputEstimates:
    """Estimates the inputs of a run's calls.

    A beginning that two successive inputs share is estimated once. Items must not be changed after
    they were estimated.
    """

    def __init__(self) -> None:
        self._known: list[tuple[Any, float]] = []

    def estimate(self, items: list[Any]) -> float:
        """Return the estimated tokens of `items`, not rounded."""
        same = 0
        for item, (known, _) in zip(items, self._known, strict=False):
            if item != known:
                break
            same += 1
        self._known = self._known[:same] + [(item, estimate_item(item)) for item in items[same:]]
        return sum(tokens for _, tokens in self._known)


class UsageMeter:
    """Counts the tokens of one run, separately for each model that was asked.

    The SDK counts what completed calls report, in one sum for the run; `counted` is that sum
    wherever it is passed. The meter attributes each increase to a model. It also counts what the
    SDK leaves out: calls that were cut short, and those of servers that report nothing, which are
    estimated.
    """

    def __init__(
        self, before: TokenUsage = NO_USAGE, cost: Decimal | None = Decimal(0), model: str = ""
    ) -> None:
        """`before` and its `cost` are what a resumed run took before; `model` is its row's."""
        self.model = model
        self._before = before
        self._cost_before = cost
        self._by_model: dict[str | None, TokenUsage] = {}
        self._counted = NO_USAGE
        self._asked: str | None = None
        self._nested: dict[str, frozenset[str]] = {}
        self._open: OpenCall | None = None
        self._output = 0.0
        self._inputs = InputEstimates()

    def start(self, counted: Usage) -> None:
        """Note the SDK's count at the start; only what comes on top of it is added.

        A resumed run starts with the count of its saved state.
        """
        self._counted = measured(counted)

    def spent(self, counted: Usage) -> TokenUsage:
        """Return the usage of all ended calls of the run; calls before a resumption are included.

        A call that is open is not. `cost` can be called with the result.
        """
        self._attribute(counted)
        return self._sum()

    def begin_call(
        self, counted: Usage, model: str, instructions: str | None, items: list[Any]
    ) -> None:
        """Open a call: note that `instructions` and `items` are about to be sent to `model`."""
        self._attribute(counted)
        self.model = self._asked = model
        self._open = OpenCall(counted.total_tokens, instructions or "", list(items), model)

    def end_call(self, counted: Usage) -> None:
        """Note that the call of `begin_call` has completed, and that `counted` includes it."""
        self._attribute(counted)
        self._asked = None

    def begin_nested(self, counted: Usage, call_id: str, models: frozenset[str]) -> None:
        """Note the start of the tool call `call_id`, whose tool is an agent.

        The SDK adds that agent's model calls, to any of `models`, to the same sum.
        """
        self._attribute(counted)
        self._nested[call_id] = models

    def end_nested(self, counted: Usage, call_id: str) -> None:
        """Note the end of a tool call noted by `begin_nested`; does nothing for any other call."""
        if call_id in self._nested:
            self._attribute(counted)
            del self._nested[call_id]

    def note(self, event: Any) -> None:
        """Count the output in a raw event of the open call; the last event ends the call.

        Does nothing if no call is open.
        """
        if self._open is None:
            return
        self._open.is_refused = False
        if event.type in LAST_EVENTS:
            self._end_call(self._open, event)
        elif event.type.endswith(".delta") and isinstance(event.delta, str):
            self._grow(self._open, estimate_text(event.delta))

    @property
    def is_over(self) -> bool:
        """Whether the run's output exceeds `output_tokens`, by our estimate.

        Output before a resumption is not counted, nor that of agents that are tools.
        """
        return self._output > get_conf().output_tokens

    def note_refusal(self) -> None:
        """Note that the server has refused the open call, until its next event.

        Does nothing if no call is open, or if output of it has come.
        """
        if self._open is not None and not self._open.output:
            self._open.is_refused = True

    def total(self, counted: Usage | None) -> TokenUsage:
        """Return the usage of the run when work on it ends.

        `counted` is None if the SDK has not begun. A call that is open was cut short: it is ended
        and estimated, unless it is in `counted`. One that was refused is not counted, but if no
        other call was, the usage is unknown.
        """
        if counted is not None:
            self._attribute(counted)
        call = self._open
        is_counted = call is not None and counted and counted.total_tokens > call.counted_before
        if call is not None and call.is_refused and not is_counted:
            # Most servers charge nothing for a refused call, but none says so: if no other call was
            # counted, the usage is unknown. The call stays open, for another call of this method.
            total = self._sum()
            return total if total.input_tokens else TokenUsage()
        self._open = None
        if call is not None and not is_counted:
            self._add(call.model, self._estimate(call))
        return self._sum()

    def cost(self, total: TokenUsage) -> Decimal | None:
        """Return the run's cost, each model's tokens at its price; None if it is not known.

        The cost before a resumption is included. Call it right after `total` or `spent`, with the
        result of that.
        """
        if total.input_tokens is None:
            return None
        costs = (price(usage, model or "") for model, usage in self._by_model.items())
        return sum_costs([self._cost_before, *costs])

    def _attribute(self, counted: Usage) -> None:
        """Add the SDK's increase to the model that made it; to None if several could have."""
        now = measured(counted)
        added, self._counted = subtract_usage(now, self._counted), now
        if not added.input_tokens and not added.output_tokens:
            return
        nested = frozenset().union(*self._nested.values())
        model = next(iter(nested)) if len(nested) == 1 else None
        self._add(self._asked or model, added)

    def _add(self, model: str | None, usage: TokenUsage) -> None:
        self._by_model[model] = add_usage(self._by_model.get(model, NO_USAGE), usage)

    def _sum(self) -> TokenUsage:
        total = reduce(add_usage, self._by_model.values(), self._before)
        counts: dict[str, Any] = {n: _bounded(getattr(total, n)) for n in TOKEN_COLUMNS}
        return TokenUsage(**counts, source=total.source)

    def _grow(self, call: OpenCall, tokens: float) -> None:
        call.output += tokens
        self._output += tokens

    def _end_call(self, call: OpenCall, event: Any) -> None:
        said: ResponseUsage | None = event.response.usage
        if said is None or not said.total_tokens:
            self._add(call.model, self._estimate(call))
        elif event.type != "response.completed":
            self._add(call.model, measured(said))
        self._open = None

    def _estimate(self, call: OpenCall) -> TokenUsage:
        given = estimate_text(call.instructions) + self._inputs.estimate(call.items)
        return TokenUsage(math.ceil(given), math.ceil(call.output), source=UsageSource.ESTIMATED)


def measured(usage: Usage | ResponseUsage) -> TokenUsage:
    """Return a usage that a model's server has reported, its counts limited to a column's range.

    A missing count is 0.
    """
    given, made = usage.input_tokens_details, usage.output_tokens_details
    return TokenUsage(
        input_tokens=_bounded(usage.input_tokens),
        output_tokens=_bounded(usage.output_tokens),
        cached_input_tokens=_bounded(given.cached_tokens),
        reasoning_tokens=_bounded(made.reasoning_tokens),
        source=UsageSource.MEASURED,
    )


def _bounded(count: float | None) -> int:
    """Limit a count: models of an agent's own are not read through the normaliser."""
    return int(min(max(count or 0, 0), MAX_COUNT))
