"""Staff at work: what they find, see and keep, and what is kept of that."""

import asyncio
import base64
import json
import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission
from django.core.asgi import get_asgi_application
from django.test import AsyncClient, Client
from django.utils import timezone

from conversations.admin import sessions as sessions_module
from conversations.exports.source import Conversation
from conversations.models import AuditEntry, ChatSession, Feedback, Label, Review, Run, RunStatus
from conversations.people import accounts
from conversations.review import reviews as reviews_module
from tests.support.chats import ask, finish, last_message, make_user, session_of, talk
from tests.support.machine import scaled
from tests.support.threads import in_thread

pytestmark = pytest.mark.django_db

SESSIONS = "/admin/conversations/chatsession/"


@pytest.fixture
def ann() -> Any:
    return make_user("ann")


@pytest.fixture
def staff() -> Any:
    return make_user("staff", is_staff=True)


@pytest.fixture
def desk(staff: Any) -> Client:
    """A browser of somebody who may do all that reviewers do, and nothing else."""
    allow(staff, "view_chatsession", "view_run", "read_transcript", "change_review")
    return browser_of(staff)


def allow(user: Any, *names: str) -> None:
    user.user_permissions.add(*Permission.objects.filter(codename__in=names))


def browser_of(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


def page_of(session: ChatSession) -> str:
    return f"{SESSIONS}{session.pk}/change/"


def titles(desk: Client, query: str = "") -> list[str]:
    """The sessions of a list, the newest first."""
    response = desk.get(f"{SESSIONS}{query}")
    assert response.status_code == 200, response.content
    return re.findall(r'/change/[^"]*">([^<]*)</a>', response.content.decode())


def actions() -> list[tuple[str, Any]]:
    rows = AuditEntry.objects.order_by("pk")
    return [(entry.action, entry.session_id) for entry in rows]


def fail(user: Any, content: str, code: str, *, days_ago: float = 0) -> ChatSession:
    posted = ask(user, content)
    finish(posted, "", status=RunStatus.FAILED, error_code=code)
    moment = timezone.now() - timedelta(days=days_ago)
    Run.objects.filter(pk=posted.run_id).update(created_at=moment)
    return session_of(posted)


class TestList:
    def test_conditions_hold_for_one_and_the_same_reply(self, desk: Client, ann: Any) -> None:
        fail(ann, "long ago", "provider_cut", days_ago=9)
        both = fail(ann, "both", "provider_cut", days_ago=9)
        finish(ask(ann, "fine", both), "1")
        fail(ann, "now", "provider_cut")
        assert titles(desk, "?status=failed&asked=week") == ["now"]
        assert titles(desk, "?error_code=provider_cut") == ["now", "both", "long ago"]
        assert titles(desk, "?status=completed") == ["both"]

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("?model=scripted&agent=assistant", ["one"]),
            ("?tokens=1000", ["one"]),
            ("?tokens=10000", []),
            ("?wait=2", []),
            ("?asked=today&wait=x&tokens=x&asked=x", ["one"]),
            ("?deleted=no", ["one"]),
            ("?deleted=yes", []),
        ],
    )
    def test_filters(self, desk: Client, ann: Any, query: str, found: list[str]) -> None:
        talk(ann, ("one", "1"))
        Run.objects.update(input_tokens=900, output_tokens=100)
        assert titles(desk, query) == found

    def test_pages_go_on_where_the_last_one_ended(self, desk: Client, ann: Any) -> None:
        for number in range(120):
            ChatSession.objects.create(owner=ann, title=f"s{number}")
        # Many at the same moment: the key tells them apart.
        ChatSession.objects.update(active_at=timezone.now())
        seen, query = [], "?"
        while query:
            html = desk.get(f"{SESSIONS}{query}").content.decode()
            seen += titles(desk, query)
            found = re.search(r'href="(\?[^"]*)" rel="next"', html)
            query = found[1].replace("&amp;", "&") if found else ""
        assert len(seen) == len(set(seen)) == 120

    @pytest.mark.parametrize("place", ["x", "7", "W10", "WyJ4IiwgMV0", "bnVsbA", "ÿ"])
    def test_a_place_of_somebody_elses_making(self, desk: Client, ann: Any, place: str) -> None:
        talk(ann, ("one", "1"))
        assert titles(desk, f"?p={place}") == ["one"]

    def test_what_cannot_be_is_not_asked_for(self, desk: Client, ann: Any) -> None:
        talk(ann, ("one", "1"))
        for moment in ("2026-01-01T00:00:00+00:00", "0001-01-01T00:00:00+14:00"):
            answer = desk.get(f"{SESSIONS}?p={place_of('no id', moment)}")
            assert (answer.status_code, answer["Location"]) == (302, f"{SESSIONS}?e=1")
        assert titles(desk, f"?p={place_of('no id', '2026-01-01')}") == ["one"]

    def test_what_is_left(self, desk: Client, ann: Any, staff: Any) -> None:
        done, mine, went_on = (talk(ann, (name, "1")) for name in ("done", "mine", "went on"))
        talk(ann, ("open", "1"))
        now = timezone.now()
        Review.objects.create(session=done, reviewed_at=now)
        Review.objects.create(session=mine, assignee=staff)
        Review.objects.create(session=went_on, reviewed_at=now - timedelta(days=1))
        assert titles(desk, "?review=left") == ["open", "went on", "mine"]
        assert titles(desk, "?review=mine") == titles(desk, "?review=assigned") == ["mine"]
        assert titles(desk, "?review=done") == ["done"]
        assert titles(desk, "?review=changed") == ["went on"]

    def test_several_at_once(self, desk: Client, ann: Any, staff: Any) -> None:
        one, two = (talk(ann, (name, "1")) for name in ("one", "two"))
        Review.objects.create(session=one, note="kept")
        for action in ("assign_to_me", "mark_reviewed"):
            form = {"action": action, "_selected_action": [str(one.pk), str(two.pk)]}
            assert desk.post(SESSIONS, form).status_code == 302
        reviews = Review.objects.order_by("session__title")
        assert [(r.assignee, r.reviewed_by, r.note) for r in reviews] == [
            (staff, staff, "kept"),
            (staff, staff, ""),
        ]
        assert all(review.reviewed_at for review in reviews)
        assert len([entry for entry in actions() if entry[0] != "listed"]) == 4
        assigned = AuditEntry.objects.filter(action="assigned")
        # By number: the log outlives people.
        assert [entry.detail for entry in assigned] == [{"to": staff.pk}] * 2

    def test_very_many_at_once(self, ann: Any, staff: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each step is a transaction of its own, so that others may write between them."""
        monkeypatch.setattr(reviews_module, "STEP", 1)
        ids = [talk(ann, (name, "1")).pk for name in ("one", "two")]
        record = accounts.record_each

        def fail_for_second(staff: Any, action: Any, session_ids: Any, **detail: Any) -> None:
            if session_ids == ids[1:]:
                raise ValueError("no more")
            record(staff, action, session_ids, **detail)

        monkeypatch.setattr(accounts, "record_each", fail_for_second)
        with pytest.raises(ValueError, match="no more"):
            reviews_module.assign(staff=staff, session_ids=ids, assignee=staff)
        with pytest.raises(ValueError, match="no more"):
            reviews_module.mark_reviewed(staff=staff, session_ids=ids)
        review = Review.objects.get()
        assert (review.session_id, review.assignee, review.reviewed_by) == (ids[0], staff, staff)
        assert len(actions()) == 2


def place_of(pk: str, moment: str = "2026-01-01T00:00:00+00:00") -> str:
    """An address's place in a list that is of somebody else's making."""
    return base64.urlsafe_b64encode(json.dumps([moment, pk]).encode()).decode()


def version_in(session: ChatSession) -> dict[str, str]:
    """What the form of a session's review says of the review that it shows."""
    return {"version": reviews_module.version_of(Review.objects.get(session=session))}


class TestSession:
    def test_every_view_is_in_the_log(self, desk: Client, ann: Any, staff: Any) -> None:
        session = talk(ann, ("one", "1"))
        assert b"one" in desk.get(page_of(session)).content
        entry = AuditEntry.objects.get()
        assert (entry.actor, entry.action, entry.session_id) == (staff, "viewed", session.pk)

    def test_a_search_is_in_the_log_too_without_its_words(self, desk: Client, ann: Any) -> None:
        talk(ann, ("one", "1"))
        assert titles(desk, "?q=one") == ["one"]
        entry = AuditEntry.objects.exclude(action="listed").get()
        assert (entry.action, entry.detail) == ("searched", {})

    def test_to_read_is_a_permission_of_its_own(self, staff: Any, ann: Any) -> None:
        allow(staff, "view_chatsession")
        session = talk(ann, ("title", "the secret"), ("more", "again"))
        html = browser_of(staff).get(page_of(session)).content.decode()
        assert "the secret" not in html
        assert "more" not in html.split("</dl>")[1].split("You may")[0].replace("more</a>", "")
        assert browser_of(staff).get(f"{SESSIONS}?q=secret").status_code == 403
        replay = f"{SESSIONS}{session.pk}/replay/{Run.objects.earliest('number').pk}/"
        assert browser_of(staff).get(replay).status_code == 403
        allow(staff, "read_transcript")
        assert browser_of(staff).get(replay).status_code == 200

    def test_titles_are_part_of_what_was_said(self, staff: Any, ann: Any) -> None:
        allow(staff, "view_chatsession", "view_run", "view_approval", "view_auditentry")
        session = talk(ann, ("my PIN is 4711", "1"))
        for path in (SESSIONS, page_of(session), "/admin/conversations/run/", "/admin/"):
            assert b"4711" not in browser_of(staff).get(path).content
        assert actions() == [("viewed", session.pk)]

    def test_a_list_with_titles_is_in_the_log_of_each(self, desk: Client, ann: Any) -> None:
        session = talk(ann, ("one", "1"))
        assert titles(desk) == ["one"]
        entry = AuditEntry.objects.get()
        assert (entry.action, entry.detail) == ("listed", {"sessions": [str(session.pk)]})
        found = accounts.entries_about(AuditEntry.objects.all(), session.pk)
        assert list(found) == [entry]
        assert not accounts.entries_about(AuditEntry.objects.all(), uuid4()).exists()

    def test_a_review_is_kept(self, desk: Client, ann: Any, staff: Any) -> None:
        session, label = talk(ann, ("one", "1")), Label.objects.create(name="wrong answer")
        form = {"assignee": staff.pk, "labels": [label.pk], "note": "why?", "is_reviewed": "on"}
        assert desk.post(f"{SESSIONS}{session.pk}/review/", form).status_code == 302
        review = Review.objects.get()
        assert (review.assignee, review.note, review.reviewed_by) == (staff, "why?", staff)
        assert titles(desk, f"?label={label.pk}&review=done") == ["one"]
        kept = [entry for entry in actions() if entry[0] != "listed"]
        assert kept == [("reviewed", session.pk), ("assigned", session.pk)]
        desk.post(f"{SESSIONS}{session.pk}/review/", {"note": "again", **version_in(session)})
        review.refresh_from_db()
        assert (review.reviewed_at, review.labels.count()) == (None, 0)

    def test_a_note_makes_nobody_the_reviewer(self, desk: Client, ann: Any) -> None:
        session, other = talk(ann, ("one", "1")), make_user("lead", is_staff=True)
        before = timezone.now() + timedelta(minutes=1)
        Review.objects.create(session=session, reviewed_at=before, reviewed_by=other)
        form = {"note": "well done", "is_reviewed": "on", **version_in(session)}
        assert desk.post(f"{SESSIONS}{session.pk}/review/", form).status_code == 302
        review = Review.objects.get()
        assert (review.note, review.reviewed_by, review.reviewed_at) == (
            form["note"],
            other,
            before,
        )

    def test_what_was_said_later_is_not_reviewed_by_a_note(self, desk: Client, ann: Any) -> None:
        session = talk(ann, ("one", "1"))
        before = timezone.now() - timedelta(days=1)
        Review.objects.create(session=session, reviewed_at=before)
        assert b'name="is_reviewed" id="id_is_reviewed">' in desk.get(page_of(session)).content
        form = {"note": "later", **version_in(session)}
        desk.post(f"{SESSIONS}{session.pk}/review/", form)
        assert Review.objects.get().reviewed_at == before
        assert titles(desk, "?review=changed") == ["one"]

    def test_two_reviewers_overwrite_nothing(self, desk: Client, ann: Any) -> None:
        session = talk(ann, ("one", "1"))
        Review.objects.create(session=session, note="first")
        shown = version_in(session)
        for note, status in (("second", 302), ("third", 200)):
            form = {"note": note, **shown}
            answer = desk.post(f"{SESSIONS}{session.pk}/review/", form)
            assert answer.status_code == status
        assert b"Somebody else has saved this review" in answer.content
        assert Review.objects.get().note == "second"

    def test_the_list_is_not_overwritten_by_a_form(
        self, desk: Client, ann: Any, staff: Any
    ) -> None:
        session = talk(ann, ("one", "1"))
        Review.objects.create(session=session, note="first")
        shown = version_in(session)
        reviews_module.assign(staff=staff, session_ids=[session.pk], assignee=staff)
        assert version_in(session) != shown
        desk.post(f"{SESSIONS}{session.pk}/review/", {"note": "second", **shown})
        review = Review.objects.get()
        assert (review.note, review.assignee) == ("first", staff)
        shown = version_in(session)
        reviews_module.mark_reviewed(staff=staff, session_ids=[session.pk])
        assert version_in(session) != shown

    def test_users_are_no_reviewers(self, desk: Client, ann: Any) -> None:
        session = talk(ann, ("one", "1"))
        response = desk.post(f"{SESSIONS}{session.pk}/review/", {"assignee": ann.pk})
        assert b"Select a valid choice" in response.content
        assert not Review.objects.exists()

    def test_to_review_is_a_permission_of_its_own(self, staff: Any, ann: Any) -> None:
        allow(staff, "view_chatsession", "read_transcript")
        session = talk(ann, ("one", "1"))
        address = f"{SESSIONS}{session.pk}/review/"
        assert browser_of(staff).post(address, {"note": "x"}).status_code == 403
        form = {"action": "mark_reviewed", "_selected_action": [str(session.pk)]}
        browser_of(staff).post(SESSIONS, form)
        assert not Review.objects.exists()

    def test_long_conversations_and_branches(self, desk: Client, ann: Any) -> None:
        session = talk(ann, *((f"question {number}", "x") for number in range(30)))
        html = desk.get(page_of(session)).content.decode()
        assert "question 29" in html
        assert ">question 2<" not in html
        earlier = re.search(r'href="(\?until=[^"]*)">Earlier', html)
        assert earlier
        html = desk.get(page_of(session) + earlier[1]).content.decode()
        assert ">question 2<" in html
        finish(ask(ann, "instead", session, parent_message_id=""), "of it")
        html = desk.get(page_of(session)).content.decode()
        other = re.search(r'href="(\?until=[^"]*)">another branch', html)
        assert other
        assert ">question 0<" in desk.get(page_of(session) + other[1]).content.decode()

    @pytest.mark.parametrize("query", ["?until=00000000-0000-4000-8000-000000000000"])
    def test_a_message_of_no_session(self, desk: Client, ann: Any, query: str) -> None:
        session = talk(ann, ("one", "1"))
        assert desk.get(page_of(session) + query).status_code == 404

    def test_a_foreign_message_is_not_shown(self, desk: Client, ann: Any) -> None:
        session, other = talk(ann, ("one", "1")), talk(ann, ("two", "2"))
        query = f"?until={other.active_leaf_id}"
        assert desk.get(page_of(session) + query).status_code == 404

    def test_a_session_that_is_not_there(self, desk: Client) -> None:
        assert (
            desk.get(f"{SESSIONS}00000000-0000-4000-8000-000000000000/change/").status_code == 404
        )

    def test_it_costs_the_same_for_many(
        self, desk: Client, ann: Any, django_assert_max_num_queries: Any
    ) -> None:
        session = talk(ann, *((f"{number}", "x") for number in range(12)))
        with django_assert_max_num_queries(25):
            desk.get(page_of(session))


def test_the_log_cannot_be_changed(desk: Client, staff: Any, ann: Any) -> None:
    allow(staff, "view_auditentry", "change_auditentry", "delete_auditentry")
    session = talk(ann, ("one", "1"))
    desk.get(page_of(session))
    log = "/admin/conversations/auditentry/"
    assert str(session.pk) in desk.get(f"{log}?q={session.pk}").content.decode()
    entry = AuditEntry.objects.get(action="viewed")
    assert desk.post(f"{log}{entry.pk}/delete/", {"post": "yes"}).status_code == 403
    assert desk.post(f"{log}{entry.pk}/change/", {"action": "x"}).status_code == 403
    form = {"action": "delete_selected", "_selected_action": [entry.pk]}
    desk.post(log, form)
    assert AuditEntry.objects.count() == 1


async def read(response: Any) -> bytes:
    return b"".join([piece async for piece in response.streaming_content])


def ask_for_export(browser: AsyncClient) -> tuple[asyncio.Task[None], asyncio.Queue[Any]]:
    """A request at work, and what its client tells the server."""
    token = "x" * 32
    cookies = f"{browser.cookies.output(header='', sep=';')}; csrftoken={token}"
    body = f"export_format=markdown&csrfmiddlewaretoken={token}".encode()
    headers = {
        "host": "testserver",
        "cookie": cookies.strip(),
        "content-type": "application/x-www-form-urlencoded",
        "content-length": str(len(body)),
    }
    scope = {
        "type": "http",
        "method": "POST",
        "path": f"{SESSIONS}export/",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    told: asyncio.Queue[Any] = asyncio.Queue()
    told.put_nowait({"type": "http.request", "body": body})
    sent: asyncio.Queue[Any] = asyncio.Queue()
    return asyncio.create_task(get_asgi_application()(scope, told.get, sent.put)), told


@pytest.mark.django_db(transaction=True)
class TestExport:
    async def test_it_holds_what_the_list_shows_and_is_logged(self) -> None:
        staff = await in_thread(self.prepare, "read_transcript", "export_transcript")
        browser = AsyncClient()
        await browser.aforce_login(staff)
        address = f"{SESSIONS}export/?status=failed&p=x"
        response = await browser.post(address, {"export_format": "markdown"})
        text = (await read(response)).decode()
        assert "broken" in text
        assert "fine" not in text
        assert response["Content-Disposition"] == 'attachment; filename="sessions.md"'
        whole, each = [entry async for entry in AuditEntry.objects.order_by("pk")]
        about = {"format": "markdown", "sha256": sha256(text.encode()).hexdigest()}
        detail = about | {"sessions": 1, "filters": {"status": "failed"}}
        assert (whole.action, whole.session_id, whole.detail) == ("exported", None, detail)
        assert (each.action, each.detail) == ("exported", about)
        session = await ChatSession.objects.aget(title="broken")
        assert each.session_id == session.pk
        assert (await browser.get(address)).status_code == 400
        assert (await browser.post(address, {"export_format": "x"})).status_code == 400

    def prepare(self, *permissions: str) -> Any:
        ann, staff = make_user("ann"), make_user("staff", is_staff=True)
        allow(staff, "view_chatsession", *permissions)
        talk(ann, ("fine", "1"))
        fail(ann, "broken", "provider_cut")
        return staff

    async def test_it_ends_when_who_has_asked_goes_away(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        staff = await in_thread(self.prepare, "read_transcript", "export_transcript")
        browser = AsyncClient()
        await browser.aforce_login(staff)
        begun, enough = threading.Event(), threading.Event()

        def endless(sessions: object, *, for_staff: bool) -> Iterator[Conversation]:
            while not enough.is_set():
                yield Conversation({"id": str(uuid4()), "title": "again"}, iter(()))
                begun.set()

        monkeypatch.setattr(sessions_module, "read_conversations", endless)
        try:
            asking, told = ask_for_export(browser)
            assert await in_thread(begun.wait, scaled(20))
            told.put_nowait({"type": "http.disconnect"})
            ended, _ = await asyncio.wait({asking}, timeout=scaled(20))
            assert ended
        finally:
            enough.set()
            await asyncio.wait({asking})
        assert not await AuditEntry.objects.aexists()

    async def test_an_address_that_was_made_up(self) -> None:
        staff = await in_thread(self.prepare, "read_transcript", "export_transcript")
        browser = AsyncClient()
        await browser.aforce_login(staff)
        for query in ("owner__password__startswith=a", "title__contains=a", f"p={place_of('x')}"):
            response = await browser.post(f"{SESSIONS}export/?{query}", {"export_format": "json"})
            assert response.status_code == 400

    @pytest.mark.parametrize("permission", ["read_transcript", "export_transcript"])
    async def test_it_needs_both_permissions(self, permission: str) -> None:
        staff = await in_thread(self.prepare, permission)
        browser = AsyncClient()
        await browser.aforce_login(staff)
        response = await browser.post(f"{SESSIONS}export/", {"export_format": "json"})
        assert response.status_code == 403


class TestFeedback:
    def test_the_queue_of_thumbs_down(self, desk: Client, ann: Any) -> None:
        bad, good = talk(ann, ("bad", "1")), talk(ann, ("good", "1"))
        for session, value in ((bad, "down"), (good, "up")):
            Feedback.objects.create(
                message=last_message(session), user=ann, value=value, comment="<b>why</b>"
            )
        assert titles(desk, "?feedback=down&review=left") == ["bad"]
        assert titles(desk, "?feedback=up") == ["good"]
        assert b"1 bad" in desk.get(SESSIONS).content
        html = desk.get(page_of(bad)).content.decode()
        assert "&lt;b&gt;why" in html
        Review.objects.create(session=bad, reviewed_at=timezone.now())
        assert titles(desk, "?feedback=down&review=left") == []
