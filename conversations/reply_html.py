"""The HTML of replies: rendered once when a reply has ended, then read.

A worker renders before the transaction that ends its run, which stores the HTML with `save_html`.
What has none (the run ended without a worker, was imported, or another version of the renderer
made it) is rendered and stored by its first reader.
"""

import hashlib
import json
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import DatabaseError, connection
from django.utils.safestring import SafeString, mark_safe

from conversations.models import ACTIVE, ReplyHtml, Role
from conversations.rendering import RENDERER_VERSION, join_html, render_texts
from conversations.shapes import MessageView

Parts = Iterable[Mapping[str, Any]]

RENDERED_AT_ONCE = 20
"""Replies that one reader renders and stores before another one may."""

logger = logging.getLogger(__name__)

_rendering = threading.Lock()


def save_html(message_id: UUID, parts: Parts, html: Sequence[str]) -> None:
    """Store the HTML of a reply with `parts`, in place of what there was."""
    _save([_row(message_id, parts, html)])


def read_html(views: Iterable[MessageView]) -> dict[str, list[str]]:
    """The HTML of each text part of the replies among `views`, by message id.

    Call it in a thread, not on the event loop: it reads the database, and what is not stored it
    renders. What it renders of an ended run it also stores, unless the caller is in a transaction.
    """
    replies = [view for view in views if view.role == Role.ASSISTANT]
    ended = [view for view in replies if view.run_status not in ACTIVE]
    found = _load(ended)
    missing = [view for view in ended if view.message_id not in found]
    # In a transaction nobody waits for the lock: its owner may be waiting for that transaction.
    if not connection.in_atomic_block:
        for start in range(0, len(missing), RENDERED_AT_ONCE):
            found |= _render_and_store(missing[start : start + RENDERED_AT_ONCE])
    left = [view for view in replies if view.message_id not in found]
    return found | {view.message_id: render_texts(view.parts or []) for view in left}


def read_joined_html(views: Iterable[MessageView]) -> dict[str, SafeString]:
    """The same, all text parts of a reply together; see `join_html`."""
    return {message_id: join_html(html) for message_id, html in read_html(views).items()}


def show_parts(view: MessageView, html: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """Copies of the parts of `view`; those of text have their `html`, if `html` is of that message.

    `html` is the result of `read_html` for this very view.
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
    """What is stored for exactly these texts by this version of the renderer."""
    parts = {view.message_id: view.parts or [] for view in views}
    rows = ReplyHtml.objects.filter(pk__in=list(parts), renderer=RENDERER_VERSION)
    found = {str(row.pk): row for row in rows}
    return {pk: row.html for pk, row in found.items() if row.digest == _digest(parts[pk])}


def _render_and_store(views: Sequence[MessageView]) -> dict[str, list[str]]:
    """One thread at a time, so that what several readers miss is rendered once."""
    with _rendering:
        found = _load(views)
        rows = [
            _row(view.message_id, parts := view.parts or [], render_texts(parts))
            for view in views
            if view.message_id not in found
        ]
        try:
            _save(rows)
        except DatabaseError as exc:
            # Deleted meanwhile, or the database is busy: the next reader tries again.
            logger.warning("HTML of %d replies not stored: %s", len(rows), type(exc).__name__)
    return found | {str(row.message_id): row.html for row in rows}


def _row(message_id: UUID | str, parts: Parts, html: Sequence[str]) -> ReplyHtml:
    return ReplyHtml(
        message_id=message_id, renderer=RENDERER_VERSION, digest=_digest(parts), html=list(html)
    )


def _save(rows: Sequence[ReplyHtml]) -> None:
    ReplyHtml.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["message"],
        update_fields=["renderer", "digest", "html"],
    )


def _digest(parts: Parts) -> str:
    """Names the texts that HTML was made of: HTML of other texts is never shown, whatever raced."""
    texts = json.dumps([part["text"] for part in parts if part["type"] == "text"])
    return hashlib.blake2b(texts.encode(), digest_size=16).hexdigest()
