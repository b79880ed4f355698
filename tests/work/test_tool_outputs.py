"""What people see of what a tool has returned."""

import base64
import dataclasses
import datetime
import json
from typing import Any

import pytest
from agents import ToolOutputFileContent, ToolOutputImage, ToolOutputText
from pydantic import BaseModel

from realtime.work.tools import describe_output

DATA = base64.b64encode(bytes(range(256)) * 4).decode()
PICTURE = f"data:image/png;base64,{DATA}"


class Weather(BaseModel):
    city: str
    degrees: int


@dataclasses.dataclass
class Place:
    name: str
    seen: datetime.date


class Opaque:
    pass


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        ("plain", "plain"),
        ("", ""),
        (None, ""),
        (42, "42"),
        (True, "true"),
        ({"type": "text", "text": "MCP noon"}, "MCP noon"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        ({"type": "image", "image_url": PICTURE}, "[picture]"),
        ([{"type": "input_text", "text": "a"}, {"type": "input_image"}], "a\n[picture]"),
        (ToolOutputText(text="hello"), "hello"),
        (ToolOutputImage(image_url=PICTURE), "[picture]"),
        ([ToolOutputText(text="See:"), ToolOutputImage(file_id="f")], "See:\n[picture]"),
        (ToolOutputFileContent(file_data=DATA, filename="a.pdf"), "[file: a.pdf]"),
        (PICTURE, "[picture]"),
        (f"Here: {PICTURE} and {DATA}.", "Here: [picture] and [data]."),
        ({"picture": DATA}, '{"picture": "[data]"}'),
        ("x" * 1000, "x" * 1000),
        ({"city": "Köln", "open": None}, '{"city": "Köln", "open": null}'),
        (["a", 1], '["a", 1]'),
        ([], "[]"),
        ({"type": "cat"}, '{"type": "cat"}'),
        (Weather(city="Köln", degrees=7), '{"city": "Köln", "degrees": 7}'),
        (Place("Köln", datetime.date(2026, 1, 2)), '{"name": "Köln", "seen": "2026-01-02"}'),
        ([Weather(city="Rom", degrees=9)], '[{"city": "Rom", "degrees": 9}]'),
        (b"\x00\x01", '"[data]"'),
        (Opaque(), '"[Opaque]"'),
        ({"of": Opaque()}, '{"of": "[Opaque]"}'),
    ],
)
def test_in_words(result: Any, shown: str) -> None:
    assert describe_output(result) == shown


def test_what_holds_itself() -> None:
    held: dict[Any, Any] = {(1, 2): 3}
    assert describe_output(held) == "{}"
    held["again"] = held
    assert describe_output(held) == "[dict]"


@pytest.mark.parametrize(
    ("block", "shown"),
    [
        ({"type": "audio", "data": DATA, "mimeType": "audio/wav"}, "[audio]"),
        ({"type": "resource", "resource": {"uri": "file:///a.txt", "text": "Hi"}}, "Hi"),
        ({"type": "resource", "resource": {"uri": "file:///a", "blob": DATA}}, "[file: file:///a]"),
        ({"type": "resource_link", "name": "a.txt", "uri": "file:///a.txt"}, "[link: a.txt]"),
    ],
)
def test_what_the_sdk_writes_as_json(block: dict[str, Any], shown: str) -> None:
    assert describe_output({"type": "text", "text": json.dumps(block)}) == shown
