"""Completes the OpenAPI document where the views alone do not describe the API."""

from dataclasses import dataclass, is_dataclass, make_dataclass
from dataclasses import fields as fields_of
from datetime import datetime
from http import HTTPStatus
from typing import Any, Literal

from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerExtension
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.utils import extend_schema_field
from pydantic import TypeAdapter
from rest_framework import serializers

from conversations.errors import ErrorCode
from conversations.exports.source import TIMING_FIELDS, USAGE_FIELDS
from conversations.runs.usage import UsageTotals
from conversations.shapes import ApprovalView, MessageView, QueueView, RunView, ToolTiming

EVERYWHERE = (400, 401, 403, 404, 406, 409, 413, 415, 429, 503)
IN_TURNS = (422, 500, 502)
"""Additional statuses of the chat endpoint, which answers with a finished reply."""

Message = make_dataclass(
    "Message", [*((field.name, field.type) for field in fields_of(MessageView)), ("text", str)]
)
Answered = make_dataclass(
    "Answered",
    [*((field.name, field.type) for field in fields_of(ApprovalView)), ("duplicate", bool)],
)
Totals = make_dataclass(
    "Totals",
    [
        *((field.name, field.type) for field in fields_of(UsageTotals) if field.name != "cost"),
        ("cost", str | None),
    ],
)


class ShapeExtension(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
    """Describes dataclasses that `extend_schema` is given in place of serializers."""

    @classmethod
    def _matches(cls, target: Any) -> bool:
        return isinstance(target, type) and is_dataclass(target)

    def get_name(self, auto_schema: Any, direction: Any) -> str:
        name: str = self.target.__name__
        return name

    def map_serializer(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        schema = TypeAdapter(self.target).json_schema(
            mode="serialization", ref_template="#/components/schemas/{model}"
        )
        for name, part in schema.pop("$defs", {}).items():
            component = ResolvedComponent(  # type: ignore[no-untyped-call]
                name=name, type=ResolvedComponent.SCHEMA, object=name, schema=part
            )
            auto_schema.registry.register_on_missing(component)
        return schema


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Describes API keys as bearer tokens."""

    target_class = "conversations.api.requests.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer", "description": "An API key: `agk_...`."}


@extend_schema_field(Message)
class MessageField(serializers.JSONField):
    """A message of a session."""


@extend_schema_field(RunView)  # type: ignore[arg-type]
class RunViewField(serializers.JSONField):
    """The state of a run."""


@extend_schema_field(QueueView)  # type: ignore[arg-type]
class QueueField(serializers.JSONField):
    """A queued message; `run_id` is the run that is to reply."""


@extend_schema_field(ToolTiming)  # type: ignore[arg-type]
class ToolTimingField(serializers.JSONField):
    """A tool call with its status and its duration."""


@extend_schema_field(ApprovalView)  # type: ignore[arg-type]
class ApprovalField(serializers.JSONField):
    """An approval of a tool call."""


@extend_schema_field(Totals)
class TotalsField(serializers.JSONField):
    """The usage of a session's replies, and of its titles and summaries."""


def describe_errors(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Add the common error responses to each operation of `result`; return it, changed in place.

    A response that an operation describes itself stays.
    """
    result["components"]["schemas"]["Error"] = _error_schema()
    for address, operations in result["paths"].items():
        for operation in operations.values():
            codes = EVERYWHERE + (IN_TURNS if address.endswith("/chat/") else ())
            for code in codes:
                operation["responses"].setdefault(str(code), _refusal(code))
    return result


def _refusal(code: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Error"}
    return {
        "description": HTTPStatus(code).phrase,
        "content": {"application/json": {"schema": schema}},
    }


def _error_schema() -> dict[str, Any]:
    fields = {
        "code": {"type": "string", "enum": [code.value for code in ErrorCode]},
        "text": {"type": "string", "description": "For people."},
        "retryable": {"type": "boolean"},
    }
    fault = {name: {"type": "string"} for name in ("field", "code", "text")}
    faults = {
        "type": "array",
        "description": "What is wrong with which field, where that is the reason.",
        "items": {"type": "object", "properties": fault, "required": list(fault)},
    }
    properties = {**fields, "fields": faults}
    error = {"type": "object", "properties": properties, "required": list(fields)}
    return {"type": "object", "properties": {"error": error}, "required": ["error"]}


ExportedUsage: Any = make_dataclass(
    "ExportedUsage", [*((name, int | None) for name in USAGE_FIELDS), ("source", str)]
)
ExportedTimings: Any = make_dataclass(
    "ExportedTimings", [(name, datetime | None) for name in TIMING_FIELDS]
)


@dataclass(frozen=True)
class ExportedFeedback:
    """A rating of a reply."""

    value: Literal["up", "down"]
    comment: str


ExportedMessage: Any = make_dataclass(
    "ExportedMessage",
    [
        *((field.name, field.type) for field in fields_of(MessageView)),
        ("text", str),
        ("on_active_branch", bool),
        ("feedback", list[ExportedFeedback]),
        # Only replies have these.
        ("model", str, ""),
        ("usage", ExportedUsage, None),
        ("cost", str | None, None),
        ("retries", int, 0),
        ("timings", ExportedTimings, None),
    ],
)


@dataclass(frozen=True)
class ExportedSession:
    """A session without its messages; `currency` is that of the costs of its replies."""

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
    """A session with all of its messages.

    `sha256` is the SHA-256 in hex of the session and then each message, each as canonical JSON and
    a line feed.
    """

    session: ExportedSession
    messages: list[ExportedMessage]
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Transcript(ExportedConversation):
    """An export of one session."""

    format: Literal["agentsite.transcript"]
    version: Literal[1]
    exported_at: datetime


@dataclass(frozen=True)
class Transcripts:
    """An export of several sessions."""

    format: Literal["agentsite.transcripts"]
    version: Literal[1]
    exported_at: datetime
    sessions: list[ExportedConversation]
