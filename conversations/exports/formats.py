"""The formats that conversations can be had in."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from conversations.exports import as_csv, as_html, as_json, as_text, as_training
from conversations.exports.source import Conversation

Text = str | Promise
Writer = Callable[[Iterable[Conversation]], Iterator[str]]

PIECE_CHARS = 64 * 1024


@dataclass(frozen=True)
class Format:
    """How conversations are written; `write_one` is for a file that holds just one.

    `label` is what people choose it by.
    """

    label: Text
    media_type: str
    extension: str
    write: Writer
    write_one: Writer


def _format(
    label: Text, media_type: str, extension: str, write: Writer, one: Writer | None = None
) -> Format:
    return Format(label, media_type, extension, write, one or write)


FORMATS: dict[str, Format] = {
    "markdown": _format("Markdown", "text/markdown", "md", as_text.write_markdown),
    "html": _format(_("Web page"), "text/html", "html", as_html.write_page),
    "text": _format(_("Plain text"), "text/plain", "txt", as_text.write_text),
    "csv": _format("CSV", "text/csv", "csv", as_csv.write_rows),
    "json": _format("JSON", "application/json", "json", as_json.write_many, as_json.write_one),
    "jsonl": _format("JSON Lines", "application/x-ndjson", "jsonl", as_json.write_lines),
    "openai": _format(
        _("Training data"), "application/jsonl", "openai.jsonl", as_training.write_examples
    ),
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
