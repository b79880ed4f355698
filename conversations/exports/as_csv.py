"""A table for spreadsheets, which must not take a cell for a formula."""

import csv
import io
from collections.abc import Iterable, Iterator

from conversations.exports.digest import digest_of
from conversations.exports.source import TIMING_FIELDS, USAGE_FIELDS, Conversation, Record

OF_MESSAGE = (
    *("number", "message_id", "parent_message_id", "role", "created_at", "on_active_branch"),
    *("run_status", "reason", "error_code", "agent", "model"),
)
COLUMNS = (
    *("session_id", "title", *OF_MESSAGE, "text", "tools", "feedback"),
    *USAGE_FIELDS,
    *("cost", "retries"),
    *(f"run_{name}" for name in TIMING_FIELDS),
    "sha256",
)
DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n", "\x00", "＝", "＋", "－", "＠")


def write_rows(conversations: Iterable[Conversation]) -> Iterator[str]:
    """A row for each message, below the names of the columns."""
    yield _line(COLUMNS)
    for conversation in conversations:
        for message in conversation.messages:
            yield _line(map(safe_cell, _cells(conversation.session, message)))


def safe_cell(value: object) -> str:
    """A cell that every spreadsheet takes for text."""
    text = "" if value is None else str(value)
    kept = text.replace("\x00", "\ufffd")
    return f"'{kept}" if text.lstrip(" ").startswith(DANGEROUS) else kept


def _cells(session: Record, message: Record) -> Iterator[object]:
    yield from (session["id"], session["title"])
    yield from (message.get(name) for name in OF_MESSAGE)
    yield message["text"]
    tools = (part for part in message["parts"] if part["type"] == "tool")
    yield " ".join(f"{tool['name']}({tool['status']})" for tool in tools)
    yield " ".join(verdict["value"] for verdict in message["feedback"])
    yield from (message.get("usage", {}).get(name) for name in USAGE_FIELDS)
    yield from (message.get("cost"), message.get("retries"))
    yield from (message.get("timings", {}).get(name) for name in TIMING_FIELDS)
    yield digest_of(message)


def _line(cells: Iterable[object]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue()
