"""Generates requests from a schema: every enum value, and every way to name an existing object."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

Schema = dict[str, Any]
Components = Mapping[str, Schema]

NAMES = {"parent_message_id": "message_id", "regenerate": "message_id"}
"""Fields that contain an id under another name than addresses use."""

EXAMPLES: dict[str, list[Any]] = {"content": ["x", ""], "agent": ["echo"], "scopes": [["read"]]}
ABSENT = object()


def variants(schema: Schema, ids: Mapping[str, str], components: Components) -> Iterator[Any]:
    """Yield objects of the schema: with and without each id, and with each value of an enum."""
    shape = _resolve(schema, components)
    if "content" in shape["properties"]:
        # A sender assigns `client_message_id`; it names no existing object.
        ids = {name: value for name, value in ids.items() if name != "client_message_id"}
    required = shape.get("required", ())
    names = list(shape["properties"])
    options = [
        _options(name, shape["properties"][name], ids, components, optional=name not in required)
        for name in names
    ]
    for choice in product(*options):
        pairs = zip(names, choice, strict=True)
        yield {name: value for name, value in pairs if value is not ABSENT}


def _options(
    name: str, schema: Schema, ids: Mapping[str, str], components: Components, *, optional: bool
) -> list[Any]:
    shape = _resolve(schema, components)
    if NAMES.get(name, name) in ids:
        return [ids[NAMES.get(name, name)], *([ABSENT] if optional else [])]
    assert not name.endswith("_id") or optional, f"whose {name}?"
    if name in EXAMPLES:
        return EXAMPLES[name]
    if "enum" in shape:
        return [*shape["enum"], *([ABSENT] if optional else [])]
    if "properties" in shape:
        return list(variants(shape, ids, components))
    return [shape["const"] if "const" in shape else _example(shape)]


def _resolve(schema: Schema, components: Components) -> Schema:
    """Resolve references, and take the first of several alternatives."""
    for word in ("allOf", "oneOf", "anyOf"):
        if word in schema:
            return _resolve(schema[word][0], components)
    if "$ref" in schema:
        return _resolve(components[schema["$ref"].rpartition("/")[2]], components)
    return schema


def _example(shape: Schema) -> Any:
    examples = {"boolean": False, "integer": 1, "number": 1, "array": [], "null": None}
    return examples.get(shape.get("type", ""), "x")
