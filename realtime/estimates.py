"""How many tokens a text will be, without its model's tokenizer: rather too many than too few."""

import json
from collections.abc import Iterable
from typing import Any

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
