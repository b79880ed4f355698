"""Thoughts that a server leaves in the text of a reply, between tags."""

import re

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
"""Each with its end. They count at the start of a text alone: elsewhere they are its subject."""

LONE_END = re.compile(r"(?P<opening><think>)|(?:^|\n)[ \n]*(?P<end></think>)[ ]*(?:\n|$)")
"""On a line of its own, the end of thoughts that the server's prompt has opened.

Within a line, or after an opening, it is the subject of a text.
"""

_OPENINGS = dict(TAGS)
_LONGEST = max(map(len, _OPENINGS))
_ENDS = re.compile("|".join(re.escape(end) for _, end in TAGS))


class ThinkingSplitter:
    """Tells thoughts from text, delta by delta.

    What may be the beginning of a tag is held back until the next delta, or until `rest`. The
    whitespace between thoughts and text is left out.
    """

    def __init__(self, *, is_open: bool = False) -> None:
        self.is_text = False
        """Whether nothing but text can come: `split` then returns what it is given."""
        self.has_lone_end = False
        """Whether thoughts have ended that no tag has opened."""
        self.unclosed = ""
        """Text that was taken for thoughts as `is_open` said so, and that nothing has ended."""
        self._held = ""
        self._end = _OPENINGS["<think>"] if is_open else ""
        self._is_assumed = is_open
        self._has_thought = False

    def split(self, delta: str) -> tuple[str, str]:
        """Thoughts and text in a delta, in this order."""
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
        """The thoughts that are held, and whether they have ended."""
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
        """The tag that the text begins with; "" if that is not known yet, None for none."""
        start = self._held.lstrip()
        for opening in _OPENINGS:
            if start.startswith(opening):
                return opening
        is_open = len(start) < _LONGEST and any(tag.startswith(start) for tag in _OPENINGS)
        return "" if is_open else None

    def _leave(self) -> tuple[str, str]:
        """Thoughts that end here without a beginning, and the text."""
        self.is_text = True
        text, self._held = self._held, ""
        found = None if self._has_thought else LONE_END.search(text)
        if found is not None and found["end"]:
            self.has_lone_end = True
            return text[: found.start()], text[found.end() :].lstrip()
        return "", text.lstrip() if self._has_thought else text

    def rest(self) -> tuple[str, str]:
        """What is held back at the end: thoughts and text."""
        held, self._held = self._held, ""
        if self._end:
            return held, ""
        return "", held.lstrip() if self._has_thought else held


def _overlap(text: str, end: str) -> int:
    """How many characters at the end of `text` may be the beginning of `end`."""
    longest = min(len(text), len(end) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(end[:size])), 0)


def strip_thinking(text: str, *, is_open: bool = False) -> str:
    """A whole text without the thoughts that it begins with, where `is_open` without a tag."""
    splitter = ThinkingSplitter(is_open=is_open)
    stripped = splitter.split(text)[1] + splitter.rest()[1]
    return splitter.unclosed or stripped


def strip_all_thinking(text: str) -> str:
    """The same for an answer that nobody sees arrive: thoughts without a beginning go as well."""
    return strip_thinking(_ENDS.split(strip_thinking(text))[-1]).strip()
