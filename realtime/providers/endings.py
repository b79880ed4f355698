"""How a model's stream ends: its finish reasons, errors and usage."""

import logging
import re
from collections.abc import Callable, Collection
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

logger = logging.getLogger(__name__)

Event = dict[str, Any]

Meaning = Literal["stop", "tool_calls", "length", "content_filter", "failed"]

WORDS: dict[Meaning, Collection[str]] = {
    "stop": (
        *("stop", "end", "end_turn", "eos", "eos_token", "stop_sequence", "stop_token"),
        *("complete", "completed", "done", "finished", "pause_turn"),
    ),
    "tool_calls": ("tool_calls", "tool_call", "tool_use", "function_call", "function_calls"),
    "length": (
        *("length", "max_tokens", "max_output_tokens", "max_new_tokens", "max_length"),
        *("model_length", "model_context_window_exceeded", "context_length_exceeded"),
        *("token_limit", "max_completion_tokens", "error_limit"),
    ),
    "content_filter": (
        *("content_filter", "content_filtered", "content-filter", "sensitive", "safety"),
        *("refusal", "guardrail_intervened", "recitation", "blocklist", "prohibited_content"),
        *("spii", "image_safety", "moderation", "error_toxic", "image_prohibited_content"),
    ),
    "failed": (
        *("error", "failed", "abort", "aborted", "cancelled", "canceled", "timeout"),
        *("insufficient_system_resource", "network_error", "engine_overloaded", "overloaded"),
        *("malformed_function_call", "malformed_tool_use", "malformed_model_output"),
        *("unexpected_tool_call", "too_many_tool_calls", "incomplete", "interrupted"),
    ),
}
"""Finish reasons that servers document, in lower case, by their meaning for us."""

_MEANINGS = {word: meaning for meaning, words in WORDS.items() for word in words}
_JOINTS = re.compile(r"[- ]|(?<=[a-z])(?=[A-Z])")
_LOGGABLE = re.compile(r"[\w-]{1,40}")
_unknown: set[str] = set()


@dataclass
class StreamEnding:
    """How the model's server says that its latest call ended, and what a run's calls have brought.

    `finish_reason` is "" while the call streams; `error_code` is the code of a failure. Of all
    calls of the run so far, `has_said` is whether any has brought text, reasoning, a refusal or a
    tool call, `answers` counts the streams, and `call_ids` has the ids of the tool calls.
    `only_hosted` is whether the latest call brought calls of the provider's own tools and no text.

    `cut` ends the present stream where it is; it returns the reasoning and the text of that stream,
    with those that were held back. None if no stream is unfinished.
    """

    finish_reason: Meaning | Literal[""] = ""
    error_code: str = ""
    has_said: bool = False
    answers: int = 0
    only_hosted: bool = False
    call_ids: set[str] = field(default_factory=set)
    cut: Callable[[], tuple[str, str]] | None = None


stream_ending: ContextVar[StreamEnding | None] = ContextVar("verdict", default=None)
"""The ending of the current run; the streams of its model calls write to it."""


def meaning_of(word: str) -> Meaning:
    """Return the meaning of a finish reason; `stop`, the end of a whole reply, for an unknown one.

    `FinishReason.MAX_TOKENS`, `maxTokens` and `max-tokens` are `max_tokens`, as servers spell it.
    """
    plain = _JOINTS.sub("_", word.rpartition(".")[2]).lower().removeprefix("finish_reason_")
    known = _MEANINGS.get(word.lower()) or _MEANINGS.get(plain)
    if known is None and word not in _unknown and _LOGGABLE.fullmatch(word):
        _unknown.add(word)
        logger.warning("unknown finish reason %s: treated as the end of a complete reply", word)
    return known or "stop"


def response_meaning(event: dict[str, Any]) -> Meaning:
    """Return the meaning of the event that ends a response of the Responses API.

    `response.completed` is `stop` unless the response says otherwise; any other event is `failed`
    unless its reason is known and not `stop`.
    """
    response = event.get("response")
    details = response.get("incomplete_details") if isinstance(response, dict) else None
    reason = details.get("reason") if isinstance(details, dict) else None
    if event.get("type") == "response.completed":
        if isinstance(response, dict) and (response.get("error") or _has_failed(response)):
            return "failed"
        return meaning_of(reason) if isinstance(reason, str) else "stop"
    known = meaning_of(reason) if isinstance(reason, str) else "failed"
    return "failed" if known == "stop" else known


def _has_failed(response: dict[str, Any]) -> bool:
    return response.get("status") in ("failed", "cancelled")


def error_code(event: dict[str, Any]) -> str:
    """Return the code of the error in `event`, else the error's type; "" if it has neither.

    The error is under `error`, under `response.error`, or is the event itself: then only its `code`
    counts.
    """
    response = event.get("response")
    told = event.get("error") or (response.get("error") if isinstance(response, dict) else None)
    if told is None:
        # The event's own `type` is not the error's.
        return str(event.get("code") or "")
    return str(told.get("code") or told.get("type") or "") if isinstance(told, dict) else ""


MAX_NUMBER = 10**10
"""Below it, a number in place of a text is a token of digits that the server took for a number."""

TEXT_FIELDS = ("text", "content", "thinking", "reasoning", "summary")
TOLD_FIELDS = ("message", "detail", "msg", "error_msg", "error_message", "errors")
"""Fields in which servers describe an error, if not in `error`."""


def text_of(value: Any) -> str:
    """Return the text in a string, in a content part, or in a list of them; "" if there is none.

    Of a part, the first of `TEXT_FIELDS` with a text counts. A whole number below `MAX_NUMBER`
    counts as text, as some servers send one for digits.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_NUMBER:
        return str(value)
    if isinstance(value, list):
        return "".join(map(text_of, value))
    if isinstance(value, dict):
        return next((text for name in TEXT_FIELDS if (text := text_of(value.get(name)))), "")
    return ""


def as_error(said: Any) -> Event:
    """Return an event with `said`, an error in any form, in the form that the SDK raises."""
    if not isinstance(said, dict):
        said = {"message": text_of(said) or "an error"}
    return {"error": said}


def told_in(event: Event) -> Event:
    """Return the error that an event without `error` describes, as the value of that field."""
    said = next((text for name in TOLD_FIELDS if (text := text_of(event.get(name)))), "an error")
    return {"message": said, "code": event.get("code"), "type": event.get("type")}


MAX_TOKENS = 100_000_000
"""The largest plausible count for one model call."""


def count_of(value: Any) -> int | None:
    """Return `value` as a number of tokens; None if it is none, or not from 0 to `MAX_TOKENS`.

    A text of digits counts, and a float without a fraction.
    """
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    is_sound = 0 <= value <= MAX_TOKENS and value == int(value)
    return int(value) if is_sound else None


def chat_usage(usage: Any) -> Event | None:
    """Return a usage of Chat Completions with valid counts; None if its tokens are not known.

    That is if a count of input or output is missing, also under its name in the Responses API, or
    invalid. A missing total is their sum.
    """
    return _usage(usage, "prompt_tokens", "completion_tokens")


def response_usage(usage: Any) -> Event | None:
    """Return a usage of a response with all counts that the SDK reads.

    None if its tokens are not known: a count of input or output is missing, also under its name in
    Chat Completions, or invalid. A missing total is their sum, missing details are 0.
    """
    sound = _usage(usage, "input_tokens", "output_tokens")
    if sound is not None:
        sound["input_tokens_details"] = {"cached_tokens": 0} | sound["input_tokens_details"]
        sound["output_tokens_details"] = {"reasoning_tokens": 0} | sound["output_tokens_details"]
    return sound


OTHER_NAMES = {
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
}
"""The names of counts, and those of the other API, which some servers use."""


def _count_in(usage: Event, name: str) -> int | None:
    said = usage.get(name)
    return count_of(usage.get(OTHER_NAMES[name]) if said is None else said)


def _usage(usage: Any, given: str, made: str) -> Event | None:
    if not isinstance(usage, dict):
        return None
    tokens = {name: _count_in(usage, name) for name in (given, made)}
    sums = [number for number in tokens.values() if number is not None]
    if len(sums) < len(tokens):
        return None
    total = count_of(usage.get("total_tokens"))
    sound = usage | tokens | {"total_tokens": total or sum(sums)}
    for name in (given, made):
        details = usage.get(f"{name}_details")
        kept = details if isinstance(details, dict) else {}
        counts = {key: count for key in kept if (count := count_of(kept[key])) is not None}
        if f"{name}_details" in usage or given == "input_tokens":
            sound[f"{name}_details"] = counts
    return sound
