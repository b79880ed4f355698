"""Feedback and share links over REST, and the page behind a link."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from conversations.changes import write_events
from conversations.models import ChatSession, Feedback, Run, Share
from conversations.sessions import sharing
from conversations.sessions.sharing import BodyCache
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

    def test_comes_in_pages(self, api: Client, ann: Any) -> None:
        session = talk(ann, *[(f"q{n}", f"a{n}") for n in range(3)])
        for reply in session.messages.filter(role="assistant"):
            address = f"/api/sessions/{session.pk}/messages/{reply.pk}/feedback/"
            assert api.put(address, {"value": "up"}, JSON).status_code == 200
        seen, page = [], api.get(f"/api/sessions/{session.pk}/feedback/?page_size=2").json()
        assert len(page["results"]) == 2
        while page["results"]:
            seen += [entry["message_id"] for entry in page["results"]]
            page = api.get(page["next"]).json() if page["next"] else {"results": []}
        assert len(set(seen)) == len(seen) == 3

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

    def test_a_session_has_so_many_links(
        self, api: Client, session: ChatSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sharing, "SHARES_MAX", 2)
        address = f"/api/sessions/{session.pk}/shares/"
        made = [api.post(address) for _ in range(3)]
        assert [answer.status_code for answer in made] == [201, 201, 403]
        api.delete(f"{address}{made[0].json()['id']}/")
        assert api.post(address).status_code == 201

    def test_nobody_shares_what_is_not_theirs(self, api: Client, session: ChatSession) -> None:
        foreign = talk(make_user("ben"), ("secret", "1"))
        assert api.post(f"/api/sessions/{foreign.pk}/shares/").status_code == 404
        empty = api.post("/api/sessions/", {}, JSON).json()["id"]
        assert api.post(f"/api/sessions/{empty}/shares/").status_code == 404


class TestPages:
    """A long conversation, seen by strangers."""

    @pytest.fixture(autouse=True)
    def small_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sharing, "PAGE", 4)

    @pytest.fixture
    def long(self, ann: Any) -> ChatSession:
        return talk(ann, *((f"question {n}", f"answer {n}") for n in range(5)))

    @pytest.fixture
    def share(self, api: Client, long: ChatSession) -> dict[str, Any]:
        made: dict[str, Any] = api.post(f"/api/sessions/{long.pk}/shares/").json()
        return made

    def test_go_on_from_each_other(self, share: dict[str, Any], client: Client) -> None:
        address = f"/api/shared/{share['token']}/"

        def walk(start: str, way: str, param: str) -> list[list[str]]:
            pages: list[list[str]] = []
            query: str | None = start
            while query is not None:
                page = client.get(f"{address}?{param}={query}").json()
                pages.append([message["text"] for message in page["messages"]])
                query = page[way]
            return pages

        forth = walk("", "next", "after")
        said = [text for n in range(5) for text in (f"question {n}", f"answer {n}")]
        assert forth == [said[:4], said[4:8], said[8:]]
        last = client.get(f"{address}?after=").json()["next"]
        last = client.get(f"{address}?after={last}").json()["next"]
        before_last = client.get(f"{address}?after={last}").json()["previous"]
        assert walk(before_last, "previous", "before") == [said[4:8], said[:4]]

    def test_are_linked_without_a_script(self, share: dict[str, Any], client: Client) -> None:
        address, seen = f"/shared/{share['token']}/", []
        link: re.Match[str] | None = re.match("(.*)", "")
        while link:
            page = client.get(address + link[1]).content.decode()
            seen += re.findall(r"answer \d", page)
            link = re.search(r'rel="next" href="(\?after=[0-9a-f-]+)"', page)
        assert seen == [f"answer {n}" for n in range(5)]
        link = re.search(r'rel="prev" href="(\?before=[0-9a-f-]+)"', page)
        assert link
        assert "answer 3" in client.get(address + link[1]).content.decode()

    @pytest.mark.parametrize("kind", ["/api/shared/", "/shared/"])
    def test_of_what_is_not_shared_are_not_there(
        self, share: dict[str, Any], ann: Any, long: ChatSession, client: Client, kind: str
    ) -> None:
        finish(ask(ann, "private", long), "2")
        later = last_message(session_of_pk(long))
        for query in (f"after={later.pk}", f"before={later.pk}", "after=nonsense"):
            assert client.get(f"{kind}{share['token']}/?{query}").status_code == 404

    @pytest.mark.parametrize("kind", ["/api/shared/", "/shared/"])
    def test_are_made_once_for_each_revision(
        self,
        share: dict[str, Any],
        api: Client,
        long: ChatSession,
        client: Client,
        kind: str,
        counted: Callable[[], int],
    ) -> None:
        address = f"{kind}{share['token']}/"
        first = client.get(address)
        assert (first["Cache-Control"], counted()) == ("private, no-cache", 1)
        known = {"HTTP_IF_NONE_MATCH": first["ETag"]}
        again = client.get(address, **known)  # type: ignore[arg-type]
        assert (again.status_code, again.content, counted()) == (304, b"", 1)
        assert (again["X-Robots-Tag"], again["Referrer-Policy"]) == ("noindex", "no-referrer")
        assert client.get(address).content == first.content
        assert counted() == 1
        api.patch(f"/api/sessions/{long.pk}/", {"title": "another"}, JSON)
        changed = client.get(address, **known)  # type: ignore[arg-type]
        assert (changed.status_code, counted()) == (200, 2)
        assert "another" in changed.content.decode()

    @pytest.fixture
    def counted(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
        """How often a page was read from the database."""
        calls: list[object] = []
        real = sharing.read_shared

        def read(*args: Any, **asked: Any) -> Any:
            calls.append(args)
            return real(*args, **asked)

        monkeypatch.setattr(sharing, "read_shared", read)
        return lambda: len(calls)

    @pytest.mark.parametrize("kind", ["/api/shared/", "/shared/"])
    def test_end_with_their_link_whatever_was_kept(
        self, share: dict[str, Any], api: Client, long: ChatSession, client: Client, kind: str
    ) -> None:
        address = f"{kind}{share['token']}/"
        known = {"HTTP_IF_NONE_MATCH": client.get(address)["ETag"]}
        api.delete(f"/api/sessions/{long.pk}/shares/{share['id']}/")
        for headers in ({}, known):
            assert client.get(address, **headers).status_code == 404  # type: ignore[arg-type]

    def test_grow_with_a_reply_at_work(self, api: Client, ann: Any, client: Client) -> None:
        posted = ask(ann, "question")
        run = begin(posted, "so").run
        token = api.post(f"/api/sessions/{posted.session_id}/shares/").json()["token"]
        assert client.get(f"/api/shared/{token}/").json()["messages"][1]["text"] == "so"
        write_events(run, [(3, "token", {"delta": " far"})])
        Run.objects.update(last_seq=3)
        assert client.get(f"/api/shared/{token}/").json()["messages"][1]["text"] == "so far"

    def test_are_limited_for_each_address(
        self, share: dict[str, Any], client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Counted in the database: by pages and API together, and by all processes."""
        monkeypatch.setattr(sharing, "VIEWS_AN_ADDRESS", 3)
        addresses = [f"/shared/{share['token']}/", f"/api/shared/{share['token']}/"]
        assert [client.get(address).status_code for address in addresses] == [200, 200]
        assert client.get("/shared/unknown/").status_code == 404
        for address in addresses:
            refused = client.get(address)
            assert (refused.status_code, 0 < int(refused["Retry-After"]) <= 300) == (429, True)
            elsewhere = client.get(address, REMOTE_ADDR="192.0.2.7")
            assert elsewhere.status_code == 200


def session_of_pk(session: ChatSession) -> ChatSession:
    """The session as it is now."""
    return ChatSession.objects.get(pk=session.pk)


class TestBodyCache:
    def test_drops_what_was_used_least_recently(self) -> None:
        cache = BodyCache(10)
        cache.put("a", b"1234")
        cache.put("b", b"1234")
        assert cache.get("a") == b"1234"
        cache.put("c", b"1234")
        assert [cache.get(key) for key in "abc"] == [b"1234", None, b"1234"]

    def test_keeps_nothing_that_is_larger_than_itself(self) -> None:
        cache = BodyCache(10)
        cache.put("b", b"12")
        cache.put("b", b"123")
        cache.put("a", b"1")
        cache.put("a", b"1" * 11)
        assert (cache.get("a"), cache.get("b")) == (None, b"123")
