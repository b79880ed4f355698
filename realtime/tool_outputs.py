"""What a tool has returned, in words for people: text as it is, all else by its kind."""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

NAMES = {"image": "picture", "audio": "audio", "video": "video", "file": "file"}
RESOURCES = ("audio", "image", "resource", "resource_link")
"""What MCP servers return beside text; the SDK gives some of it as JSON in a text."""

_DATA_URL = re.compile(r"data:(\w*)[\w/.+;=-]*;base64,[A-Za-z0-9+/=_-]*")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{256,}={0,2}")


def describe_output(result: object) -> str:
    """Text of whatever a tool returned; no `repr` of an object, and no encoded data."""
    if isinstance(result, str):
        return _without_data(result)
    if isinstance(result, list | tuple) and result and all(map(_is_part, result)):
        return "\n".join(map(describe_output, result))
    if _is_part(result):
        return _describe_part(_fields(result))
    if result is None:
        return ""
    try:
        text = json.dumps(result, ensure_ascii=False, default=_plain, skipkeys=True)
    except ValueError:
        # It holds itself.
        return f"[{type(result).__name__}]"
    return _without_data(text)


def _fields(value: object) -> Mapping[str, Any]:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return value if isinstance(value, Mapping) else {}


def _is_part(value: object) -> bool:
    kind = _fields(value).get("type")
    return isinstance(kind, str) and _kind_of(kind) in ("text", *NAMES, *RESOURCES)


def _kind_of(kind: str) -> str:
    return kind.removeprefix("input_").removeprefix("output_")


def _describe_part(part: Mapping[str, Any]) -> str:
    kind = _kind_of(part["type"])
    if kind == "text":
        return _describe_text(str(part.get("text") or ""))
    if kind == "resource":
        held = part.get("resource")
        held = held if isinstance(held, Mapping) else {}
        return _without_data(str(held.get("text") or "")) or _named("file", held.get("uri"))
    if kind == "resource_link":
        return _named("link", part.get("title") or part.get("name") or part.get("uri"))
    return _named(NAMES[kind], part.get("filename"))


def _describe_text(text: str) -> str:
    """The SDK writes what is neither text nor a picture as JSON."""
    if text.startswith("{"):
        try:
            held = json.loads(text)
        except ValueError:
            held = None
        if isinstance(held, dict) and held.get("type") in RESOURCES:
            return _describe_part(held)
    return _without_data(text)


def _named(kind: str, name: object) -> str:
    return f"[{kind}: {name}]" if isinstance(name, str) and name else f"[{kind}]"


def _without_data(text: str) -> str:
    text = _DATA_URL.sub(lambda found: f"[{NAMES.get(found[1], 'data')}]", text)
    return _BASE64.sub(lambda found: "[data]" if _is_data(found[0]) else found[0], text)


def _is_data(text: str) -> bool:
    """A long word may be a name or a line of dashes; data has all kinds of signs."""
    return all(re.search(kind, text) for kind in ("[a-z]", "[A-Z]", "[0-9]"))


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return "[data]"
    # What has a text of its own writes it in a method of its own.
    return f"[{type(value).__name__}]" if type(value).__str__ is object.__str__ else str(value)
