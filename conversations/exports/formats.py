"""The formats that conversations can be had in."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from conversations.exports import as_csv, as_html, as_json, as_text, as_training
from conversations.exports.source import Conversation

Writer = Callable[[Iterable[Conversation]], Iterator[str]]

PIECE_CHARS = 64 * 1024


@dataclass(frozen=True)
class Format:
    """How conversations are written; `write_one` is for a file that holds just one."""

    media_type: str
    extension: str
    write: Writer
    write_one: Writer


def _format(media_type: str, extension: str, write: Writer, one: Writer | None = None) -> Format:
    return Format(media_type, extension, write, one or write)


FORMATS: dict[str, Format] = {
    "json": _format("application/json", "json", as_json.write_many, as_json.write_one),
    "jsonl": _format("application/x-ndjson", "jsonl", as_json.write_lines),
    "openai": _format("application/jsonl", "openai.jsonl", as_training.write_examples),
    "markdown": _format("text/markdown", "md", as_text.write_markdown),
    "html": _format("text/html", "html", as_html.write_page),
    "csv": _format("text/csv", "csv", as_csv.write_rows),
    "text": _format("text/plain", "txt", as_text.write_text),
}


def encode(texts: Iterable[str]) -> Iterator[bytes]:
    """Pieces of a size that is worth a hop between threads."""
    waiting: list[str] = []
    size = 0
    for text in texts:
        waiting.append(text)
        size += len(text)
        if size >= PIECE_CHARS:
            yield "".join(waiting).encode()
            waiting, size = [], 0
    if waiting:
        yield "".join(waiting).encode()
