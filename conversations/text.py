"""Cleaning and shortening text so that it can be stored and shown, and estimates of its tokens."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

ID_CHARS = 200
"""Longest stored id of a tool call; the ids that model servers make have about 30 characters."""

SHOWN_CHARS = 4_000
"""Characters shown of a tool's arguments and output, by default; the run's items have all."""

CUT = "…"

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_UNSEEN = re.compile(
    r"[\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]*"
)
"""Whitespace, what Unicode calls default ignorable, and the empty Braille pattern."""
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean_text(text: str) -> str:
    """Replace NUL and lone surrogates, which cannot be stored, by U+FFFD."""
    return _UNSTORABLE.sub("�", text)


def is_blank(text: str) -> bool:
    """Return whether nothing of `text` can be seen: "", or only spaces and invisible characters."""
    return _UNSEEN.fullmatch(text) is not None


def clean_id(text: str) -> str:
    """Return an id that somebody else made, cleaned and cut to at most `ID_CHARS` characters.

    The same text always gives the same id. Instead of the rest, a longer id gets a hash of the
    whole id at its end.
    """
    cleaned = clean_text(text)
    if len(cleaned) <= ID_CHARS:
        return cleaned
    digest = hashlib.sha256(cleaned.encode()).hexdigest()
    return f"{cleaned[: ID_CHARS - len(digest)]}{digest}"


def shorten(text: str, length: int) -> str:
    """Return `text`, cut to `length` (at least 1) characters if longer; then the last is `CUT`."""
    return text if len(text) <= length else text[: length - 1] + CUT


_LINE_MARKS = re.compile(
    r"^[ \t]*(?:(?:`{3,}|~{3,})[^\n]*$|(?=[|: \t]*[-=]{3})[|:= \t-]+$|#{1,6}[ \t]+|(?:>[ \t]?)+"
    r"|\[!\w+\][ \t]*$|[-*+][ \t]+(?:\[[ xX]\][ \t]+)?)+",
    re.MULTILINE,
)
_LINK = re.compile(r"!?\[([^\[\]\n]*)\]\([^()\s]*(?:[ \t]+\"[^\"\n]*\")?\)")
_WORD_MARKS = re.compile(r"\*\*|~~|`+|\$\$|\\[()\[\]]|(?<!\w)\*(?=\S)|(?<=\S)\*(?!\w)")
_ROW = re.compile(r"^[ \t]*\|.*$", re.MULTILINE)


def without_marks(text: str) -> str:
    """Return Markdown as the words that people read of it; for excerpts and titles, not exact.

    Underscores stay, because they are part of many names.
    """
    text = _LINE_MARKS.sub("", text)
    text = _ROW.sub(lambda row: row[0].replace("|", " "), text)
    return _WORD_MARKS.sub("", _LINK.sub(r"\1", text))


def visible(text: str) -> str:
    """Replace control characters, except tab and newline, by visible symbols.

    A terminal would execute them.
    """
    return _CONTROL.sub(lambda found: _picture(ord(found[0])), text)


def _picture(code: int) -> str:
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else "�"


ASCII = 1 / 3.6
TWO_BYTES = 1 / 2
THREE_BYTES = 1.2
FOUR_BYTES = 2.0
"""Tokens a character, by the character's length in UTF-8. One byte: English and code. Two: other
alphabets. Three: Chinese, Japanese, Korean, and the scripts of India and South-East Asia. Four:
emoji. Chosen by comparison with a tokenizer, so that the estimate is rather too high than too low:
`TestEstimates` has sentences with their counts."""

ITEM = 4
"""Tokens around each item."""


def estimate_text(text: str) -> float:
    """Estimate the tokens of `text`, not rounded.

    The only estimate of tokens: what a model is given, what is recorded for calls that nobody
    measured, and limits on output all use it. It counts the characters of each length in UTF-8, so
    the estimates of the pieces of a text add up to that of the text.
    """
    ascii_chars = len(text.encode("ascii", "ignore"))
    if ascii_chars == len(text):
        return ascii_chars * ASCII
    size = len(text.encode("utf-8", "surrogatepass"))
    four = len(text.encode("utf-16-le", "surrogatepass")) // 2 - len(text)
    others = len(text) - ascii_chars - four
    three = size - ascii_chars - 4 * four - 2 * others
    two = others - three
    return ascii_chars * ASCII + two * TWO_BYTES + three * THREE_BYTES + four * FOUR_BYTES


def estimate_item(item: Mapping[str, Any]) -> float:
    """Estimate the tokens of one input item of a model, not rounded: `ITEM`, and all its values.

    A value that is no text counts as its JSON.
    """
    return ITEM + sum(map(_estimate_value, item.values()))


def estimate_items(items: Iterable[Mapping[str, Any]]) -> float:
    """Return the sum of `estimate_item` for all `items`; 0 without any."""
    return sum(map(estimate_item, items))


def _estimate_value(value: object) -> float:
    if not isinstance(value, str):
        value = json.dumps(value, default=str, ensure_ascii=False)
    return estimate_text(value)
