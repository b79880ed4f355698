"""The descriptions of REST and of the socket; tests/support/watching.py holds answers to them."""

import json
from typing import Any

import jsonschema_rs
import pytest
from django.core.management import call_command
from django.test import Client

from conversations.errors import ErrorCode
from realtime import protocol, wire_schema
from tests.support.addresses import routes

# Neither a call of the API nor a part of its description.
BESIDE = {"/api/schema/", "/api/docs/", "/api/asyncapi.json", "/api/protocol.d.ts"}


@pytest.fixture(scope="module")
def openapi() -> dict[str, Any]:
    document: dict[str, Any] = Client().get("/api/schema/?format=json").json()
    return document


class TestOpenAPI:
    def test_it_is_valid_and_nothing_was_guessed(self, tmp_path: Any) -> None:
        call_command(
            "spectacular", "--validate", "--fail-on-warn", "--file", str(tmp_path / "schema.yaml")
        )

    def test_every_address_is_described(self, openapi: dict[str, Any]) -> None:
        there = {route.address.replace("<str:", "{").replace(">", "}") for route in routes("/api/")}
        assert set(openapi["paths"]) == there - BESIDE

    def test_every_error_code_is(self, openapi: dict[str, Any]) -> None:
        error = openapi["components"]["schemas"]["Error"]["properties"]["error"]
        assert set(error["properties"]["code"]["enum"]) == set(ErrorCode)

    def test_no_parameter_is_that_is_refused(self, openapi: dict[str, Any]) -> None:
        """A `format` is, although some views have several renderers."""
        told = [
            (path, method)
            for path, operations in openapi["paths"].items()
            for method, operation in operations.items()
            if "format" in {it["name"] for it in operation.get("parameters", ())}
        ]
        assert told == []

    def test_the_page_runs_nothing_from_elsewhere(self) -> None:
        page = Client().get("/api/docs/")
        text = page.content.decode()
        assert page.status_code == 200
        assert "//cdn" not in text
        assert "<script>" not in text
        assert "script-src 'self';" in page["Content-Security-Policy"] + ";"
        assert "'unsafe-inline'" not in Client().get("/accounts/login/")["Content-Security-Policy"]


class TestAsyncAPI:
    def test_it_is_valid_and_whole(self) -> None:
        document = Client().get("/api/asyncapi.json").json()
        assert document["asyncapi"].startswith("3.")
        text = json.dumps(document)
        for reference in set(references(document)):
            assert resolve(document, reference) is not None
        for kind in (*protocol.CLIENT_FRAMES, *protocol.SERVER_FRAMES):
            assert f"#/channels/agent/messages/{kind.__name__}" in text
        for schema in document["components"]["schemas"].values():
            jsonschema_rs.meta.validate(schema)

    def test_typescript_declares_every_frame(self) -> None:
        text = Client().get("/api/protocol.d.ts").content.decode()
        for name in wire_schema.schemas():
            assert f"export interface {name} {{" in text or f"export type {name} =" in text
        assert "unknown;" not in text.replace("Record<string, unknown>", "")
        assert 'type: "token";' in text
        assert "metadata: SequencedMetadata;" in text


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for part in node for found in references(part)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return [*own, *(found for part in node.values() for found in references(part))]


def resolve(document: Any, reference: str) -> Any:
    found = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found
