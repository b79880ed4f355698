"""Describes JSON Schema in words, for tables."""

from collections.abc import Iterable, Mapping
from typing import Any

Schema = Mapping[str, Any]

# Types that a page explains under another heading than their name.
ANCHORS = {"ErrorCode": "error-codes"}


def describe(schema: Schema) -> str:
    """Describe the values that a schema allows, without the null of an optional field."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{ANCHORS.get(name, name.lower())})"
    if "anyOf" in schema:
        return " or ".join(describe(kind) for kind in schema["anyOf"] if kind.get("type") != "null")
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of {describe(schema['items'])}"
    return ", ".join([schema["type"], *bounds(schema)])


def bounds(schema: Schema) -> list[str]:
    """Describe the bounds of a number, or of the number of characters of a text."""
    least = schema.get("minimum", schema.get("minLength"))
    most = schema.get("maximum", schema.get("maxLength"))
    unit = " characters" if schema["type"] == "string" else ""
    if least is not None and most is not None:
        return [f"{least} to {most}{unit}"]
    above = schema.get("exclusiveMinimum")
    words = {"above": above, "at least": least, "at most": most}
    return [f"{word} {value}{unit}" for word, value in words.items() if value is not None]


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
