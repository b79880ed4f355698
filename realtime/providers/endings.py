"""How a model's stream ends, and thinking tags such as `<think>` within its text."""

import logging
import re
from collections.abc import Collection
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

logger = logging.getLogger(__name__)

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
_LOGGABLE = re.compile(r"[\w-]{1,40}")
_unknown: set[str] = set()


@dataclass
class StreamEnding:
    """How the model's server says that its latest call ended; empty while it streams.

    `error_code` is the code of a failure. `has_said` is whether any call of the run so far has
    brought text, reasoning, a refusal or a tool call. `answers` counts streams, and `call_ids` has
    the ids of their tool calls.
    """

    finish_reason: Meaning | Literal[""] = ""
    error_code: str = ""
    has_said: bool = False
    answers: int = 0
    call_ids: set[str] = field(default_factory=set)


stream_ending: ContextVar[StreamEnding | None] = ContextVar("verdict", default=None)
"""The ending of the current run; the streams of its model calls write to it."""


def meaning_of(word: str) -> Meaning:
    """Return the meaning of a finish reason; an unknown one counts as the end of a whole reply."""
    known = _MEANINGS.get(word.lower())
    if known is None and word not in _unknown and _LOGGABLE.fullmatch(word):
        _unknown.add(word)
        logger.warning("unknown finish reason %s: taken for the end of a whole reply", word)
    return known or "stop"


def response_meaning(event: dict[str, Any]) -> Meaning:
    """Return the meaning of the last event of a response."""
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
    """Return a failure's code, else its type; the two APIs put them in different places."""
    response = event.get("response")
    told = event.get("error") or (response.get("error") if isinstance(response, dict) else None)
    if told is None:
        # The event's own `type` is not the error's.
        return str(event.get("code") or "")
    return str(told.get("code") or told.get("type") or "") if isinstance(told, dict) else ""


TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel|>analysis<|message|>", "<|end|>"),
)
"""Opening and closing tags of reasoning. They count only at the start of a text: elsewhere the text
is about them.
"""

LONE_END = re.compile(r"(?P<opening><think>)|(?:^|\n)[ \n]*(?P<end></think>)[ ]*(?:\n|$)")
"""A closing tag on a line of its own: it ends reasoning whose opening tag was in the server's
prompt.

Within a line, or after an opening tag, the text is about the tag.
"""

_OPENINGS = dict(TAGS)
_LONGEST = max(map(len, _OPENINGS))
_ENDS = re.compile("|".join(re.escape(end) for _, end in TAGS))


class ThinkingSplitter:
    """Separates reasoning from text, delta by delta.

    A possible beginning of a tag is held back until the next delta, or until `rest`. Whitespace
    between reasoning and text is dropped.
    """

    def __init__(self, *, is_open: bool = False) -> None:
        self.is_text = False
        """Whether only text can follow: `split` then returns the delta unchanged."""
        self.has_lone_end = False
        """Whether reasoning has ended that no tag had opened."""
        self.unclosed = ""
        """Text taken for reasoning because of `is_open`, while no closing tag has come."""
        self._held = ""
        self._end = _OPENINGS["<think>"] if is_open else ""
        self._is_assumed = is_open
        self._has_thought = False

    def split(self, delta: str) -> tuple[str, str]:
        """Return the reasoning and the text in a delta."""
        if self.is_text:
            return "", delta
        thought, self._held = "", self._held + delta
        if self._is_assumed and self._held.lstrip().startswith("<think>"):
            self._is_assumed, self._end, self.unclosed = False, "", ""
        if self._is_assumed:
            self.unclosed += delta
        while True:
            if self._end:
                found, is_closed = self._think()
                thought += found
                if not is_closed:
                    return thought, ""
            opening = self._opening()
            if opening is None:
                lone, text = self._leave()
                return thought + lone, text
            if not opening:
                return thought, ""
            self._end = _OPENINGS[opening]
            self._held = self._held.lstrip()[len(opening) :]

    def _think(self) -> tuple[str, bool]:
        """Return the reasoning held so far, and whether it has ended."""
        before, end, after = self._held.partition(self._end)
        if end:
            self._is_assumed, self.unclosed = False, ""
            self._held, self._end, self._has_thought = after, "", True
            return before, True
        kept = _overlap(self._held, self._end)
        cut = len(self._held) - kept
        found, self._held = self._held[:cut], self._held[cut:]
        return found, False

    def _opening(self) -> str | None:
        """Return the tag that the text begins with; "" if it is not known yet, None for none."""
        start = self._held.lstrip()
        for opening in _OPENINGS:
            if start.startswith(opening):
                return opening
        is_open = len(start) < _LONGEST and any(tag.startswith(start) for tag in _OPENINGS)
        return "" if is_open else None

    def _leave(self) -> tuple[str, str]:
        """Return the text; before it, reasoning that ends here without an opening tag."""
        self.is_text = True
        text, self._held = self._held, ""
        found = None if self._has_thought else LONE_END.search(text)
        if found is not None and found["end"]:
            self.has_lone_end = True
            return text[: found.start()], text[found.end() :].lstrip()
        return "", text.lstrip() if self._has_thought else text

    def rest(self) -> tuple[str, str]:
        """Return the reasoning and the text that are held back at the end."""
        held, self._held = self._held, ""
        if self._end:
            return held, ""
        return "", held.lstrip() if self._has_thought else held


def _overlap(text: str, end: str) -> int:
    """Return how many characters at the end of `text` may begin `end`."""
    longest = min(len(text), len(end) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(end[:size])), 0)


def strip_thinking(text: str, *, is_open: bool = False) -> str:
    """Return a whole text without the reasoning at its start, untagged if `is_open`."""
    splitter = ThinkingSplitter(is_open=is_open)
    stripped = splitter.split(text)[1] + splitter.rest()[1]
    return splitter.unclosed or stripped


def strip_all_thinking(text: str) -> str:
    """Return a whole answer without reasoning, reasoning without an opening tag included.

    Only for texts that are not streamed to users.
    """
    return strip_thinking(_ENDS.split(strip_thinking(text))[-1]).strip()
