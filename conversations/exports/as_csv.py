"""A table for spreadsheets, which must not take a cell for a formula."""

import csv
import io
import json
from collections.abc import Iterable, Iterator

from conversations.exports.digest import digest_of
from conversations.exports.source import TIMING_FIELDS, USAGE_FIELDS, Conversation, Record

OF_MESSAGE = (
    *("number", "message_id", "parent_message_id", "role", "created_at", "on_active_branch"),
    *("run_status", "reason", "error_code", "agent", "model"),
)
OF_SESSION = ("owner_id", "owner", "archived_at", "deleted_at", "currency")
OF_REVIEW = ("labels", "note", "assignee", "reviewed_by", "reviewed_at")
COLUMNS = (
    *("session_id", "title", *OF_MESSAGE, "text", "tools", "feedback"),
    *USAGE_FIELDS,
    *("cost", "retries"),
    *(f"run_{name}" for name in TIMING_FIELDS),
    "sha256",
    *("tool_calls", "feedback_comments", *OF_SESSION, *OF_REVIEW),
)
"""New ones come last: programs may count on the places of the others. Those of a review are filled
in exports by staff alone."""

BYTE_ORDER_MARK = "\ufeff"
"""Without it, Excel takes the file for another encoding."""

DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n", "\x00", "＝", "＋", "－", "＠")


def write_rows(conversations: Iterable[Conversation]) -> Iterator[str]:
    """A row for each message, and for each session without one, below the names of the columns."""
    yield BYTE_ORDER_MARK + _line(COLUMNS)
    for conversation in conversations:
        message = None
        for message in conversation.messages:
            yield _line(map(safe_cell, _cells(conversation.session, message)))
        if message is None:
            yield _line(map(safe_cell, _cells(conversation.session, {"parts": [], "feedback": []})))


def safe_cell(value: object) -> str:
    """A cell that every spreadsheet takes for text."""
    text = "" if value is None else str(value)
    kept = text.replace("\x00", "\ufffd")
    return f"'{kept}" if text.lstrip(" ").startswith(DANGEROUS) else kept


def _cells(session: Record, message: Record) -> Iterator[object]:
    yield from (session["id"], session["title"])
    yield from (message.get(name) for name in OF_MESSAGE)
    yield message.get("text")
    tools = [part for part in message["parts"] if part["type"] == "tool"]
    yield " ".join(f"{tool['name']}({tool['status']})" for tool in tools)
    yield " ".join(verdict["value"] for verdict in message["feedback"])
    yield from (message.get("usage", {}).get(name) for name in USAGE_FIELDS)
    yield from (message.get("cost"), message.get("retries"))
    yield from (message.get("timings", {}).get(name) for name in TIMING_FIELDS)
    yield digest_of(message)
    yield json.dumps(tools, ensure_ascii=False) if tools else None
    yield "\n".join(verdict["comment"] for verdict in message["feedback"])
    yield from (session.get(name) for name in OF_SESSION)
    review = session.get("review") or {}
    yield ", ".join(review.get("labels", ()))
    yield from (review.get(name) for name in OF_REVIEW[1:])


def _line(cells: Iterable[object]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue()
