"""Sessions begun, renamed, archived, deleted and restored over REST, and what sockets are told."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import AsyncClient, Client
from django.utils import timezone

from conversations.models import ChatSession, Run, RunStatus
from realtime.process import Process
from tests.support.chats import ask, begin, finish, make_user, session_of, talk
from tests.support.client import event
from tests.support.inprocess import open_chat_here
from tests.support.threads import in_thread
from tests.support.transcript import event_of

JSON = "application/json"


@pytest.fixture
def ann(db: None) -> Any:
    return make_user("ann")


@pytest.fixture
def api(ann: Any) -> Client:
    client = Client()
    client.force_login(ann)
    return client


def titles(api: Client, query: str = "") -> list[str]:
    return [entry["title"] for entry in api.get(f"/api/sessions/{query}").json()["results"]]


class TestChanges:
    def test_a_session_is_begun_empty(self, api: Client) -> None:
        answer = api.post("/api/sessions/", {"title": "Plans"}, JSON)
        assert answer.status_code == 201
        body = api.get(f"/api/sessions/{answer.json()['id']}/").json()
        assert (body["title"], body["messages"]) == ("Plans", [])

    def test_a_new_name(self, api: Client, ann: Any) -> None:
        session = talk(ann, ("one", "1"))
        answer = api.patch(f"/api/sessions/{session.pk}/", {"title": " New "}, JSON)
        assert (answer.status_code, answer.json()["title"]) == (200, "New")
        assert answer.json()["rev"] == session.rev + 1

    @pytest.mark.parametrize("title", ["", "x" * 201, "a\x00b", "\ud800", None, {}])
    def test_a_name_that_cannot_be_kept(self, api: Client, ann: Any, title: object) -> None:
        session = talk(ann, ("one", "1"))
        answer = api.patch(f"/api/sessions/{session.pk}/", {"title": title}, JSON)
        assert answer.status_code == 400
        assert titles(api) == ["one"]

    def test_archived_sessions_are_on_a_list_of_their_own(self, api: Client, ann: Any) -> None:
        session = talk(ann, ("one", "1"))
        api.patch(f"/api/sessions/{session.pk}/", {"archived": True}, JSON)
        assert titles(api) == []
        assert titles(api, "?state=archived") == titles(api, "?state=all") == ["one"]
        api.patch(f"/api/sessions/{session.pk}/", {"archived": False}, JSON)
        assert titles(api) == ["one"]

    def test_pinned_until_it_is_not(self, api: Client, ann: Any) -> None:
        session = talk(ann, ("one", "1"))
        for pinned in (True, False):
            answer = api.patch(f"/api/sessions/{session.pk}/", {"pinned": pinned}, JSON)
            assert answer.json()["pinned"] is pinned
            assert api.get("/api/sessions/").json()["results"][0]["pinned"] is pinned

    def test_a_change_keeps_the_place_in_the_list(self, api: Client, ann: Any) -> None:
        older, _ = talk(ann, ("older", "1")), talk(ann, ("newer", "2"))
        api.patch(f"/api/sessions/{older.pk}/", {"title": "old"}, JSON)
        assert titles(api) == ["newer", "old"]

    def test_deleted_and_restored(self, api: Client, ann: Any) -> None:
        session = talk(ann, ("one", "1"))
        address = f"/api/sessions/{session.pk}/"
        assert api.delete(address).status_code == 204
        assert api.get(address).status_code == api.delete(address).status_code == 404
        assert titles(api) == []
        assert titles(api, "?state=deleted") == ["one"]
        answer = api.post(f"{address}restore/")
        assert (answer.status_code, answer.json()["deleted_at"]) == (200, None)
        assert titles(api) == ["one"]

    def test_what_was_deleted_long_ago_is_gone(self, api: Client, ann: Any, settings: Any) -> None:
        settings.RESTORE_DAYS = 1
        session = talk(ann, ("one", "1"))
        ChatSession.objects.update(deleted_at=timezone.now() - timedelta(days=2))
        assert titles(api, "?state=deleted") == []
        assert api.post(f"/api/sessions/{session.pk}/restore/").status_code == 404

    def test_deleting_stops_what_works_and_what_waits(self, api: Client, ann: Any) -> None:
        working = ask(ann, "one")
        begin(working, "so ", "far")
        waiting = ask(ann, "two", session_of(working))
        api.delete(f"/api/sessions/{working.session_id}/")
        assert Run.objects.get(pk=working.run_id).cancel_requested_at is not None
        assert Run.objects.get(pk=waiting.run_id).status == RunStatus.CANCELLED

    def test_nobody_else_can(self, api: Client, ann: Any) -> None:
        foreign = talk(make_user("ben"), ("secret", "1"))
        address = f"/api/sessions/{foreign.pk}/"
        answers = [
            api.patch(address, {"title": "mine"}, JSON),
            api.patch(address, {}, JSON),
            api.delete(address),
            api.post(f"{address}restore/"),
            *(api.get(f"{address}{name}/") for name in ("messages", "runs")),
        ]
        assert {answer.status_code for answer in answers} == {404}
        assert ChatSession.objects.get(pk=foreign.pk) == foreign

    def test_a_cookie_alone_changes_nothing(self, ann: Any) -> None:
        session = talk(ann, ("one", "1"))
        client = Client(enforce_csrf_checks=True)
        client.force_login(ann)
        address = f"/api/sessions/{session.pk}/"
        assert client.delete(address).status_code == 403
        assert client.get(address).status_code == 200


class TestFilters:
    @pytest.mark.parametrize(
        ("search", "found"),
        [
            ("ORCHARD", ["b"]),
            ("a b", ["a b"]),
            ("pear tree", ["b"]),
            ('"x"', ["b"]),
            ("Bäume", ["b"]),
            ("tool", []),
            ("%", []),
            ("_", []),
        ],
    )
    def test_by_title_and_text(self, api: Client, ann: Any, search: str, found: list[str]) -> None:
        talk(ann, ("a b", "1"))
        session = talk(ann, ("b", 'Pear trees make an orchard. Bäume. "x"'))
        ChatSession.objects.filter(pk=session.pk).update(title="b")
        answer = api.get("/api/sessions/", {"search": search})
        assert [entry["title"] for entry in answer.json()["results"]] == found

    def test_by_how_replies_ended(self, api: Client, ann: Any) -> None:
        talk(ann, ("good", "1"))
        posted = ask(ann, "bad")
        finish(posted, "", status=RunStatus.FAILED, error_code="internal")
        assert titles(api, "?status=failed") == ["bad"]

    def test_by_date(self, api: Client, ann: Any) -> None:
        session = talk(ann, ("one", "1"))
        moment = session.active_at.isoformat()
        for query, found in (("active_after", ["one"]), ("active_before", [])):
            answer = api.get("/api/sessions/", {query: moment})
            assert [entry["title"] for entry in answer.json()["results"]] == found

    @pytest.mark.parametrize(
        "query", ["state=x", "status=x", "active_after=x", "search=%00", f"search={'x' * 201}"]
    )
    def test_a_wrong_filter(self, api: Client, query: str) -> None:
        answer = api.get(f"/api/sessions/?{query}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_frame")

    @pytest.mark.parametrize("cursor", ["x", "cD14", "bz0tMQ==", "cD0lMDA=", "cD05OTk5OTk5OTk5"])
    def test_a_cursor_of_somebody_elses_making(self, api: Client, ann: Any, cursor: str) -> None:
        talk(ann, ("one", "1"))
        assert api.get(f"/api/sessions/?cursor={cursor}").status_code in (200, 404)


class TestReading:
    def test_messages_page_by_page(self, api: Client, ann: Any) -> None:
        session = talk(ann, ("one", "1"), ("two", "2"))
        seen, address = [], f"/api/sessions/{session.pk}/messages/?page_size=3"
        while address:
            body = api.get(address).json()
            seen += [message["text"] for message in body["results"]]
            address = body["next"]
        assert seen == ["one", "1", "two", "2"]

    def test_replies_the_latest_first(self, api: Client, ann: Any) -> None:
        session = talk(ann, ("one", "1"), ("two", "2"))
        body = api.get(f"/api/sessions/{session.pk}/runs/").json()
        assert [run["run_number"] for run in body["results"]] == [2, 1]
        one = api.get(f"/api/sessions/{session.pk}/runs/{body['results'][1]['run_id']}/").json()
        assert one == {**body["results"][1], "tools": []}
        assert one["status"] == "completed"
        assert one["claimed_at"] <= one["ended_at"]

    def test_a_journal_from_a_cursor(self, api: Client, ann: Any) -> None:
        posted = ask(ann, "one")
        begin(posted, "so ", "far")
        address = f"/api/sessions/{posted.session_id}/runs/{posted.run.run_id}/events/"
        body = api.get(address, {"limit": 2}).json()
        assert [event["kind"] for event in body["events"]] == ["run.started", "token"]
        rest = api.get(address, {"after": body["next_after"]}).json()
        assert [event["payload"] for event in rest["events"]] == [{"delta": "far"}]
        assert (rest["seq"], rest["next_after"]) == (3, 3)
        assert api.get(address, {"after": "x"}).status_code == 400

    def test_a_run_of_another_session_is_not_there(self, api: Client, ann: Any) -> None:
        one, two = talk(ann, ("one", "1")), talk(ann, ("two", "2"))
        run = Run.objects.get(session=two)
        assert api.get(f"/api/sessions/{one.pk}/runs/{run.pk}/").status_code == 404


@pytest.mark.django_db(transaction=True)
async def test_every_tab_is_told(process: Process, settings: Any) -> None:
    settings.AGENTS = "tests.support.site_agents"
    ann = await in_thread(make_user, "ann")
    api = AsyncClient()
    await api.aforce_login(ann)
    async with open_chat_here(ann) as tab:
        body = (await api.post("/api/sessions/", {"title": "Plans"}, JSON)).json()
        address = f"/api/sessions/{body['id']}/"
        await tab.wait_for(event("session.created", title="Plans", rev=0))
        await api.patch(address, {"pinned": True}, JSON)
        await tab.wait_for(event("session.updated", pinned=True))
        await api.patch(address, {"title": "New", "archived": True}, JSON)
        await tab.wait_for(event("session.updated", title="New", archived=True))
        accepted = await tab.chat("hello", body["id"])
        await tab.wait_for(event("session.activity", title="New", archived=False))
        await tab.wait_end(accepted["run_id"])
        await api.delete(address)
        await tab.wait_for(event("session.deleted"))
        await api.post(f"{address}restore/")
        await tab.wait_for(event("session.updated", archived=False))


@pytest.mark.django_db(transaction=True)
async def test_every_tab_is_told_of_verdicts_and_links(process: Process) -> None:
    ann = await in_thread(make_user, "ann")
    session = await in_thread(talk, ann, ("one", "1"))
    reply = str(session.active_leaf_id)
    api = AsyncClient()
    await api.aforce_login(ann)
    address = f"/api/sessions/{session.pk}/"
    async with (
        open_chat_here(ann) as tab,
        open_chat_here(await in_thread(make_user, "ben")) as foreign,
    ):
        await api.put(f"{address}messages/{reply}/feedback/", {"value": "up"}, JSON)
        frame = await tab.wait_for(event("feedback.changed", message_id=reply, value="up"))
        assert frame["session_id"] == str(session.pk)
        await api.delete(f"{address}messages/{reply}/feedback/")
        taken_back = await tab.wait_for(
            event("feedback.changed"), after=tab.frames.index(frame) + 1
        )
        assert "value" not in taken_back["metadata"]
        made = (await api.post(f"{address}shares/")).json()
        await tab.wait_for(event("share.created", share_id=made["id"]))
        await api.delete(f"{address}shares/{made['id']}/")
        await tab.wait_for(event("share.revoked", share_id=made["id"]))
        assert [event_of(told) for told in foreign.frames] == ["connected"]
