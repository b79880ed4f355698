"""Calls of the model that no earlier failure can spoil, and that are tried again with less."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

import openai
from agents import OpenAIChatCompletionsModel, OpenAIResponsesModel
from agents.models.reasoning_content_replay import ReasoningContentReplayContext

from conversations.errors import ErrorCode
from conversations.items import REASONING, Item
from realtime.call_items import (
    as_message,
    flatten,
    flatten_earlier,
    halve,
    settle,
    with_thoughts,
    without_thoughts,
)
from realtime.estimates import estimate_items
from realtime.run_errors import run_error

logger = logging.getLogger(__name__)

UNKNOWN_REFUSALS = (400, 413, 422)
"""By which servers refuse an input; it may be too long in words that nobody knows."""


@dataclass
class Shortening:
    """What a run's model did not take: `refused` is the estimate of the smallest such input."""

    refused: int | None = None


shortening: ContextVar[Shortening | None] = ContextVar("shortening", default=None)
"""A run's own, which the calls of its model write to."""


class _Shortened:
    """Sends what the server takes: input in the strictest form, and half of it after a refusal."""

    model: Any

    async def stream_response(
        self,
        system_instructions: str | None,
        input: Any,  # noqa: A002  (the SDK's name)
        model_settings: Any,
        tools: list[Any],
        output_schema: Any,
        handoffs: list[Any],
        tracing: Any,
        **more: Any,
    ) -> AsyncIterator[Any]:
        """The events of the SDK's own, of the first input that is not refused."""
        attempts = Attempts(self, input, can_call=bool(tools or handoffs))
        while True:
            events = super().stream_response(  # type: ignore[misc]
                system_instructions,
                attempts.input,
                model_settings,
                tools,
                output_schema,
                handoffs,
                tracing,
                **more,
            )
            has_begun = False
            try:
                async with aclosing(cast(AsyncGenerator[Any, None], events)):
                    async for event in events:
                        if not has_begun:
                            has_begun = True
                            attempts.note_taken()
                        yield event
                return
            except openai.APIError as exc:
                if has_begun or not attempts.change(exc):
                    raise

    def shape(self, items: list[Item]) -> list[Item]:
        """Settled items in the form that this API of the SDK takes best."""
        raise NotImplementedError


class ChatModel(_Shortened, OpenAIChatCompletionsModel):
    """Chat Completions: what was thought before a call comes back, as some servers demand."""

    def __init__(self, model: str, openai_client: openai.AsyncOpenAI) -> None:
        super().__init__(model, openai_client, should_replay_reasoning_content=_is_own)

    def shape(self, items: list[Item]) -> list[Item]:
        own = (item.get("provider_data") or {} for item in items if item.get("type") == REASONING)
        if any(data.get("model") == self.model for data in own):
            items = with_thoughts(items, self.model)
        return [as_message(item) for item in items]


class ResponsesModel(_Shortened, OpenAIResponsesModel):
    """The Responses API, which takes its own reasoning alone."""

    def shape(self, items: list[Item]) -> list[Item]:
        return [i for i in items if i.get("type") != REASONING or "provider_data" not in i]


def _is_own(context: ReasoningContentReplayContext) -> bool:
    return context.reasoning.origin_model == context.model


def _is_input_refused(exc: openai.APIError) -> bool:
    return isinstance(exc, openai.APIStatusError) and exc.status_code in UNKNOWN_REFUSALS


class Attempts:
    """What is sent in one call: `input`, until `change` has another that may be taken."""

    def __init__(self, model: _Shortened, given: Any, *, can_call: bool) -> None:
        self._model = model
        self._note = shortening.get() or Shortening()
        self._is_text = isinstance(given, str)
        self._thinks: bool | None = None
        self._guessed: int | None = None
        self._items: list[Item] = []
        if self._is_text:
            self.input = given
            return
        self._items = settle(given) if can_call else flatten(settle(given))
        for shorter in self._shorter():
            if self._note.refused is None or estimate_items(self._items) < self._note.refused:
                break
            self._items = shorter
        self.input = self._model.shape(self._items)

    def change(self, exc: openai.APIError) -> bool:
        """Whether there is another input to try after a refusal, which is `input` then."""
        if self._is_text:
            return False
        code = run_error(exc, has_text=False).code
        if code == ErrorCode.CONTEXT_TOO_LONG:
            return self._halve()
        if code != ErrorCode.PROVIDER_REFUSED or not _is_input_refused(exc):
            return False
        if "reasoning_content" in str(exc.message) and self._thinks is None:
            return self._turn_thoughts()
        return self._guessed is None and self._halve(is_guess=True)

    def note_taken(self) -> None:
        """The server answers; where it was a guess that an input was too long, it was right."""
        if self._guessed is not None:
            self._note.refused = min(self._guessed, self._note.refused or self._guessed)

    def _shorter(self) -> Iterator[list[Item]]:
        while (shorter := halve(self._items)) is not None:
            yield shorter

    def _halve(self, *, is_guess: bool = False) -> bool:
        """Unknown words may also mean the calls of earlier turns: those become words."""
        weight = round(estimate_items(self._items))
        if is_guess:
            self._guessed = weight
        else:
            self._note.refused = min(weight, self._note.refused or weight)
        shorter = halve(self._items)
        if shorter is None:
            return False
        logger.warning("an input of about %d tokens was refused: trying with less", weight)
        self._items = flatten_earlier(shorter) if is_guess else shorter
        self.input = self._shape()
        return True

    def _turn_thoughts(self) -> bool:
        """Some servers demand what was thought, others refuse it."""
        self._thinks = all(item.get("type") != REASONING for item in self.input)
        self.input = self._shape()
        return True

    def _shape(self) -> list[Item]:
        if self._thinks is None:
            return self._model.shape(self._items)
        items = without_thoughts(self._items)
        return self._model.shape(with_thoughts(items, self._model.model) if self._thinks else items)
