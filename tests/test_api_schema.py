"""The descriptions of REST and of the socket, and what is said held against them."""

import json
from typing import Any

import jsonschema
import pytest
from django.core.management import call_command
from django.test import Client

from conversations.errors import ErrorCode
from realtime import protocol, wire_schema
from realtime.process import Process
from tests.support.addresses import routes
from tests.support.chats import make_user, talk
from tests.support.inprocess import open_chat_here
from tests.support.threads import in_thread

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
            jsonschema.Draft202012Validator.check_schema(schema)

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


def closed(schema: Any) -> Any:
    """The same, with nothing allowed that is not named."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(part) for name, part in schema.items()}
    if "properties" in found and isinstance(found["properties"], dict):
        found.setdefault("additionalProperties", False)
    return found


def faults(document: dict[str, Any], name: str, value: Any) -> list[str]:
    """Why a value is not of the named type of a document; undeclared fields are faults too."""
    schema = {
        "$ref": f"#/components/schemas/{name}",
        "components": closed(document["components"]),
    }
    found = jsonschema.Draft202012Validator(schema).iter_errors(value)
    return [f"{name}: {error.json_path}: {error.message[:200]}" for error in found]


@pytest.mark.django_db(transaction=True)
async def test_frames_are_what_is_declared(process: Process, settings: Any) -> None:
    settings.AGENTS = "tests.support.site_agents"
    ann = await in_thread(make_user, "ann")
    async with open_chat_here(ann) as client:
        accepted = await client.chat("hello")
        await client.wait_end(accepted["run_id"])
        await client.resume(accepted["session_id"], rev=0)
        await client.chat("again", accepted["session_id"], agent="patient")
        await client.chat("wait", accepted["session_id"])
        await client.cancel(accepted["session_id"])
        await client.send_text("nonsense")
        await client.ping(ts=1)
        frames = list(client.frames)
    kinds = {kind.model_fields["type"].default: kind for kind in protocol.SERVER_FRAMES}
    document = wire_schema.asyncapi()
    for frame in frames:
        assert faults(document, kinds[frame["type"]].__name__, frame) == []
    events = {frame["metadata"].get("event") for frame in frames}
    assert {"connected", "accepted", "resumed", "message.created", "queue.changed"} <= events


@pytest.mark.django_db
def test_answers_are_what_is_declared(openapi: dict[str, Any]) -> None:
    ann = make_user("ann")
    session = talk(ann, ("one", "1"))
    reply = session.messages.get(role="assistant")
    api = Client()
    api.force_login(ann)
    one = f"/api/sessions/{session.pk}/"
    run = f"{one}runs/{session.runs.get().pk}/"
    feedback = f"{one}messages/{reply.pk}/feedback/"
    key = {"name": "x", "scopes": ["read"]}
    asked = {
        "SessionDetail": api.get(one),
        "PaginatedListedSessionList": api.get("/api/sessions/"),
        "Session": api.patch(one, {"title": "new"}, "application/json"),
        "MessagePage": api.get(f"{one}messages/"),
        "PaginatedRunList": api.get(f"{one}runs/"),
        "RunDetail": api.get(run),
        "EventPage": api.get(f"{run}events/"),
        "Feedback": api.put(feedback, {"value": "up"}, "application/json"),
        "FeedbackList": api.get(f"{one}feedback/"),
        "NewShare": (share := api.post(f"{one}shares/")),
        "ShareList": api.get(f"{one}shares/"),
        "SharedSession": Client().get(f"/api/shared/{share.json()['token']}/"),
        "NewKey": api.post("/api/keys/", key, "application/json"),
        "KeyList": api.get("/api/keys/"),
        "Error": Client().get("/api/keys/"),
    }
    found = [faults(openapi, name, answer.json()) for name, answer in asked.items()]
    assert [fault for each in found for fault in each] == []
