"""The JSON of an export, as the OpenAPI document tells of it."""

from dataclasses import dataclass, make_dataclass
from dataclasses import fields as fields_of
from datetime import datetime
from typing import Any, Literal

from conversations.exports.source import TIMING_FIELDS, USAGE_FIELDS
from conversations.shapes import MessageView

ExportedUsage: Any = make_dataclass(
    "ExportedUsage", [*((name, int | None) for name in USAGE_FIELDS), ("source", str)]
)
ExportedTimings: Any = make_dataclass(
    "ExportedTimings", [(name, datetime | None) for name in TIMING_FIELDS]
)


@dataclass(frozen=True)
class ExportedFeedback:
    """A verdict on a reply."""

    value: Literal["up", "down"]
    comment: str


ExportedMessage: Any = make_dataclass(
    "ExportedMessage",
    [
        *((field.name, field.type) for field in fields_of(MessageView)),
        ("text", str),
        ("on_active_branch", bool),
        ("feedback", list[ExportedFeedback]),
        # Of replies alone.
        ("model", str, ""),
        ("usage", ExportedUsage, None),
        ("cost", str | None, None),
        ("retries", int, 0),
        ("timings", ExportedTimings, None),
    ],
)


@dataclass(frozen=True)
class ExportedSession:
    """What a session is beside its messages."""

    id: str
    title: str
    agent: str
    rev: int
    created_at: datetime
    active_at: datetime
    owner_id: str
    title_source: Literal["words", "model", "user"]
    archived_at: datetime | None
    deleted_at: datetime | None
    currency: str


@dataclass(frozen=True)
class ExportedConversation:
    """A session with all of its messages, and the SHA-256 of both as canonical JSON."""

    session: ExportedSession
    messages: list[ExportedMessage]
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Transcript(ExportedConversation):
    """The file of one session."""

    format: Literal["agentsite.transcript"]
    version: Literal[1]
    exported_at: datetime


@dataclass(frozen=True)
class Transcripts:
    """The file of many."""

    format: Literal["agentsite.transcripts"]
    version: Literal[1]
    exported_at: datetime
    sessions: list[ExportedConversation]
