"""Text that every database and encoder can hold, and estimates of its tokens."""

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any

ID_CHARS = 200
"""Of an id that a model's server has made for a tool call; theirs have about 30."""

SHOWN_CHARS = 4_000
"""Of the arguments and the output of a tool, by default; the whole is in the items of its run."""

CUT = "…"

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean_text(text: str) -> str:
    """`text` with NUL and lone surrogates replaced by U+FFFD."""
    return _UNSTORABLE.sub("�", text)


def clean_id(text: str) -> str:
    """An id that somebody else has made, in a form that can be stored: cleaned and not too long.

    The same text always becomes the same id; a long one ends in a hash of what is cut off.
    """
    cleaned = clean_text(text)
    if len(cleaned) <= ID_CHARS:
        return cleaned
    digest = hashlib.sha256(cleaned.encode()).hexdigest()
    return f"{cleaned[: ID_CHARS - len(digest)]}{digest}"


def shorten(text: str, length: int) -> str:
    """The first `length` characters at most, the last of them `CUT` where there are more."""
    return text if len(text) <= length else text[: length - 1] + CUT


def visible(text: str) -> str:
    """`text` with control characters as pictures of themselves, so that no terminal obeys them."""
    return _CONTROL.sub(lambda found: _picture(ord(found[0])), text)


def _picture(code: int) -> str:
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else "�"


BYTES_PER_TOKEN = 4
"""Of UTF-8: near the truth for English, and for scripts whose letters take more bytes."""


def byte_count(text: str) -> int:
    """In UTF-8, of any text."""
    return len(text.encode("utf-8", "surrogatepass"))


def tokens_in(size: int) -> int:
    """How many tokens so many bytes are; never zero for what is not empty."""
    return -(-size // BYTES_PER_TOKEN)


def estimate_tokens(text: str) -> int:
    """How many tokens `text` is."""
    return tokens_in(byte_count(text))


ASCII = 1 / 3.6
TWO_BYTES = 1 / 2
THREE_BYTES = 1.2
FOUR_BYTES = 2.0
"""Tokens a character, by its length in UTF-8: English and code, other alphabets, Chinese,
Japanese, Korean and the scripts of India and South-East Asia, emoji."""

ITEM = 4
"""Tokens around each item."""


def estimate_text(text: str) -> float:
    """Tokens of a text."""
    ascii_chars = len(text.encode("ascii", "ignore"))
    if ascii_chars == len(text):
        return ascii_chars * ASCII
    size = len(text.encode("utf-8", "surrogatepass"))
    four = len(text.encode("utf-16-le", "surrogatepass")) // 2 - len(text)
    others = len(text) - ascii_chars - four
    three = size - ascii_chars - 4 * four - 2 * others
    two = others - three
    return ascii_chars * ASCII + two * TWO_BYTES + three * THREE_BYTES + four * FOUR_BYTES


def estimate_items(items: Iterable[dict[str, Any]]) -> float:
    """Tokens of input items."""
    return sum(ITEM + sum(map(_estimate_value, item.values())) for item in items)


def _estimate_value(value: object) -> float:
    return estimate_text(value if isinstance(value, str) else json.dumps(value))
