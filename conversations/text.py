"""Text that every database and every encoder can hold."""

import hashlib
import re

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
