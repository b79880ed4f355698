"""Which branch of a conversation is shown: on the page, over REST, and to the model."""

import re
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from conversations.errors import AgentSiteError
from conversations.models import ChatSession, Message, Run
from conversations.runs.inputs import Gauge, read_path
from conversations.runs.lifecycle import ContextSize
from conversations.sessions import queue
from conversations.sessions.history import get_history, list_below, list_siblings
from conversations.shapes import History
from tests.support.chats import ask, begin, finish, make_user, session_of, talk

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann() -> User:
    return make_user("ann")


@pytest.fixture
def api(ann: User) -> Client:
    client = Client()
    client.force_login(ann)
    return client


def texts(history: History) -> list[str]:
    return [message.text for message in history.messages]


def message(session: ChatSession, text: str) -> str:
    """The id of the message that says `text`."""
    found = [row for row in Message._default_manager.filter(session=session) if row.text == text]
    return str(found[0].pk)


@pytest.fixture
def session(ann: User) -> ChatSession:
    """Two questions; the second answered twice, then the first one put differently."""
    session = talk(ann, ("one", "1"), ("two", "2"))
    finish(ask(ann, "", session, regenerate=message(session, "2")), "2 again")
    finish(ask(ann, "three", session), "3")
    edited = ask(ann, "uno", session, parent_message_id="")
    finish(edited, "I")
    return session_of(edited)


def test_the_branch_of_the_newest_message_is_shown(session: ChatSession) -> None:
    history = get_history(session)
    assert (texts(history), history.aside, history.later) == (["uno", "I"], False, "")


def test_another_one_goes_on_by_its_newest_messages(session: ChatSession) -> None:
    for name in ("one", "1", "two", "2 again", "three", "3"):
        history = get_history(session, branch=message(session, name))
        assert texts(history) == ["one", "1", "two", "2 again", "three", "3"]
        assert (history.aside, history.later) == (True, "")
    history = get_history(session, branch=message(session, "2"))
    assert texts(history) == ["one", "1", "two", "2"]
    assert not get_history(session, branch=message(session, "uno")).aside


def test_siblings_are_named_where_there_are_some(session: ChatSession) -> None:
    history = get_history(session, branch=message(session, "two"))
    ids = {
        "": [message(session, "one"), message(session, "uno")],
        message(session, "two"): [message(session, "2"), message(session, "2 again")],
    }
    assert list_siblings(session, history.messages) == ids
    [_, second, *_] = history.messages
    assert list_siblings(session, [second]) == {}


def test_what_was_taken_back_is_on_no_branch(ann: User, session: ChatSession) -> None:
    ask(ann, "at work", session)
    waiting = ask(ann, "waiting", session)
    history = get_history(session)
    queue.remove_queued(user=ann, session_id=str(session.pk), run_id=str(waiting.run_id))
    assert texts(get_history(session, branch=message(session, "at work")))[2:] == ["at work", ""]
    assert set(list_siblings(session, history.messages)) == {""}
    with pytest.raises(AgentSiteError):
        get_history(session, branch=message(session, "waiting"))


def test_a_foreign_or_missing_message_has_no_branch(session: ChatSession) -> None:
    foreign = talk(make_user("ben"), ("secret", "1"))
    for name in (str(foreign.active_leaf_id), str(uuid4()), "nonsense"):
        with pytest.raises(AgentSiteError):
            get_history(session, branch=name)


def test_the_model_goes_on_from_the_branch_that_is_shown(ann: User, session: ChatSession) -> None:
    leaf = get_history(session, branch=message(session, "2")).messages[-1].message_id
    posted = ask(ann, "and now?", session, parent_message_id=leaf)
    run = Run._default_manager.get(pk=posted.run_id)
    turns = read_path(run, run.prompt_id, 10).turns
    assert [turn.text for turn in turns if turn.text] == ["and now?", "two", "one"]
    finish(posted, "now")
    history = get_history(session_of(posted))
    assert texts(history) == ["one", "1", "two", "2", "and now?", "now"]


def test_the_smallest_refused_input_of_a_first_prompt_counts(ann: User) -> None:
    posted = ask(ann, "one")
    for refused in (900, 400):
        finish(posted, "", parts=[], context=ContextSize(refused=refused))
        session = session_of(posted)
        posted = ask(ann, "", session, regenerate=str(posted.run.message_id))
    run = begin(posted).run
    [turn] = read_path(run, run.prompt_id, 10).turns
    assert turn.gauge == Gauge(run.agent, run.model, refused=400)


@pytest.fixture
def long(ann: User) -> ChatSession:
    """60 messages in a row."""
    session = ChatSession._default_manager.create(owner=ann, rev=1, message_count=60)
    last = None
    for number in range(1, 61):
        role = "user" if number % 2 else "assistant"
        parts = [{"type": "text", "text": str(number)}]
        last = Message._default_manager.create(
            session=session, number=number, role=role, rev=1, parent=last, parts=parts
        )
    session.active_leaf = last
    session.save()
    return session


def test_a_long_branch_is_shown_around_its_message(long: ChatSession) -> None:
    history = get_history(long, 20, branch=message(long, "30"))
    assert texts(history) == [str(number) for number in range(25, 45)]
    assert (history.later, history.aside) == (message(long, "44"), True)
    history = get_history(long, 20, branch=history.later)
    assert texts(history) == [str(number) for number in range(39, 59)]
    history = get_history(long, 20, branch=history.later)
    assert (texts(history)[-1], history.later, history.aside) == ("60", "", False)


def test_no_query_grows_with_the_conversation(long: ChatSession) -> None:
    """The walk is stopped, and beginnings are looked up in an index of their own."""
    start = UUID(message(long, "1"))
    assert len(list_below(start, 5)) == 5
    with CaptureQueriesContext(
        connection,
    ) as queries:
        list_siblings(long, get_history(long, 100).messages)
    explain = "EXPLAIN " if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN "
    with connection.cursor() as cursor:
        cursor.execute(explain + queries.captured_queries[-1]["sql"])
        assert "beginnings" in str(cursor.fetchall())


def test_the_api_shows_any_branch(api: Client, session: ChatSession) -> None:
    address = f"/api/sessions/{session.pk}/"
    shown = [entry["text"] for entry in api.get(address).json()["messages"]]
    assert shown == ["uno", "I"]
    body = api.get(address, {"branch": message(session, "2")}).json()
    assert [entry["text"] for entry in body["messages"]] == ["one", "1", "two", "2"]
    assert body["later"] == ""
    assert api.get(address, {"branch": str(uuid4())}).status_code == 404


def test_any_message_is_read_by_itself(api: Client, session: ChatSession) -> None:
    address = f"/api/sessions/{session.pk}/messages/"
    assert api.get(f"{address}{message(session, '2')}/").json()["text"] == "2"
    foreign = talk(make_user("ben"), ("secret", "1"))
    for name in (foreign.active_leaf_id, uuid4(), "nonsense"):
        assert api.get(f"{address}{name}/").status_code == 404


def test_versions_are_buttons_that_need_no_javascript(api: Client, session: ChatSession) -> None:
    html = api.get(f"/s/{session.pk}/").content.decode()
    log = html[html.index('id="log"') : html.index("</main>")]
    assert re.search(r'role="img" aria-label="Version 2 of 2">2/2<', log)
    [other] = re.findall(r'name="branch" value="([^"]+)"', log)
    html = api.get(f"/s/{session.pk}/?branch={other}").content.decode()
    log = html[html.index('id="log"') : html.index("</main>")]
    assert re.findall(r'aria-label="(Version [^"]+)"', log) == [
        "Version 1 of 2",
        "Version 2 of 2",
    ]
    assert "The latest messages" in log


def test_pages_of_a_branch_stay_on_it(
    api: Client, session: ChatSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentsite.web.pages.PAGE", 4)

    def get(query: str) -> tuple[list[str], Any]:
        response = api.get(f"/s/{session.pk}/{query}")
        shown = response.context["messages"]
        said = [entry.text or entry.blocks[0]["text"] for entry in shown]
        links = dict(
            re.findall(r'id="(earlier|later)"><a href="([^"#]+)', response.content.decode())
        )
        return said, links

    said, links = get(f"?branch={message(session, '3')}")
    assert said == ["two", "2 again", "three", "3"]
    said, links = get(links["earlier"])
    assert said == ["one", "1"]
    said, links = get(links["later"])
    assert said[0] in ("1", "two")
