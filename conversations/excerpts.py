"""A few words of a text around what a search has found in it."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from conversations.search import is_open, phrases_of, pieces_of

BEFORE = 30
"""Characters before the first match, about."""

FAR = 20
"""Characters to a space before it, from which on an excerpt begins within a word: there are scripts
without spaces."""

WORD = r"[^\W_]"


@dataclass(frozen=True)
class Piece:
    """Some of an excerpt; `found` where it is what was searched for."""

    text: str
    found: bool = False


class _Fold(dict[int, str]):
    """One plain small letter for each, so that places stay where they are."""

    def __missing__(self, code: int) -> str:
        plain = unicodedata.normalize("NFD", chr(code))[0].lower()
        self[code] = plain if len(plain) == 1 else chr(code)
        return self[code]


_fold = _Fold()


def cut_excerpt(text: str, words: str, length: int) -> list[Piece]:
    """About `length` characters around the first of `words`, each of them a piece of its own."""
    line = " ".join(text.split())
    pattern = _pattern_of(words)
    first = pattern.search(line.translate(_fold)) if pattern else None
    start = _word_before(line, max(0, first.start() - BEFORE)) if first else 0
    end = len(line) if start + length >= len(line) else line.rfind(" ", start, start + length)
    cut = line[start : end if end > start else start + length]
    pieces = list(_split(cut, pattern))
    return [*_dots(start > 0), *pieces, *_dots(start + len(cut) < len(line))]


def _pattern_of(words: str) -> re.Pattern[str] | None:
    phrases = phrases_of(words)
    spelled = [r"[\W_]+".join(re.escape(word.translate(_fold)) for word in p) for p in phrases]
    if phrases and is_open(phrases[-1]):
        spelled[-1] += f"{WORD}*"
    longest_first = sorted(spelled, key=len, reverse=True)
    patterns = [f"(?<!{WORD})(?:{'|'.join(longest_first)})(?!{WORD})"] if phrases else []
    patterns += [re.escape(piece.translate(_fold)) for piece in pieces_of(words)]
    return re.compile("|".join(patterns)) if patterns else None


def _word_before(line: str, place: int) -> int:
    start = line.rfind(" ", 0, place) + 1
    return start if place - start <= FAR else place


def _split(cut: str, pattern: re.Pattern[str] | None) -> Iterator[Piece]:
    after = 0
    for match in pattern.finditer(cut.translate(_fold)) if pattern else ():
        if match.start() > after:
            yield Piece(cut[after : match.start()])
        yield Piece(cut[match.start() : match.end()], found=True)
        after = match.end()
    if cut[after:]:
        yield Piece(cut[after:])


def _dots(is_cut: bool) -> list[Piece]:
    return [Piece("…")] if is_cut else []
