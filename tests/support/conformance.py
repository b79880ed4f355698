"""Compares what a test receives with what the site declares in AsyncAPI and OpenAPI."""

import json
import re
from functools import cache
from typing import Any

from django.urls import Resolver404, resolve
from jsonschema_rs import Draft202012Validator

from realtime import wire_schema

Schema = dict[str, Any]

PARAMETER = re.compile(r"<\w+:(\w+)>")
JSON = "application/json"
EVENT_STREAM = "text/event-stream"
ERROR = {"$ref": "#/components/schemas/Error"}
SHOWN = 400
"""Characters shown of an invalid value or message."""


def closed(schema: Any) -> Any:
    """Return the schema with additional properties forbidden."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(part) for name, part in schema.items()}
    if isinstance(found.get("properties"), dict):
        found.setdefault("additionalProperties", False)
    return found


def check_frame(frame: Any) -> None:
    """Raise `AssertionError` for a frame that AsyncAPI does not declare, down to the last field."""
    assert isinstance(frame, dict), f"no frame: {frame!r}"
    name = _name_of(frame)
    validator = _frame_validators().get(name)
    assert validator, f"{name} is no frame that is declared: {_short(frame)}"
    _check(validator, frame, name)


def check_answer(method: str, path: str, status: int, media_type: str, body: bytes) -> None:
    """Raise `AssertionError` for an answer of the API that OpenAPI does not declare."""
    operations = operations_of(path)
    if not operations or method in ("HEAD", "OPTIONS"):
        return
    name = f"{method} {path}: {status}"
    kind = media_type.partition(";")[0]
    schema = _declared(operations.get(method.lower()), status, kind, name)
    if schema is None:
        assert not body, f"{name} has a body: {_short(body)}"
    elif kind == EVENT_STREAM:
        for frame in frames_of(body):
            check_frame(frame)
    elif kind == JSON:
        _check(_answer_validator(json.dumps(schema)), json.loads(body), name)


@cache
def openapi() -> Schema:
    """Return the API's OpenAPI document, with additional properties forbidden."""
    # Imported late: benchmarks use this module without Django being set up.
    from drf_spectacular.generators import SchemaGenerator
    from drf_spectacular.renderers import OpenApiJsonRenderer

    made = OpenApiJsonRenderer().render(SchemaGenerator().get_schema(public=True))
    document: Schema = closed(json.loads(made))
    return document


def operations_of(path: str) -> Schema:
    """Return the declared operations of an address, by method; empty outside the API."""
    try:
        route = resolve(path.partition("?")[0]).route
    except Resolver404:
        return {}
    if not route.startswith("api/"):
        return {}
    operations: Schema = openapi()["paths"].get("/" + PARAMETER.sub(r"{\1}", route), {})
    return operations


def frames_of(stream: bytes) -> list[Any]:
    """Return the frames in a stream of server-sent events."""
    events = stream.decode().split("\n\n")
    return [json.loads(event.partition("data: ")[2]) for event in events if event]


def _check(validator: Draft202012Validator, value: Any, name: str) -> None:
    if validator.is_valid(value):
        return
    faults = [
        f"{'.'.join(map(str, error.instance_path))}: {error.message[:SHOWN]}"
        for error in validator.iter_errors(value)
    ]
    raise AssertionError("\n".join([f"{name} is not as declared", *faults, _short(value)]))


def _short(value: object) -> str:
    return repr(value)[:SHOWN]


def _name_of(frame: dict[str, Any]) -> str:
    """Return the frame's type, or for a status its event."""
    metadata = frame.get("metadata")
    event = metadata.get("event") if isinstance(metadata, dict) else None
    return f"status {event}" if frame.get("type") == "status" else str(frame.get("type"))


@cache
def _frame_validators() -> dict[str, Draft202012Validator]:
    """Return a validator for each frame type and event, so that messages of failures stay short."""
    document = wire_schema.asyncapi()
    components = closed(document["components"])
    found = {}
    for reference in document["operations"]["toClient"]["messages"]:
        schema = components["schemas"][reference["$ref"].rpartition("/")[2]]
        for metadata in _alternatives(schema["properties"]["metadata"]):
            narrowed = schema["properties"] | {"metadata": metadata}
            whole = schema | {"properties": narrowed, "components": components}
            found[_name(narrowed, components)] = Draft202012Validator(whole)
    return found


def _alternatives(metadata: Schema) -> list[Schema]:
    alternatives: list[Schema] = metadata.get("oneOf", [metadata])
    return alternatives


def _name(properties: Schema, components: Schema) -> str:
    """Return the name that `_name_of` gives to such frames."""
    metadata = components["schemas"][properties["metadata"]["$ref"].rpartition("/")[2]]
    event = metadata["properties"].get("event", {}).get("const")
    return _name_of({"type": properties["type"]["const"], "metadata": {"event": event}})


@cache
def _answer_validator(schema: str) -> Draft202012Validator:
    whole = {**json.loads(schema), "components": openapi()["components"]}
    return Draft202012Validator(whole, validate_formats=True)


def _declared(operation: Schema | None, status: int, kind: str, name: str) -> Schema | None:
    """Return the schema of an answer, None if it has no body; undeclared methods must fail."""
    if operation is None:
        assert status >= 400, f"{name} is not declared"
        return ERROR
    answer = operation["responses"].get(str(status))
    assert answer, f"{name} is not declared"
    if "content" not in answer:
        return None
    assert kind in answer["content"], f"{name} is {kind}, which is not declared"
    schema: Schema = answer["content"][kind].get("schema", {})
    return schema
