"""Markdown of replies to safe HTML: rendered once when a reply has ended, stored, then read.

Rendering takes milliseconds of CPU for each KB, so finished replies are not rendered again.

A worker renders before the transaction that ends its run, which stores the HTML with `save_html`.
A reply without valid HTML (its run ended without a worker, it was imported, or another version of
the renderer made the HTML) is rendered and stored by its first reader.
"""

import hashlib
import json
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import nh3
from django.db import DatabaseError, connection
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from conversations.changes import insert
from conversations.models import ACTIVE, ReplyHtml, Role
from conversations.queries import select
from conversations.sessions.markdown import ALERTS, parser
from conversations.shapes import MessageView

logger = logging.getLogger(__name__)

RENDERER_VERSION = 4
"""Increment it with every change of what `render_markdown` returns, also by a new version of a
library: stored HTML of another version is rendered again."""

# UTF-16 units. The rest is shown without formatting: some nested Markdown takes quadratic time.
MARKDOWN_MAX_CHARS = 131_072
URL_SCHEMES = {"http", "https", "mailto"}

CLASSES = {
    "a": {"picture"},
    "blockquote": {"alert", *(f"alert-{name}" for name in ALERTS)},
    "div": {"footnote", "math"},
    "li": {"task"},
    "p": {"alert-title"},
    "span": {"display", "link-host", "math"},
    "sup": {"footnote-ref"},
}

_cleaner = nh3.Cleaner(
    tags={
        *("a", "blockquote", "br", "code", "div", "em", "h3", "h4", "h5", "h6", "hr", "input"),
        *("label", "li", "ol", "p", "pre", "s", "span", "strong", "sup", "table", "tbody", "td"),
        *("th", "thead", "tr", "ul"),
    },
    attributes={
        "*": set(),
        "a": {"href"},
        "blockquote": {"dir"},
        "div": {"data-footnote"},
        "input": {"checked", "disabled", "type"},
        "ol": {"dir", "start"},
        "pre": {"data-language"},
        "sup": {"data-footnote"},
        "table": {"dir"},
        "td": {"align"},
        "th": {"align"},
        "ul": {"dir"},
    },
    set_tag_attribute_values={"a": {"target": "_blank"}},
    allowed_classes=CLASSES,
    url_schemes=URL_SCHEMES,
    url_relative="deny",
    link_rel="noopener noreferrer nofollow",
)


def render_markdown(text: str) -> SafeString:
    """Return the sanitised HTML of a text; images become links, so that nothing is fetched.

    Never raises, because a fault of the parser must not keep a run from ending or a page from
    being shown: such a text is shown as typed, and so is what comes after the longest beginning of
    whole lines that has at most `MARKDOWN_MAX_CHARS` UTF-16 units. A first line that is longer is
    cut there.
    """
    beginning = _cut_beginning(text)
    if len(beginning) < len(text):
        return format_html(
            "{}{}", render_markdown(beginning), _show_as_typed(text[len(beginning) :])
        )
    try:
        return mark_safe(_cleaner.clean(parser.render(text)))  # noqa: S308 (the cleaner's output)
    except Exception as exc:
        logger.error("rendering of %d characters failed: %s", len(text), type(exc).__name__)
        return _show_as_typed(text)


def _cut_beginning(text: str) -> str:
    """Return what is rendered of a text; characters are counted as the page counts them."""
    if 2 * len(text) <= MARKDOWN_MAX_CHARS:
        return text
    units = text.encode("utf-16-le", "surrogatepass")
    if len(units) <= 2 * MARKDOWN_MAX_CHARS:
        return text
    beginning = units[: 2 * MARKDOWN_MAX_CHARS].decode("utf-16-le", "ignore")
    return beginning[: beginning.rfind("\n") + 1] or beginning


def _show_as_typed(text: str) -> SafeString:
    return format_html("<pre>{}</pre>", text)


def render_texts(parts: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the HTML of each text part, in order; takes milliseconds of CPU for each KB."""
    return [render_markdown(part["text"]) for part in parts if part["type"] == "text"]


def join_html(html: Iterable[str]) -> SafeString:
    """Join the HTML of a reply's text parts, each in a `div.text-part`; "" if there are none.

    It is not escaped: it must be that of `render_texts`.
    """
    pieces = ((mark_safe(piece),) for piece in html)  # noqa: S308 (made by `render_markdown`)
    return format_html_join("", '<div class="text-part">{}</div>', pieces)


Parts = Iterable[Mapping[str, Any]]

RENDERED_AT_ONCE = 20
"""Replies that one reader renders and stores before it releases the lock."""

_rendering = threading.Lock()


def save_html(message_id: UUID, parts: Parts, html: Sequence[str]) -> None:
    """Store or replace the HTML of a reply; `html` must be `render_texts(parts)`.

    It is read again only for the same texts, by the same version of the renderer.
    """
    _save([_row(message_id, parts, html)])


def read_html(views: Iterable[MessageView]) -> dict[str, list[str]]:
    """Return the HTML of each text part of the replies among `views`, by message id.

    Call it in a thread, not on the event loop: it reads the database, and renders what is not
    stored. HTML of ended runs that it renders is also stored, unless a transaction is open or the
    database refuses it.
    """
    replies = [view for view in views if view.role == Role.ASSISTANT]
    ended = [view for view in replies if view.run_status not in ACTIVE]
    found = _load(ended)
    missing = [view for view in ended if view.message_id not in found]
    # Never wait for the lock in a transaction: its owner may be waiting for that transaction.
    if not connection.in_atomic_block:
        for start in range(0, len(missing), RENDERED_AT_ONCE):
            found |= _render_and_store(missing[start : start + RENDERED_AT_ONCE])
    left = [view for view in replies if view.message_id not in found]
    return found | {view.message_id: render_texts(view.parts or []) for view in left}


def read_joined_html(views: Iterable[MessageView]) -> dict[str, SafeString]:
    """Return the HTML of the replies among `views`, by message id: that of `read_html`, joined.

    Call it in a thread, not on the event loop: it reads the database, and may render.
    """
    return {message_id: join_html(html) for message_id, html in read_html(views).items()}


def show_parts(view: MessageView, html: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """Return copies of the parts of `view`, the text parts with their HTML under the key `html`.

    `html` must be the result of `read_html` for this same view, perhaps with others. If it does not
    have this message, such as one that a person wrote, the copies get no `html`.
    """
    if view.message_id not in html:
        return [dict(part) for part in view.parts or []]
    rest = iter(html[view.message_id])
    return [
        {**part, "html": mark_safe(next(rest))}  # noqa: S308 (made by `render_markdown`)
        if part["type"] == "text"
        else dict(part)
        for part in view.parts or []
    ]


def _load(views: Sequence[MessageView]) -> dict[str, list[str]]:
    """Return the stored HTML of exactly these texts by this version of the renderer."""
    parts = {view.message_id: view.parts or [] for view in views}
    rows = select(ReplyHtml, message=list(parts), renderer=RENDERER_VERSION)
    found = {str(row.pk): row for row in rows}
    return {pk: row.html for pk, row in found.items() if row.digest == _digest(parts[pk])}


def _render_and_store(views: Sequence[MessageView]) -> dict[str, list[str]]:
    """Render and store; one thread at a time, so that concurrent readers render a reply once."""
    with _rendering:
        # Again under the lock: another thread may have stored some of it meanwhile.
        found = _load(views)
        rows = [
            _row(view.message_id, parts := view.parts or [], render_texts(parts))
            for view in views
            if view.message_id not in found
        ]
        try:
            _save(rows)
        except DatabaseError as exc:
            # The reply was deleted meanwhile, or the database is busy: the next reader retries.
            logger.warning(
                "storing the HTML of %d replies failed: %s", len(rows), type(exc).__name__
            )
    return found | {str(row.message_id): row.html for row in rows}


def _row(message_id: UUID | str, parts: Parts, html: Sequence[str]) -> ReplyHtml:
    return ReplyHtml(
        message_id=message_id, renderer=RENDERER_VERSION, digest=_digest(parts), html=list(html)
    )


def _save(rows: Sequence[ReplyHtml]) -> None:
    fresh = ", ".join(f"{name} = excluded.{name}" for name in ("renderer", "digest", "html"))
    insert(rows, f"ON CONFLICT (message_id) DO UPDATE SET {fresh}")


def _digest(parts: Parts) -> str:
    """Return a digest of the texts, so that HTML of other texts is never shown after a race."""
    texts = json.dumps([part["text"] for part in parts if part["type"] == "text"])
    return hashlib.blake2b(texts.encode(), digest_size=16).hexdigest()
