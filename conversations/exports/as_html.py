"""One page that needs nothing else: no script, no address, its few styles inside."""

from collections.abc import Iterable, Iterator
from itertools import islice

from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from conversations.exports.as_text import heading
from conversations.exports.digest import Digest
from conversations.exports.source import Conversation, Record
from conversations.reply_html import read_html, show_parts
from conversations.shapes import view_of_fields

MESSAGES_A_BATCH = 50
"""Messages whose HTML is read together, and is in memory at once."""

HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="referrer" content="no-referrer">
<title>Conversations</title>
<style>
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 46rem; padding: 1rem; }
article { border-top: 1px solid; padding: 0.5rem 0; overflow-wrap: anywhere; }
article > h2 { font-size: 0.85rem; }
.said, pre { white-space: pre-wrap; }
.left { opacity: 0.65; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { border: 1px solid; padding: 0.25rem 0.5rem; }
</style>
</head>
<body>
"""


def write_page(conversations: Iterable[Conversation]) -> Iterator[str]:
    """All conversations, one after the other."""
    yield HEAD
    for conversation in conversations:
        digest = Digest(conversation)
        yield format_html("<section>\n<h1>{}</h1>\n", conversation.session["title"])
        messages = digest.messages()
        while batch := list(islice(messages, MESSAGES_A_BATCH)):
            yield from _articles(batch)
        yield format_html("<footer>SHA-256: <code>{}</code></footer>\n</section>\n", digest.value)
    yield "</body>\n</html>\n"


def _articles(messages: list[Record]) -> Iterator[SafeString]:
    views = [view_of_fields(message) for message in messages]
    html = read_html(views)
    for message, view in zip(messages, views, strict=True):
        yield _article(message, show_parts(view, html))


def _article(message: Record, parts: list[Record]) -> SafeString:
    kind = message["role"] if message["on_active_branch"] else f"{message['role']} left"
    body = mark_safe("\n".join(map(_user_part, parts)))  # noqa: S308 (escaped below)
    if message["role"] == "assistant":
        body = mark_safe("\n".join(map(_part, parts)))  # noqa: S308 (the same)
    return format_html(
        '<article class="{}">\n<h2>{}</h2>\n{}\n</article>\n', kind, heading(message), body
    )


def _user_part(part: Record) -> SafeString:
    return format_html('<div class="said">{}</div>', part.get("text", ""))


def _part(part: Record) -> SafeString:
    if part["type"] == "text":
        html: SafeString = part["html"]
        return html
    if part["type"] == "reasoning":
        return format_html("<details><summary>Reasoning</summary>{}</details>", part["text"])
    return format_html(
        "<details><summary>{}: {}</summary><pre>{}</pre><pre>{}</pre></details>",
        part.get("name", part["type"]),
        part.get("status", ""),
        part.get("arguments") or "",
        part.get("output") or "",
    )
