"""The wire protocol as JSON Schema, AsyncAPI and TypeScript, generated from its types."""

from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from realtime import protocol
from realtime.conf import SOCKET_PATH

Schema = dict[str, Any]
REFERENCE = "#/components/schemas/"
TYPES = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
}


@cache
def schemas() -> dict[str, Schema]:
    """Return the JSON Schemas of all types of the protocol, by the types' names.

    The same object is returned at each call: do not modify it.
    """
    kinds: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        *((kind, "validation") for kind in protocol.CLIENT_FRAMES),
        *((kind, "serialization") for kind in protocol.SERVER_FRAMES),
    ]
    _, made = models_json_schema(kinds, ref_template=f"{REFERENCE}{{model}}")
    defined: dict[str, Schema] = made["$defs"]
    return defined


@cache
def asyncapi(address: str = SOCKET_PATH) -> Schema:
    """Return the AsyncAPI 3 document of the socket at the path `address`.

    The same object is returned at each call: do not modify it.
    """
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "agentsite",
            "version": str(protocol.VERSION),
            "description": "Chats with agents over a WebSocket; every message is a JSON object.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "agent": {
                "address": address,
                "messages": {name: _reference("messages", name) for name in _names()},
                "bindings": {"ws": {"method": "GET"}},
            }
        },
        "operations": {
            "fromClient": _operation("receive", protocol.CLIENT_FRAMES),
            "toClient": _operation("send", protocol.SERVER_FRAMES),
        },
        "components": {
            "messages": {name: _message(name) for name in _names()},
            "schemas": schemas(),
        },
    }


def _names() -> list[str]:
    return [kind.__name__ for kind in (*protocol.CLIENT_FRAMES, *protocol.SERVER_FRAMES)]


def _message(name: str) -> Schema:
    summary = schemas()[name].get("description", name).partition("\n")[0]
    return {"name": name, "summary": summary, "payload": _reference("schemas", name)}


def _operation(action: str, kinds: tuple[type[BaseModel], ...]) -> Schema:
    messages = [{"$ref": f"#/channels/agent/messages/{kind.__name__}"} for kind in kinds]
    return {"action": action, "channel": {"$ref": "#/channels/agent"}, "messages": messages}


def _reference(place: str, name: str) -> Schema:
    return {"$ref": f"#/components/{place}/{name}"}


@cache
def typescript() -> str:
    """Return TypeScript declarations of all types of the protocol.

    `ClientFrame` and `ServerFrame` are the unions of the frames of each side.
    """
    unions = [
        _union("ClientFrame", protocol.CLIENT_FRAMES),
        _union("ServerFrame", protocol.SERVER_FRAMES),
    ]
    return "\n\n".join([*(_declare(name, schema) for name, schema in schemas().items()), *unions])


def _union(name: str, kinds: tuple[type[BaseModel], ...]) -> str:
    return f"export type {name} = {' | '.join(kind.__name__ for kind in kinds)};\n"


def _declare(name: str, schema: Schema) -> str:
    words = " ".join(schema.get("description", "").split())
    comment = f"/** {words} */\n" if words else ""
    if schema.get("type") != "object":
        return f"{comment}export type {name} = {_type(schema)};"
    required = schema.get("required", ())
    lines = [
        f"  {key}{'' if key in required or 'const' in value else '?'}: {_type(value)};"
        for key, value in schema.get("properties", {}).items()
    ]
    return "\n".join([f"{comment}export interface {name} {{", *lines, "}"])


def _type(schema: Schema) -> str:
    match schema:
        case {"$ref": reference}:
            return str(reference).removeprefix(REFERENCE)
        case {"const": value}:
            return f'"{value}"'
        case {"enum": values}:
            return " | ".join(f'"{value}"' for value in values)
        case {"anyOf": kinds} | {"oneOf": kinds}:
            return " | ".join(_type(kind) for kind in kinds if kind.get("type") != "null")
        case {"type": "array", "items": items}:
            return f"({_type(items)})[]"
        case {"type": "object"}:
            return "Record<string, unknown>"
        case {"type": str(name)}:
            return TYPES[name]
        case _:
            return "unknown"
