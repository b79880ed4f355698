"""No test is sent anything that the site does not declare: the first thing that is fails it."""

from typing import Any

import pytest
from django.http import StreamingHttpResponse
from django.test import AsyncClient, Client
from rest_framework.response import Response

from conversations.api import messages
from conversations.models import ChatSession
from realtime import protocol
from realtime.api import turns
from realtime.process import Process
from tests.harness.test_support_transcript import (
    WHOLE,
    accepted,
    complete,
    resumed,
    snapshot,
    token,
)
from tests.support.chats import make_user, talk
from tests.support.conformance import check_answer, check_frame
from tests.support.inprocess import open_chat_here
from tests.support.threads import in_thread
from tests.support.transcript import Frame, event_of

STREAM = {"Accept": "text/event-stream"}


class TestFrames:
    @pytest.mark.parametrize("frame", [*WHOLE, accepted(duplicate=False), snapshot("a", 2)])
    def test_that_are_declared(self, frame: Frame) -> None:
        check_frame(frame)

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"type": "melody"}, "melody is no frame"),
            ({"mood": "merry"}, "mood"),
            ({"content": 7}, "content: 7 is not of type"),
            ({"metadata": {}}, "metadata: .*required"),
        ],
    )
    def test_that_are_not(self, change: Frame, told: str) -> None:
        with pytest.raises(AssertionError, match=told):
            check_frame(token("a", 2) | change)

    @pytest.mark.parametrize(
        ("frame", "field", "value"),
        [
            (token("a", 2), "mood", "merry"),
            (token("a", 2), "seq", "2"),
            (complete("a", 2), "finish_reason", "bored"),
            (complete("a", 2), "usage", {"effort": 1}),
            (resumed(), "event", "assumed"),
            (resumed(), "rev", None),
        ],
    )
    def test_whose_fields_are_not(self, frame: Frame, field: str, value: Any) -> None:
        wrong = frame | {"metadata": frame["metadata"] | {field: value}}
        with pytest.raises(AssertionError, match=field if event_of(wrong) != value else value):
            check_frame(wrong)


@pytest.mark.django_db(transaction=True)
async def test_a_socket_that_is_sent_one(process: Process, monkeypatch: Any) -> None:
    class Merry(protocol.ServerPong):
        mood: str = "merry"

    monkeypatch.setattr(protocol, "ServerPong", Merry)
    with pytest.raises(AssertionError, match="mood"):
        async with open_chat_here(await in_thread(make_user, "ann")) as client:
            await client.ping()


@pytest.fixture
def session(db: None) -> ChatSession:
    return talk(make_user("ann"), ("one", "1"))


@pytest.fixture
def api(session: ChatSession) -> Client:
    client = Client()
    client.force_login(session.owner)
    return client


class TestAnswers:
    @pytest.mark.parametrize(
        ("answer", "told"),
        [
            (Response({"queue": [], "mood": "merry"}), "mood"),
            (Response({"queue": [{"run_id": "x"}]}), "queue.0: .*required"),
            (Response({"queue": []}, status=418), "418 is not declared"),
            (Response({"error": "no"}, status=404), "error"),
            (Response({"queue": []}, content_type="text/plain"), "text/plain.*not declared"),
        ],
    )
    def test_a_client_that_is_given_another(
        self, api: Client, session: ChatSession, monkeypatch: Any, answer: Response, told: str
    ) -> None:
        address = f"/api/sessions/{session.pk}/queue/"
        assert api.get(address).json() == {"queue": []}
        monkeypatch.setattr(messages, "_answer", lambda waiting: answer)
        with pytest.raises(AssertionError, match=told):
            api.get(address)

    @pytest.mark.django_db(transaction=True)
    async def test_a_stream_with_another(self, process: Process, monkeypatch: Any) -> None:
        async def pieces() -> Any:
            yield 'event: token\ndata: {"type": "melody"}\n\n'

        async def stream(frames: Any) -> StreamingHttpResponse:
            await frames.aclose()
            return StreamingHttpResponse(pieces(), content_type="text/event-stream")

        monkeypatch.setattr(turns, "_stream", stream)
        browser = AsyncClient()
        await browser.aforce_login(await in_thread(make_user, "ann"))
        answer: Any = await browser.post(
            "/api/chat/", {"content": "x"}, "application/json", headers=STREAM
        )
        with pytest.raises(AssertionError, match="melody"):
            [piece async for piece in answer]

    def test_a_method_that_is_not_there(self, api: Client) -> None:
        assert api.put("/api/sessions/").status_code == 405
        with pytest.raises(AssertionError, match="not declared"):
            check_answer("PUT", "/api/sessions/", 200, "application/json", b"{}")

    def test_what_is_no_part_of_the_api(self) -> None:
        assert Client().get("/api/asyncapi.json").json()["asyncapi"]
        assert Client().get("/api/melody/").status_code == 404
