"""Model calls that send input in an accepted form, and retry with less after a refusal."""

import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, cast
from weakref import WeakSet

import openai
from agents import (
    ModelBehaviorError,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
)
from agents.models.reasoning_content_replay import ReasoningContentReplayContext

from conversations.errors import ErrorCode
from conversations.runs.inputs import CALL, REASONING, Item, mend
from conversations.text import estimate_items
from realtime.providers.call_items import (
    as_message,
    flatten,
    flatten_earlier,
    halve,
    last_alone,
    settle,
    with_thoughts,
    without_thoughts,
)
from realtime.providers.endings import StreamEnding, stream_ending
from realtime.providers.mending import is_deep, plain_arguments
from realtime.work.run_errors import run_error, words_of

logger = logging.getLogger(__name__)

UNKNOWN_REFUSALS = (400, 413, 422)
"""Status codes with which servers refuse an input; it may be too long, in words that we do not
know.
"""

_USAGE = re.compile(r"stream[_ ]options|include_usage", re.IGNORECASE)
_without_usage: WeakSet[openai.AsyncOpenAI] = WeakSet()
"""Clients of servers that refuse to report the usage of a stream."""


Cut = Callable[[list[Item]], list[Item] | None]


def _halve_in_words(items: list[Item]) -> list[Item] | None:
    shorter = halve(items)
    return None if shorter is None else flatten_earlier(shorter)


GUESSES: tuple[Cut, ...] = (_halve_in_words, last_alone)


@dataclass
class Shortening:
    """What a run's model has refused as too long.

    `refused` is our estimate, in tokens, of the smallest such input; None if it has refused none.
    """

    refused: int | None = None


shortening: ContextVar[Shortening | None] = ContextVar("shortening", default=None)
"""The shortening of the current run; its model calls write to it."""


async def checked(
    events: AsyncIterator[Any], names: Collection[str] = ()
) -> AsyncGenerator[Any, None]:
    """Yield `events`; raise `ModelBehaviorError` for what the SDK cannot read in them.

    Such a fault is the model server's and not ours. A fault before the answer began is one of the
    request, and is raised unchanged. `names` are those of the tools: a call whose name has
    something around one of them, as some servers put it, gets the plain name. What is around its
    arguments is removed too (`plain_arguments`).
    """
    ending = stream_ending.get() or StreamEnding()
    before = ending.answers
    try:
        async with aclosing(cast(AsyncGenerator[Any, None], events)) as read:
            async for event in read:
                if not isinstance(getattr(event, "type", None), str):
                    raise ModelBehaviorError("received an event of another API")
                for call in _calls_of(event):
                    if is_deep(call.arguments):
                        raise ModelBehaviorError("tool arguments are nested too deeply")
                    call.name = _known_name(call.name, names)
                    call.arguments = plain_arguments(call.arguments)
                yield event
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as exc:
        if ending.answers == before:
            raise
        raise ModelBehaviorError("the response cannot be parsed") from exc


def _calls_of(event: Any) -> list[Any]:
    """Return the complete tool calls that an event holds."""
    response = getattr(event, "response", None)
    items = [getattr(event, "item", None), *(getattr(response, "output", None) or ())]
    return [item for item in items if getattr(item, "type", "") == CALL]


def _known_name(name: str, names: Collection[str]) -> str:
    """Return the tool that is meant: some models say `functions.clock:0` or `default_api.clock`."""
    if name in names:
        return name
    plain = name.strip().rpartition(".")[2].partition(":")[0]
    return plain if plain in names else name


class _Shortened:
    """Sends input in the strictest form, and a shorter one after a refusal."""

    model: Any

    async def stream_response(
        self,
        system_instructions: str | None,
        input: Any,  # noqa: A002  (the SDK's name)
        model_settings: ModelSettings,
        tools: list[Any],
        output_schema: Any,
        handoffs: list[Any],
        tracing: Any,
        previous_response_id: str | None = None,
        conversation_id: str | None = None,
        prompt: Any = None,
    ) -> AsyncIterator[Any]:
        """Yield the events of the SDK's own method, for the first input that is not refused.

        Raises the server's error if it came after an event, or if `Attempts.change` finds no other
        input to try.
        """
        attempts = Attempts(self, input, can_call=bool(tools or handoffs))
        names = {tool.name for tool in tools} | {handoff.tool_name for handoff in handoffs}
        while True:
            raw = super().stream_response(  # type: ignore[misc]
                system_instructions,
                attempts.input,
                self.settle_settings(model_settings),
                tools,
                output_schema,
                handoffs,
                tracing,
                previous_response_id=previous_response_id,
                conversation_id=conversation_id,
                prompt=prompt,
            )
            has_begun = False
            try:
                async with aclosing(checked(raw, names)) as events:
                    async for event in events:
                        if not has_begun:
                            has_begun = True
                            attempts.note_taken()
                        yield event
                return
            except openai.APIError as exc:
                if has_begun or not (self.learn(exc) or attempts.change(exc)):
                    raise

    def settle_settings(self, settings: ModelSettings) -> ModelSettings:
        """Return `settings` without what `learn` has found the server to refuse.

        `settings` itself is not changed. For subclasses to override: this one leaves nothing out.
        """
        return settings

    def learn(self, exc: openai.APIError) -> bool:
        """Learn from a refusal what `settle_settings` must leave out; return whether that is new.

        For subclasses to override: this one learns nothing, and returns False.
        """
        return False

    def shape(self, items: list[Item]) -> list[Item]:
        """Return settled items in the form that suits this API of the SDK best.

        Subclasses must override it.
        """
        raise NotImplementedError


class ChatModel(_Shortened, OpenAIChatCompletionsModel):
    """Chat Completions; sends the model's own reasoning back with calls, as some servers demand."""

    def __init__(self, model: str, openai_client: openai.AsyncOpenAI) -> None:
        super().__init__(model, openai_client, should_replay_reasoning_content=_is_own)

    def settle_settings(self, settings: ModelSettings) -> ModelSettings:
        if self._get_client() not in _without_usage:
            return settings
        return replace(settings, include_usage=None)

    def learn(self, exc: openai.APIError) -> bool:
        client = self._get_client()
        named = _is_input_refused(exc) and _USAGE.search(words_of(exc))
        if not named or client in _without_usage:
            return False
        logger.warning("the model server rejects stream_options: usage is estimated from now on")
        _without_usage.add(client)
        return True

    def shape(self, items: list[Item]) -> list[Item]:
        own = (item.get("provider_data") or {} for item in items if item.get("type") == REASONING)
        if any(data.get("model") == self.model for data in own):
            items = with_thoughts(items, self.model)
        return [as_message(item) for item in items]


class ResponsesModel(_Shortened, OpenAIResponsesModel):
    """The Responses API; leaves out reasoning that came by Chat Completions, which it refuses."""

    def shape(self, items: list[Item]) -> list[Item]:
        return [i for i in items if i.get("type") != REASONING or "provider_data" not in i]


def _is_own(context: ReasoningContentReplayContext) -> bool:
    return context.reasoning.origin_model == context.model


def _is_input_refused(exc: openai.APIError) -> bool:
    return isinstance(exc, openai.APIStatusError) and exc.status_code in UNKNOWN_REFUSALS


class Attempts:
    """The inputs tried in one call: `input` is the present one, `change` makes the next."""

    def __init__(self, model: _Shortened, given: Any, *, can_call: bool) -> None:
        self._model = model
        self._note = shortening.get() or Shortening()
        self._thinks: bool | None = None
        self._guesses = iter(GUESSES)
        self._guessed: int | None = None
        self._items: list[Item] = []
        self.input: Any = given
        if not isinstance(given, str):
            items = mend(given)
            self._items = self._fit(items if can_call else flatten(items))
            self.input = self._shape()

    def _fit(self, items: list[Item]) -> list[Item]:
        """Return less than what the model has refused in this run."""
        limit = self._note.refused
        while limit is not None and round(estimate_items(items)) >= limit:
            shorter = halve(items)
            if shorter is None:
                break
            items = shorter
        return items

    def _shape(self) -> list[Item]:
        items = settle(self._items)
        if self._thinks is not None:
            items = without_thoughts(items)
        return self._model.shape(with_thoughts(items, self._model.model) if self._thinks else items)

    def change(self, exc: openai.APIError) -> bool:
        """Change `input` after the refusal `exc`, and return True.

        Returns False, with the same `input`, if the error is about something else, or if nothing
        else can be tried.
        """
        code = run_error(exc, has_text=False).code
        if not self._items:
            return False
        if code == ErrorCode.CONTEXT_TOO_LONG:
            self._note_refused(self._weight)
            return self._shorten(halve)
        if code != ErrorCode.PROVIDER_REFUSED or not _is_input_refused(exc):
            return False
        if "reasoning_content" in words_of(exc) and self._thinks is None:
            return self._turn_thoughts()
        return self._guess()

    @property
    def _weight(self) -> int:
        return round(estimate_items(self._items))

    def note_taken(self) -> None:
        """Note that the server has accepted `input`.

        If a guess has shortened it, the input before that guess counts as refused for being too
        long.
        """
        if self._guessed is not None:
            self._note_refused(self._guessed)

    def _note_refused(self, weight: int) -> None:
        self._note.refused = min(weight, self._note.refused or weight)

    def _shorten(self, cut: Cut) -> bool:
        shorter = cut(self._items)
        if shorter is None:
            return False
        logger.warning(
            "the model server rejected about %d input tokens: retrying with fewer", self._weight
        )
        self._items = shorter
        self.input = self._shape()
        return True

    def _guess(self) -> bool:
        """Try each guess once: an unknown message may mean the length, or earlier turns' calls."""
        self._guessed = self._weight
        return any(self._shorten(cut) for cut in self._guesses)

    def _turn_thoughts(self) -> bool:
        """Add or drop reasoning: some servers demand it, others refuse it."""
        self._thinks = all(item.get("type") != REASONING for item in self.input)
        self.input = self._shape()
        return True
