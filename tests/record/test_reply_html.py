"""The HTML of replies: rendered once, where nobody's commit waits for it, and read from then on."""

import asyncio
import threading
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import AsyncClient, Client
from pytest_django import DjangoDbBlocker

from conversations.models import ChatSession, Message, Run, RunStatus
from conversations.runs import lifecycle
from conversations.sessions import rendering
from conversations.sessions.history import show_messages
from conversations.sessions.markdown import parser
from conversations.sessions.rendering import read_html, save_html
from realtime import dbpool
from realtime.process import Process
from realtime.work import run as run_module
from tests.support.chats import CLAIM, ask, begin, finish, make_user, session_of, talk
from tests.support.databases import migrated, orm_on
from tests.support.inprocess import open_chat_here
from tests.support.servers import Postgres
from tests.support.site_agents import echo_words
from tests.support.threads import in_thread

pytestmark = pytest.mark.django_db(transaction=True)

TEXT = "hello **there**"


@dataclass(frozen=True)
class Rendering:
    """One call of the renderer."""

    thread: str
    in_transaction: bool


@pytest.fixture
def renderings(monkeypatch: pytest.MonkeyPatch) -> list[Rendering]:
    """Every text that is rendered from here on."""
    found: list[Rendering] = []
    real = parser.render

    def render(text: str, *args: Any) -> str:
        in_transaction = connection.in_atomic_block
        found.append(Rendering(threading.current_thread().name, in_transaction))
        html: str = real(text, *args)
        return html

    monkeypatch.setattr(parser, "render", render)
    return found


def assert_out_of_the_way(renderings: list[Rendering]) -> None:
    """Neither the event loop nor a commit has waited."""
    for one in renderings:
        assert one.thread != threading.main_thread().name
        assert not one.thread.startswith("db-write")
        assert not one.in_transaction


class TestAtWork:
    """Replies that are worked on in this process."""

    @pytest.fixture(autouse=True)
    def echo(self, settings: Any) -> None:
        settings.AGENTS = "tests.support.site_agents"
        # What arrives has been told of, and not found by a comparison with the database.
        settings.REALTIME = {**settings.REALTIME, "head_interval_s": 600}

    @pytest.fixture
    async def ann(self, process: Process) -> User:
        return await in_thread(make_user, "ann", is_staff=True, is_superuser=True)

    async def test_a_reply_is_rendered_once_for_all_that_show_it(
        self, ann: User, renderings: list[Rendering]
    ) -> None:
        async with open_chat_here(ann) as first, open_chat_here(ann) as second:
            accepted = await first.chat(TEXT)
            end = await first.wait_end(accepted["run_id"])
            session_id = accepted["session_id"]
            await second.resume(session_id, rev=0)
            await second.resume(session_id, run_id=accepted["run_id"], epoch=1, seq=0)
            await second.wait_end(accepted["run_id"])
        assert "<strong>there</strong>" in end["metadata"]["html"]
        html = await self.look(ann, session_id)
        assert all("<strong>there</strong>" in text for text in html)
        assert len(renderings) == 1
        assert_out_of_the_way(renderings)

    async def look(self, ann: User, session_id: str) -> list[str]:
        """All else that shows a conversation, twice."""
        client = AsyncClient()
        await client.aforce_login(ann)
        made = await client.post(f"/api/sessions/{session_id}/shares/")
        token = made.json()["token"]
        pages = [
            f"/s/{session_id}/",
            f"/shared/{token}/",
            f"/admin/conversations/chatsession/{session_id}/change/",
            f"/api/shared/{token}/",
        ]
        answers = [await client.get(address) for address in pages * 2]
        html = [answer.content.decode() for answer in answers]
        exported = await client.get(f"/api/sessions/{session_id}/transcript/?export_format=html")
        pieces: Any = exported
        html.append(b"".join([piece async for piece in pieces]).decode())
        return html

    async def test_a_text_that_cannot_be_rendered_is_shown_as_it_is(
        self, ann: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(text: str) -> str:
            raise RecursionError(text)

        monkeypatch.setattr(parser, "render", fail)
        async with open_chat_here(ann) as client:
            accepted = await client.chat(TEXT)
            end = await client.wait_end(accepted["run_id"])
        text = "".join(echo_words(TEXT))
        assert end["metadata"]["html"] == f'<div class="text-part"><pre>{text}</pre></div>'
        assert "RecursionError" in caplog.text
        assert "there" not in caplog.text

    async def test_the_lease_is_kept_while_a_reply_is_rendered(
        self, ann: User, process: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        began, go_on = threading.Event(), threading.Event()
        real = rendering.render_texts

        def pause(parts: Any) -> list[str]:
            began.set()
            go_on.wait()
            return real(parts)

        monkeypatch.setattr(run_module, "render_texts", pause)
        async with open_chat_here(ann) as client:
            accepted = await client.chat(TEXT)
            await asyncio.to_thread(began.wait)
            [journal] = process.flusher._journals.values()
            assert str(journal.claimed.run.pk) == accepted["run_id"]
            go_on.set()
            await client.wait_end(accepted["run_id"])

    async def test_an_end_without_a_worker_is_rendered_by_its_first_reader(
        self, ann: User, renderings: list[Rendering]
    ) -> None:
        run = await in_thread(orphan, ann)
        async with open_chat_here(ann) as first, open_chat_here(ann) as second:
            for client in (first, second):
                await client.resume(str(run.session_id))
                await client.wait_text(str(run.pk), TEXT)
            await dbpool.write(lifecycle.release_run, run.pk, worker="test")
            for client in (first, second):
                end = await client.wait_end(str(run.pk))
                assert "<strong>there</strong>" in end["metadata"]["html"]
                assert end["metadata"]["reason"] == "worker_lost"
        assert len(renderings) == 1
        assert_out_of_the_way(renderings)

    async def test_an_end_without_a_text_is_told_of_at_once(
        self, ann: User, renderings: list[Rendering]
    ) -> None:
        run = await in_thread(lambda: begin(ask(ann, "question", claim=CLAIM)).run)
        async with open_chat_here(ann) as client:
            await client.resume(str(run.session_id))
            await Run.objects.aupdate(lease_until=run.created_at)
            await dbpool.write(lifecycle.recover_run, run.pk, max_attempts=1)
            end = await client.wait_end(str(run.pk))
        assert end["metadata"]["html"] == ""
        assert renderings == []


def orphan(user: User) -> Run:
    """A run that has shown a text, and whose worker is gone."""
    return begin(ask(user, "question", claim=CLAIM), TEXT).run


class TestStored:
    """What is stored, and when it does not hold."""

    @pytest.fixture
    def ann(self) -> User:
        return make_user("ann")

    def look(self, user: User, session_id: object) -> str:
        client = Client()
        client.force_login(user)
        return client.get(f"/s/{session_id}/").content.decode()

    def test_what_has_no_html_gets_it_by_its_first_page(
        self, ann: User, renderings: list[Rendering]
    ) -> None:
        session = talk(ann, ("one", TEXT), ("two", TEXT))
        assert renderings == []
        for _ in range(2):
            assert self.look(ann, session.pk).count("<strong>there</strong>") == 2
        assert len(renderings) == 2

    def test_another_version_of_the_renderer_renders_anew(
        self, ann: User, renderings: list[Rendering], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = talk(ann, ("one", TEXT))
        self.look(ann, session.pk)
        monkeypatch.setattr("conversations.sessions.rendering.RENDERER_VERSION", 1_000)
        for _ in range(2):
            self.look(ann, session.pk)
        assert len(renderings) == 2

    def test_html_of_other_texts_is_not_shown(self, ann: User) -> None:
        session = talk(ann, ("one", TEXT))
        self.look(ann, session.pk)
        parts = [{"type": "text", "text": "*other*"}]
        Message.objects.filter(session=session, role="assistant").update(parts=parts)
        assert "<em>other</em>" in self.look(ann, session.pk)

    def test_a_reply_at_work_is_not_stored(self, ann: User) -> None:
        posted = ask(ann, "question")
        claimed = begin(posted, "so **far**")
        assert "<strong>far</strong>" in self.look(ann, posted.session_id)
        parts = [{"type": "text", "text": "so **far**, so *good*"}]
        ending = lifecycle.Ending(status=RunStatus.COMPLETED, parts=parts)
        lifecycle.finish_run(claimed, last_seq=2, events=[], ending=ending)
        assert "<em>good</em>" in self.look(ann, posted.session_id)

    def test_a_reply_that_ends_while_it_is_read_is_shown_whole(
        self, ann: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its run is read first, at work; the message after that, with the end."""
        posted = ask(ann, "question")
        claimed = begin(posted, "half")
        rows = Message.objects.filter(session=posted.session_id).select_related("run", "summary")
        real = rows._fetch_all

        def end_before() -> None:
            monkeypatch.undo()
            parts = [{"type": "text", "text": "half and whole"}]
            ending = lifecycle.Ending(status=RunStatus.COMPLETED, parts=parts)
            lifecycle.finish_run(claimed, last_seq=2, events=[], ending=ending)
            real()

        monkeypatch.setattr(rows, "_fetch_all", end_before)
        views = show_messages(rows)
        assert [view.text for view in views] == ["question", "half and whole"]

    @pytest.mark.parametrize("ends", [True, False])
    def test_a_reply_that_moves_on_while_it_is_read(self, ann: User, ends: bool) -> None:
        """A page of messages is read first, what their runs are about after it."""
        posted = ask(ann, "question")
        claimed = begin(posted, "half")
        page = list(Message.objects.select_related("run", "summary").order_by("number"))
        if ends:
            parts = [{"type": "text", "text": "half and whole"}]
            ending = lifecycle.Ending(status=RunStatus.COMPLETED, parts=parts)
            lifecycle.finish_run(claimed, last_seq=2, events=[], ending=ending)
        views = show_messages(page)
        assert [view.text for view in views] == ["question", "half and whole" if ends else "half"]
        assert views[1].run_status == ("completed" if ends else "running")

    def test_a_reply_that_is_gone_while_it_is_read(self, ann: User) -> None:
        begin(ask(ann, "question", claim=CLAIM), "half")
        page = list(Message.objects.select_related("run", "summary").order_by("number"))
        ChatSession.objects.all().delete()
        assert [view.text for view in show_messages(page)] == ["question", ""]

    def test_readers_at_once_render_once(
        self, ann: User, renderings: list[Rendering], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = talk(ann, ("one", TEXT))
        real, began, both = parser.render, threading.Event(), threading.Event()

        def pause(text: str, *args: Any) -> str:
            began.set()
            both.wait()
            html: str = real(text, *args)
            return html

        monkeypatch.setattr(parser, "render", pause)
        pages: list[str] = []

        def read() -> None:
            try:
                pages.append(self.look(ann, session.pk))
            finally:
                connection.close()

        first, second = threading.Thread(target=read), threading.Thread(target=read)
        first.start()
        began.wait()
        second.start()
        both.set()
        first.join()
        second.join()
        assert [page.count("<strong>there</strong>") for page in pages] == [1, 1]
        assert len(renderings) == 1

    def test_it_goes_with_its_message(self, ann: User) -> None:
        session = talk(ann, ("one", TEXT))
        self.look(ann, session.pk)
        session.delete()
        with connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM conversations_replyhtml")
            assert cursor.fetchone() == (0,)

    def test_a_failed_reply_keeps_its_html_too(
        self, ann: User, renderings: list[Rendering]
    ) -> None:
        posted = ask(ann, "question")
        html = rendering.render_texts(parts := [{"type": "text", "text": TEXT}])
        finish(posted, "", status=RunStatus.FAILED, parts=parts, html=html)
        assert "<strong>there</strong>" in self.look(ann, session_of(posted).pk)
        assert Run.objects.get().status == RunStatus.FAILED
        assert len(renderings) == 1


def test_it_is_stored_on_postgres(
    postgres: Postgres, django_db_blocker: DjangoDbBlocker, renderings: list[Rendering]
) -> None:
    with django_db_blocker.unblock(), migrated(postgres) as url, orm_on(url):
        talk(make_user("ann"), ("one", TEXT))
        views = show_messages(Message.objects.select_related("run").order_by("number"))
        reply = views[1]
        parts = reply.parts or []
        save_html(UUID(reply.message_id), parts, ["first"])
        save_html(UUID(reply.message_id), parts, ["second"])
        assert read_html(views) == {reply.message_id: ["second"]}
    assert renderings == []
