import json
import re
from typing import Any
from uuid import uuid4

import pytest
from agents import Agent
from django.http import HttpResponse
from django.test import Client
from django.urls import path

from agentsite import urls
from agentsite.web.view_models import accent_style, contrast, describe_ending, describe_step
from conversations.models import ACTIVE, ChatSession, EndReason, RunStatus
from conversations.sessions.history import get_history
from conversations.sessions.posting import cancel_run
from tests.support.agent_site import Serve
from tests.support.chats import ask, begin, finish, make_user, session_of, talk

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann() -> Any:
    return make_user("ann")


@pytest.fixture
def page(ann: Any) -> Client:
    client = Client()
    client.force_login(ann)
    return client


def html_of(client: Client, session: ChatSession | None = None) -> str:
    response = client.get(f"/s/{session.pk}/" if session else "/")
    assert response.status_code == 200
    return response.content.decode()


def data_of(html: str) -> Any:
    pattern = r'<script id="chat-data" type="application/json">(.*?)</script>'
    found = re.search(pattern, html, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_history_is_there_without_javascript(page: Client, ann: Any) -> None:
    html = html_of(page, talk(ann, ("one < two?", "*yes*"), ("sure?", "quite")))
    log = html[html.index('id="log"') : html.index("</main>")]
    assert "one &lt; two?" in log
    assert '<div class="rendered"><p><em>yes</em></p>' in log
    assert log.index("sure?") < log.index("quite")


def test_a_fragment_is_the_conversation_alone(page: Client, ann: Any) -> None:
    session = talk(ann, ("one", "two"))
    whole = page.get(f"/s/{session.pk}/")
    fragment = page.get(f"/s/{session.pk}/", headers={"X-Fragment": "1"})
    assert "X-Fragment" in whole["Vary"]
    assert "X-Fragment" in fragment["Vary"]
    html, part = whole.content.decode(), fragment.content.decode()
    log = part[part.index('<div class="scroller"') : part.index("<script")].rstrip()
    assert log in html
    assert data_of(part) == data_of(html)
    assert "session-list" not in part
    assert "csrfmiddlewaretoken" not in part


def test_the_service_worker_is_the_same_for_everybody(page: Client) -> None:
    found = [client.get("/service-worker.js") for client in (page, Client())]
    assert [response.headers["Content-Type"] for response in found] == ["text/javascript"] * 2
    assert found[0].content == found[1].content
    assert b"You are offline" in found[0].content


def test_the_page_carries_its_cursor(page: Client, ann: Any) -> None:
    posted = ask(ann, "one")
    begin(posted, "so ", "far")
    session = session_of(posted)
    html = html_of(page, session)
    data = data_of(html)
    assert data["session_id"] == str(session.pk)
    assert data["rev"] == session.rev
    assert (data["run"]["run_id"], data["run"]["epoch"], data["run"]["seq"]) == (
        str(posted.run_id),
        1,
        3,
    )
    assert data["parts"] == [{"type": "text", "text": "so far"}]
    assert '<div class="rendered"><p>so far</p>' in html
    assert "data-busy" in html


def test_a_finished_session_has_no_run(page: Client, ann: Any) -> None:
    session = talk(ann, ("one", "1"))
    data = data_of(html_of(page, session))
    assert data["run"] is None
    assert data["parts"] == []
    assert [m["message_id"] for m in data["messages"]] == [
        m.message_id for m in get_history(session).messages
    ]


def test_what_waits_is_shown_as_waiting(page: Client, ann: Any) -> None:
    first = ask(ann, "one")
    begin(first)
    session = session_of(first)
    ask(ann, "two", session)
    html = html_of(page, session)
    assert "waiting, number 1 in line" in html
    assert [entry["content"] for entry in data_of(html)["queue"]] == ["two"]


def test_steps_and_thoughts_stand_in_their_place(page: Client, ann: Any) -> None:
    posted = ask(ann, "find it")
    parts = [
        {"type": "reasoning", "text": "let me <think>"},
        {"type": "text", "text": "before"},
        {
            "type": "tool",
            "tool_call_id": "c1",
            "name": "search_files",
            "arguments": '{"for": "<it>"}',
            "status": "finished",
            "output": "<found>",
        },
        {"type": "text", "text": "after"},
    ]
    finish(posted, "", parts=parts)
    html = html_of(page, session_of(posted))
    order = ("let me &lt;think&gt;", "before", "Used search files", "&lt;found&gt;", "after<")
    places = [html.index(text) for text in order]
    assert places == sorted(places)
    assert "<found>" not in html


def test_what_a_newer_server_has_written_is_shown_as_a_line(page: Client, ann: Any) -> None:
    """During a deploy, processes of two versions read the same rows."""
    posted = ask(ann, "one")
    asked = {"request_id": "r", "tool_call_id": "c", "tool": "erase", "description": "Erase."}
    parts = [
        {"type": "text", "text": "before"},
        {"type": "from_a_newer_server", "url": "x"},
        {"type": "approval", **asked, "arguments": "{}", "decision": "cancelled", "by": "ann"},
        {"type": "text", "text": "after"},
    ]
    finish(posted, "", parts=parts)
    html = html_of(page, session_of(posted))
    order = ("before", "This part cannot be shown here.", "the reply was stopped.", "after<")
    places = [html.index(text) for text in order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("status", "fields", "said"),
    [
        (RunStatus.CANCELLED, {"reason": "user"}, "You stopped this reply."),
        (RunStatus.INTERRUPTED, {"reason": "worker_lost"}, "The server stopped while this was"),
        (RunStatus.FAILED, {"error_code": "provider_unavailable"}, "The model cannot be reached"),
        (RunStatus.FAILED, {"error_code": "gone_from_the_list"}, "Something went wrong"),
    ],
)
def test_a_reply_says_how_it_ended(
    page: Client, ann: Any, status: RunStatus, fields: dict[str, Any], said: str
) -> None:
    posted = ask(ann, "one")
    finish(posted, "so far", status=status, **fields)
    html = html_of(page, session_of(posted))
    assert f'data-status="{status}"' in html
    assert f'<p class="ending">{said}' in html
    assert "so far" in html


def test_every_end_has_words() -> None:
    for status in set(RunStatus) - {*ACTIVE, RunStatus.COMPLETED}:
        assert describe_ending(status, None, None)
        assert all(describe_ending(status, reason, None) for reason in EndReason)
    for status in (*ACTIVE, RunStatus.COMPLETED):
        assert not describe_ending(status, None, None)


def test_a_run_that_is_asked_to_stop_has_not_ended(page: Client, ann: Any) -> None:
    posted = ask(ann, "one")
    begin(posted, "so far")
    cancel_run(user=ann, session_id=str(posted.session_id))
    assert '<p class="ending"></p>' in html_of(page, session_of(posted))


def test_the_tour_says_that_it_is_scripted(page: Client, ann: Any) -> None:
    posted = ask(ann, "one")
    begin(posted, "hello", agent="tour")
    log = html_of(page, session_of(posted)).split('id="log"')[1].split("</main>")[0]
    assert '<h2 class="who">Tour</h2><span class="badge">scripted, not an AI</span>' in log


def test_a_model_is_not_called_scripted(page: Client, ann: Any) -> None:
    posted = ask(ann, "one")
    begin(posted, "hello", agent="assistant")
    log = html_of(page, session_of(posted)).split('id="log"')[1].split("</main>")[0]
    assert '<h2 class="who">Assistant</h2><span class="badge" hidden>' in log


def test_sessions_are_listed_newest_first(page: Client, ann: Any) -> None:
    older, newer = talk(ann, ("older", "1")), talk(ann, ("newer", "2"))
    talk(make_user("ben"), ("foreign", "3"))
    html = html_of(page, older)
    nav = html[html.index("<nav") : html.index("</nav>")]
    assert nav.index(f"/s/{newer.pk}/") < nav.index(f"/s/{older.pk}/")
    assert f'href="/s/{older.pk}/" aria-current="page"' in nav
    assert "foreign" not in html


def test_a_session_at_work_is_marked_in_the_list(page: Client, ann: Any) -> None:
    begin(ask(ann, "one"))
    assert '<span class="session-state">replying</span>' in html_of(page)


def test_long_histories_are_cut_and_go_on_before(
    page: Client, ann: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = talk(ann, ("first question", "1"), ("second question", "2"))
    monkeypatch.setattr("agentsite.web.pages.PAGE", 2)
    html = html_of(page, session)
    log = html[html.index('id="log"') : html.index("</main>")]
    assert "first question" not in log
    assert "second question" in log
    before = re.search(r'href="(\?before=[^"]+)"', log)
    assert before
    earlier = page.get(f"/s/{session.pk}/{before[1]}").content.decode()
    log = earlier[earlier.index('id="log"') : earlier.index("</main>")]
    assert "first question" in log
    assert "second question" not in log
    assert "before=" not in log


def test_a_page_before_a_foreign_message_is_missing(page: Client, ann: Any) -> None:
    session, foreign = talk(ann, ("one", "1")), talk(make_user("ben"), ("secret", "1"))
    for message_id in (foreign.active_leaf_id, uuid4(), "nonsense"):
        assert page.get(f"/s/{session.pk}/?before={message_id}").status_code == 404


def test_a_foreign_session_is_as_missing_as_a_missing_one(page: Client) -> None:
    foreign = talk(make_user("ben"), ("secret", "1"))
    answers = [page.get(f"/s/{pk}/") for pk in (foreign.pk, uuid4())]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert "secret" not in answers[0].content.decode()
    assert page.get("/s/nonsense/").status_code == 404


def test_a_deleted_session_is_missing(page: Client, ann: Any) -> None:
    session = talk(ann, ("one", "1"))
    ChatSession.objects.update(deleted_at=session.created_at)
    assert page.get(f"/s/{session.pk}/").status_code == 404
    assert str(session.pk) not in html_of(page)


def test_strangers_are_asked_to_sign_in(client: Client, ann: Any, settings: Any) -> None:
    session = talk(ann, ("one", "1"))
    for settings.ALLOW_GUESTS in (True, False):
        answer = client.get(f"/s/{session.pk}/")
        assert answer["Location"] == f"/accounts/login/?next=/s/{session.pk}/"


def test_the_chat_is_open_to_guests_where_they_are_allowed(client: Client, settings: Any) -> None:
    settings.ALLOW_GUESTS = True
    assert data_of(html_of(client))["user"] == ""
    settings.ALLOW_GUESTS = False
    assert client.get("/")["Location"] == "/accounts/login/?next=/"


def test_looking_makes_no_session(page: Client) -> None:
    html_of(page)
    assert not ChatSession.objects.exists()


def test_pages_are_looked_at_only(page: Client) -> None:
    assert page.post("/").status_code == 405
    assert page.head("/").status_code == 200


def test_pages_are_not_kept_by_caches_for_others(page: Client) -> None:
    response = page.get("/")
    assert "private" in response["Cache-Control"]
    assert "no-cache" in response["Cache-Control"]
    assert "Cookie" in response["Vary"]


def test_nothing_in_a_page_is_inline(page: Client, ann: Any) -> None:
    session = talk(ann, ("one", "<script>alert(1)</script> **x**"))
    for path_ in ("/", f"/s/{session.pk}/", "/accounts/password/change/", "/nothing/"):
        html = page.get(path_).content.decode()
        scripts = re.findall(r"<script([^>]*)>", html)
        assert all("src=" in script or "application/json" in script for script in scripts)
        assert not re.search(r"<[^>]+\s(style|on\w+)=", html)
        assert "<style" not in html


def test_what_people_write_cannot_leave_its_place(page: Client, ann: Any) -> None:
    nasty = '</script><script>alert(1)</script>"><img src=x onerror=alert(1)>'
    posted = ask(ann, nasty, client_message_id=nasty[:100])
    begin(posted, nasty)
    html = html_of(page, session_of(posted))
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert data_of(html)["parts"] == [{"type": "text", "text": nasty}]


def test_a_picture_is_shown_in_a_frame_alone(client: Client) -> None:
    address = 'https://pictures.example/a.png?"><script>'
    shown = client.get("/picture/", {"src": address}, headers={"Sec-Fetch-Dest": "iframe"})
    assert shown.status_code == 200
    policy = shown["Content-Security-Policy"]
    assert "img-src https:" in policy
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "<script" not in shown.content.decode()
    assert "script-src 'none'" in policy
    assert "form-action 'none'" in policy
    assert shown["X-Frame-Options"] == "SAMEORIGIN"
    alone = client.get("/picture/", {"src": address}, headers={"Sec-Fetch-Dest": "document"})
    assert alone.status_code == 404
    for other in (
        *("http://x.example", "data:image/png,x", "javascript:alert(1)", "//x.example", ""),
        *(
            "https://",
            "https://[",
            "https://ann:pw@x.example/a.png",
            "https://x.example\\@y.example",
        ),
        *(
            "https://testserver/model/",
            "https://TESTSERVER:8443/",
            "https:x.example",
            "https://x" * 999,
        ),
    ):
        assert client.get("/picture/", {"src": other}).status_code == 404, other


def test_a_diagram_is_drawn_in_a_frame_alone(client: Client) -> None:
    shown = client.get("/diagram/", headers={"Sec-Fetch-Dest": "iframe"})
    policy = shown["Content-Security-Policy"]
    assert "sandbox allow-scripts;" in policy + ";"
    assert "connect-src 'none'" in policy
    assert "img-src 'none'" in policy
    assert "form-action 'none'" in policy
    assert "allow-same-origin" not in policy
    assert client.get("/diagram/", headers={"Sec-Fetch-Dest": "document"}).status_code == 404


def test_templates_hold_a_blank_of_everything(page: Client) -> None:
    html = html_of(page)
    for name in ("user", "assistant", "step", "reasoning", "session", "refused"):
        assert f'<template id="{name}-template">' in html


def test_account_menu(client: Client, ann: Any) -> None:
    client.force_login(ann)
    html = html_of(client)
    assert "Sign out" in html
    assert "/admin/" not in html
    client.force_login(make_user("root", is_staff=True))
    assert "/admin/" in html_of(client)


def test_the_site_has_a_name_a_logo_and_a_colour(client: Client, settings: Any) -> None:
    assert client.get("/accent.css").status_code == 404
    settings.SITE_NAME, settings.SITE_LOGO = "Heron & Sons", "/files/heron.png"
    settings.SITE_ACCENT = "#ffcc00"
    for address in ("/accounts/login/", "/nowhere/", "/service-worker.js"):
        page = client.get(address).content.decode()
        assert "agentsite</" not in page.replace("\\u003C", "<")
        assert "/files/heron.png" in page
        assert "accent.css?ffcc00" in page
    assert "<title>Sign in · Heron &amp; Sons</title>" in client.get("/accounts/login/").text
    assert "--accent:light-dark(#7e6b0d,#ffcc00)" in client.get("/accent.css").text


@pytest.mark.parametrize("accent", ["#0b6b69", "#ffcc00", "#ffffff", "#000000", "#7f7f7f"])
def test_every_colour_can_be_read(accent: str) -> None:
    style = accent_style(accent)
    both = re.findall(r"light-dark\(#(\w{6}),#(\w{6})\)", style)
    for place, grounds in enumerate((("ffffff", "eaf0ef"), ("17191c", "2c3237"))):
        colour, text = both[0][place], both[1][place]
        assert all(contrast(rgb(colour), rgb(other)) >= 4.5 for other in (text, *grounds))


def rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour)
    return red, green, blue


def test_not_found_is_styled(client: Client) -> None:
    response = client.get("/nothing/")
    assert response.status_code == 404
    assert "There is nothing at this address" in response.content.decode()


def test_a_stale_form_is_explained() -> None:
    response = Client(enforce_csrf_checks=True).post("/accounts/login/", {"username": "ann"})
    assert response.status_code == 403
    assert "That form is out of date" in response.content.decode()


def test_a_failure_is_explained_without_details(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    response = Client(raise_request_exception=False).get("/fail/")
    assert response.status_code == 500
    assert "Something went wrong" in response.content.decode()
    assert "secret" not in response.content.decode()


def fail(request: Any) -> HttpResponse:
    raise RuntimeError("secret")


urlpatterns = [*urls.urlpatterns, path("fail/", fail)]


def test_a_new_conversation_begins_with_an_agent_of_ones_choice(
    page: Client, ann: Any, serve_agents: Serve
) -> None:
    serve_agents(Agent(name="one"), Agent(name="two", model="small"))
    html = page.get("/").content.decode()
    assert html.count('type="radio" name="agent"') == 2
    assert '<div class="agent-card" data-agent="two" hidden>' in html
    assert "Answers come from small." in html
    session = session_of(ask(ann, "hello", agent="two"))
    html = html_of(page, session)
    assert 'type="radio" name="agent"' not in html
    assert '<div class="agent-card" data-agent="two">' in html


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"status": "started"}, "Using look up…"),
        ({"status": "finished", "duration_ms": 420}, "Used look up, 0.4 s"),
        ({"status": "finished", "duration_ms": 12}, "Used look up"),
        ({"status": "finished", "summary": "Found 3", "duration_ms": 1_960}, "Found 3, 2.0 s"),
        ({"status": "failed", "summary": "Found 3"}, "look up did not finish"),
    ],
)
def test_a_step_says_what_was_done(part: dict[str, Any], said: str) -> None:
    assert describe_step({"name": "look_up", **part}) == said
