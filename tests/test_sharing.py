"""Feedback and share links over REST, and the page behind a link."""

import re
from typing import Any

import pytest
from django.test import Client

from conversations.models import ChatSession, Feedback, Share
from tests.support.chats import ask, begin, finish, last_message, make_user, session_of, talk

pytestmark = pytest.mark.django_db

JSON = "application/json"


@pytest.fixture
def ann() -> Any:
    return make_user("ann")


@pytest.fixture
def api(ann: Any) -> Client:
    client = Client()
    client.force_login(ann)
    return client


@pytest.fixture
def session(ann: Any) -> ChatSession:
    return talk(ann, ("one", "**1**"))


def reply_address(session: ChatSession) -> str:
    reply = session.messages.get(role="assistant")
    return f"/api/sessions/{session.pk}/messages/{reply.pk}/feedback/"


class TestFeedback:
    def test_is_given_changed_and_taken_back(self, api: Client, session: ChatSession) -> None:
        address, listed = reply_address(session), f"/api/sessions/{session.pk}/feedback/"
        assert api.put(address, {"value": "up"}, JSON).status_code == 200
        api.put(address, {"value": "down", "comment": "wrong"}, JSON)
        given = api.get(listed).json()["results"]
        assert [(entry["value"], entry["comment"]) for entry in given] == [("down", "wrong")]
        assert api.delete(address).status_code == api.delete(address).status_code == 204
        assert api.get(listed).json()["results"] == []

    @pytest.mark.parametrize(
        "body", [{}, {"value": "maybe"}, {"value": "up", "comment": "x" * 4_001}, {"value": ["up"]}]
    )
    def test_of_another_kind_is_refused(
        self, api: Client, session: ChatSession, body: dict[str, Any]
    ) -> None:
        assert api.put(reply_address(session), body, JSON).status_code == 400

    def test_is_for_ones_own_replies(self, api: Client, session: ChatSession) -> None:
        foreign = talk(make_user("ben"), ("secret", "1"))
        prompt = session.messages.get(role="user")
        for address in (
            reply_address(foreign),
            f"/api/sessions/{session.pk}/messages/{prompt.pk}/feedback/",
        ):
            assert api.put(address, {"value": "up"}, JSON).status_code == 404
            assert api.delete(address).status_code == 404
        assert not Feedback.objects.exists()


class TestShares:
    def share(self, api: Client, session: ChatSession) -> dict[str, Any]:
        made: dict[str, Any] = api.post(f"/api/sessions/{session.pk}/shares/").json()
        return made

    def test_anybody_with_the_link_reads(
        self, api: Client, session: ChatSession, client: Client
    ) -> None:
        token = self.share(api, session)["token"]
        body = client.get(f"/api/shared/{token}/").json()
        assert body["title"] == "one"
        assert [(m["role"], m["text"]) for m in body["messages"]] == [
            ("user", "one"),
            ("assistant", "**1**"),
        ]
        page = client.get(f"/shared/{token}/")
        assert "<strong>1</strong>" in page.content.decode()
        assert (page["X-Robots-Tag"], page["Referrer-Policy"]) == ("noindex", "no-referrer")

    def test_what_was_scripted_is_marked(
        self, api: Client, ann: Any, session: ChatSession, client: Client
    ) -> None:
        def look(shared: ChatSession) -> tuple[str, int]:
            page = client.get(f"/shared/{self.share(api, shared)['token']}/").content.decode()
            told = re.search(r"Replies are [^.<]*", page)
            return told[0] if told else "", page.count("scripted, not an AI")

        assert look(session) == ("Replies are written by an AI and can be wrong", 0)
        tour = [{"type": "agent", "name": "tour"}, {"type": "text", "text": "Look here."}]
        posted = ask(ann, "show me around")
        finish(posted, "", parts=tour)
        assert look(session_of(posted)) == ("Replies are scripted, not written by an AI", 1)
        finish(more := ask(ann, "and now?", session_of(posted)), "An answer.")
        told, marks = look(session_of(more))
        assert (told.count("except where marked as scripted"), marks) == (1, 1)

    def test_what_is_said_later_is_not_shared(
        self, api: Client, ann: Any, session: ChatSession, client: Client
    ) -> None:
        token = self.share(api, session)["token"]
        finish(ask(ann, "private", session), "2")
        assert "private" not in client.get(f"/api/shared/{token}/").content.decode()

    def test_what_is_taken_back_is_not_shared_any_more(
        self, api: Client, ann: Any, session: ChatSession, client: Client
    ) -> None:
        ask(ann, "at work", session)
        waiting = ask(ann, "a slip", session)
        address = f"/api/shared/{self.share(api, session)['token']}/"
        assert "a slip" in client.get(address).content.decode()
        api.delete(f"/api/sessions/{session.pk}/queue/{waiting.run.run_id}/")
        texts = [message["text"] for message in client.get(address).json()["messages"]]
        assert texts == ["one", "**1**", "at work", ""]

    def test_what_takes_a_place_before_it_later_is_not_shared(
        self, api: Client, ann: Any, session: ChatSession, client: Client
    ) -> None:
        begin(ask(ann, "at work", session))
        ask(ann, "first of all", session, on_busy="interrupt")
        ask(ann, "waiting", session)
        address = f"/api/shared/{self.share(api, session)['token']}/"
        ask(ann, "private", session, on_busy="interrupt")
        asked = [m["text"] for m in client.get(address).json()["messages"] if m["role"] == "user"]
        assert asked == ["one", "at work", "first of all", "waiting"]

    def test_the_branch_that_is_looked_at(
        self, api: Client, ann: Any, session: ChatSession, client: Client
    ) -> None:
        first = last_message(session)
        finish(ask(ann, "two", session), "2")
        finish(ask(ann, "uno", session, parent_message_id=""), "I")
        listed = f"/api/sessions/{session.pk}/shares/"

        def shown(query: str) -> list[str]:
            token = api.post(f"{listed}{query}").json()["token"]
            messages = client.get(f"/api/shared/{token}/").json()["messages"]
            return [message["text"] for message in messages]

        assert shown("") == shown("?branch=") == ["uno", "I"]
        assert shown(f"?branch={first.pk}") == ["one", "**1**", "two", "2"]
        foreign = last_message(talk(make_user("ben"), ("secret", "1")))
        for branch in (foreign.pk, "nonsense"):
            assert api.post(f"{listed}?branch={branch}").status_code == 404

    def test_tools_are_not_shared(self, api: Client, ann: Any, client: Client) -> None:
        posted = ask(ann, "one")
        tool = {"type": "tool", "tool_call_id": "1", "name": "x", "status": "finished"}
        parts = [tool | {"output": "secret"}, {"type": "reasoning", "text": "secret"}]
        finish(posted, "", parts=[*parts, {"type": "text", "text": "fine"}])
        token = self.share(api, session_of(posted))["token"]
        for address in (f"/api/shared/{token}/", f"/shared/{token}/"):
            text = client.get(address).content.decode()
            assert "fine" in text
            assert "secret" not in text

    def test_a_revoked_link_shows_nothing(
        self, api: Client, session: ChatSession, client: Client
    ) -> None:
        made = self.share(api, session)
        listed = f"/api/sessions/{session.pk}/shares/"
        assert [entry["id"] for entry in api.get(listed).json()["results"]] == [made["id"]]
        assert api.delete(f"{listed}{made['id']}/").status_code == 204
        assert api.delete(f"{listed}{made['id']}/").status_code == 404
        assert client.get(f"/api/shared/{made['token']}/").status_code == 404
        assert client.get(f"/shared/{made['token']}/").status_code == 404
        assert api.get(listed).json()["results"] == []

    def test_a_deleted_session_or_a_disabled_account_ends_the_link(
        self, api: Client, ann: Any, session: ChatSession, client: Client
    ) -> None:
        address = f"/api/shared/{self.share(api, session)['token']}/"
        api.delete(f"/api/sessions/{session.pk}/")
        assert client.get(address).status_code == 404
        api.post(f"/api/sessions/{session.pk}/restore/")
        assert client.get(address).status_code == 200
        type(ann).objects.update(is_active=False)
        assert client.get(address).status_code == 404

    def test_the_token_is_long_and_kept_as_a_hash(self, api: Client, session: ChatSession) -> None:
        token = self.share(api, session)["token"]
        assert len(token) >= 43
        assert token not in str(Share.objects.values())
        assert token not in api.get(f"/api/sessions/{session.pk}/shares/").content.decode()

    def test_nobody_shares_what_is_not_theirs(self, api: Client, session: ChatSession) -> None:
        foreign = talk(make_user("ben"), ("secret", "1"))
        assert api.post(f"/api/sessions/{foreign.pk}/shares/").status_code == 404
        empty = api.post("/api/sessions/", {}, JSON).json()["id"]
        assert api.post(f"/api/sessions/{empty}/shares/").status_code == 404
