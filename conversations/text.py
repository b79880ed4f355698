"""Cleaning and shortening text so that it can be stored and shown, and estimates of its tokens."""

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any

ID_CHARS = 200
"""Longest stored id of a tool call; the ids that model servers make have about 30 characters."""

SHOWN_CHARS = 4_000
"""Characters shown of a tool's arguments and output, by default; the run's items have all."""

CUT = "…"

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean_text(text: str) -> str:
    """Replace NUL and lone surrogates, which cannot be stored, by U+FFFD."""
    return _UNSTORABLE.sub("�", text)


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
    """Return `text`, cut to `length` characters if it is longer; then the last one is `CUT`."""
    return text if len(text) <= length else text[: length - 1] + CUT


def visible(text: str) -> str:
    """Replace control characters, except tab and newline, by visible symbols.

    A terminal would execute them.
    """
    return _CONTROL.sub(lambda found: _picture(ord(found[0])), text)


def _picture(code: int) -> str:
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else "�"


BYTES_PER_TOKEN = 4
"""Bytes of UTF-8 a token: close for English, and for scripts whose letters take more bytes."""


def byte_count(text: str) -> int:
    """Return the size of `text` in UTF-8; lone surrogates are counted too."""
    return len(text.encode("utf-8", "surrogatepass"))


def tokens_in(size: int) -> int:
    """Estimate the tokens in `size` bytes of UTF-8, rounded up."""
    return -(-size // BYTES_PER_TOKEN)


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of `text` by its size in bytes alone, for usage that nobody measured."""
    return tokens_in(byte_count(text))


ASCII = 1 / 3.6
TWO_BYTES = 1 / 2
THREE_BYTES = 1.2
FOUR_BYTES = 2.0
"""Tokens a character, by the character's length in UTF-8. One byte: English and code. Two: other
alphabets. Three: Chinese, Japanese, Korean, and the scripts of India and South-East Asia. Four:
emoji."""

ITEM = 4
"""Tokens around each item."""


def estimate_text(text: str) -> float:
    """Estimate the tokens of `text` by how many characters of each UTF-8 length it has.

    More exact than `estimate_tokens` for scripts other than Latin; not rounded.
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


def estimate_items(items: Iterable[dict[str, Any]]) -> float:
    """Estimate the tokens of the model's input items, with `ITEM` tokens for each; not rounded."""
    return sum(ITEM + sum(map(_estimate_value, item.values())) for item in items)


def _estimate_value(value: object) -> float:
    return estimate_text(value if isinstance(value, str) else json.dumps(value))
