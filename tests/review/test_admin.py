from typing import Any

import pytest
from django.test import Client

from conversations.models import ChatSession, Message, Run, RunStatus
from tests.support.chats import ask, begin, finish, make_user, session_of, talk

pytestmark = pytest.mark.django_db

LISTS = ("chatsession", "run")
NASTY = "<script>alert(1)</script>"


@pytest.fixture
def ann() -> Any:
    return make_user("ann")


@pytest.fixture
def root() -> Client:
    client = Client()
    client.force_login(make_user("root", is_staff=True, is_superuser=True))
    return client


def html_of(client: Client, path: str) -> str:
    response = client.get(f"/admin/conversations/{path}")
    assert response.status_code == 200
    return response.content.decode()


def rows_of() -> dict[str, Any]:
    return {
        "chatsession": ChatSession.objects.get().pk,
        "run": Run.objects.get().pk,
    }


def test_a_session_shows_what_was_said(root: Client, ann: Any) -> None:
    session = talk(ann, ("a question", "an answer"))
    html = html_of(root, f"chatsession/{session.pk}/change/")
    assert html.index("a question") < html.index("an answer")


def test_a_session_shows_steps_and_the_reply_at_work(root: Client, ann: Any) -> None:
    session = talk(ann, ("one", "1"))
    posted = ask(ann, "two", session)
    tool = {"type": "tool", "tool_call_id": "c", "name": "search", "status": "finished"}
    finish(posted, "", parts=[tool | {"arguments": "{}", "output": "found it"}])
    begin(ask(ann, "three", session), "so far")
    html = html_of(root, f"chatsession/{session.pk}/change/")
    assert "<code>search</code> · finished" in html
    assert "found it" in html
    assert "so far" in html


@pytest.mark.parametrize("name", LISTS)
def test_text_is_text(root: Client, ann: Any, name: str) -> None:
    talk(ann, (NASTY, NASTY))
    for path in (f"{name}/", f"{name}/{rows_of()[name]}/change/"):
        html = root.get(f"/admin/conversations/{path}", follow=True).content.decode()
        assert "alert(1)" in html or path == "run/"
        assert NASTY not in html


@pytest.mark.parametrize("name", LISTS)
def test_nothing_can_be_changed(root: Client, ann: Any, name: str) -> None:
    talk(ann, ("one", "1"))
    address = f"/admin/conversations/{name}"
    assert root.get(f"{address}/add/").status_code == 403
    assert root.post(f"{address}/{rows_of()[name]}/change/", {"title": "x"}).status_code == 403
    assert root.post(f"{address}/{rows_of()[name]}/delete/", {"post": "yes"}).status_code == 403
    form = {"action": "delete_selected", "_selected_action": [str(rows_of()[name])]}
    root.post(f"{address}/", form)
    assert (ChatSession.objects.count(), Message.objects.count(), Run.objects.count()) == (1, 2, 1)


@pytest.mark.parametrize("name", LISTS)
def test_a_list_costs_the_same_for_many(
    root: Client, ann: Any, name: str, django_assert_max_num_queries: Any
) -> None:
    for number in range(8):
        talk(make_user(f"user{number}"), (f"{number}", "x"))
    with django_assert_max_num_queries(12):
        html_of(root, f"{name}/")


@pytest.mark.parametrize(
    ("name", "words"),
    [("chatsession", "@ann"), ("chatsession", "holiday"), ("chatsession", "sun"), ("run", "@ann")],
)
def test_search_finds_by_owner_title_and_text(
    root: Client, ann: Any, name: str, words: str
) -> None:
    talk(ann, ("holiday plans", "into the sun"))
    talk(make_user("ben"), ("work", "x"))
    html = html_of(root, f"{name}/?q={words}")
    found, other = (ChatSession.objects.get(title=title) for title in ("holiday plans", "work"))
    assert str(found.pk) in html
    assert str(other.pk) not in html


@pytest.mark.parametrize(
    ("query", "is_cut"), [("", False), ("@ann", False), ("0" * 32, False), ("two words", True)]
)
def test_an_export_of_a_search_by_words_is_told_to_be_cut(
    root: Client, ann: Any, query: str, is_cut: bool
) -> None:
    html = root.get("/admin/conversations/chatsession/", {"q": query}).content.decode()
    assert ("The newest 1,000 matches as" in html) is is_cut
    assert ("All sessions of this list as" in html) is not is_cut


def test_search_finds_by_id(root: Client, ann: Any) -> None:
    session = talk(ann, ("one", "1"))
    talk(ann, ("two", "2"))
    html = html_of(root, f"chatsession/?q={session.pk}")
    assert ">one<" in html
    assert ">two<" not in html


def test_runs_can_be_filtered(root: Client, ann: Any) -> None:
    finish(ask(ann, "fine"), "1")
    failed = ask(ann, "broken")
    finish(failed, "", status=RunStatus.FAILED, error_code="provider_cut")
    html = html_of(root, "run/?status=failed&agent=assistant")
    assert str(session_of(failed).pk) in html
    assert str(ChatSession.objects.get(title="fine").pk) not in html


def test_only_staff_with_the_permission_may_look(client: Client, ann: Any) -> None:
    session = talk(ann, ("one", "1"))
    path = f"/admin/conversations/chatsession/{session.pk}/change/"
    client.force_login(ann)
    assert client.get(path).status_code == 302
    client.force_login(make_user("staff", is_staff=True))
    assert client.get(path).status_code == 403


LOOKUPS = [
    ("approval", "arguments__contains=secret"),
    ("approval", "description__startswith=s"),
    ("approval", "run__session__title__contains=secret"),
    ("approval", "args_hash=x"),
    ("chatsession", "title__contains=secret"),
    ("chatsession", "owner__password__startswith=a"),
    ("run", "prompt__parts__contains=secret"),
    ("run", "session__title__contains=secret"),
    ("auditentry", "detail__contains=secret"),
]


@pytest.mark.parametrize(("name", "query"), LOOKUPS)
def test_lists_are_filtered_by_nothing_hidden(root: Client, name: str, query: str) -> None:
    """Else whoever may see a list reads what it hides, letter by letter."""
    assert root.get(f"/admin/conversations/{name}/?{query}").status_code == 400


def test_accounts_are_filtered_by_nothing_that_was_said(root: Client, ann: Any) -> None:
    talk(ann, ("secret", "1"))
    for query in (
        "chat_sessions__title__contains=secret",
        "chat_runs__model=x",
        "api_keys__name=x",
    ):
        assert root.get(f"/admin/auth/user/?{query}").status_code == 400


def test_lists_keep_their_filters(root: Client, ann: Any) -> None:
    for query in ("decision__exact=approve", "tool=erase", "created_at__gte=2026-01-01+00:00Z"):
        assert root.get(f"/admin/conversations/approval/?{query}").status_code == 200


def test_runs_and_requests_are_found_by_id(root: Client, ann: Any) -> None:
    run = Run.objects.get(session=talk(ann, ("one", "1")))
    other = Run.objects.get(session=talk(ann, ("two", "2")))
    html = html_of(root, f"run/?q={run.pk}")
    assert str(run.pk) in html
    assert str(other.pk) not in html


@pytest.mark.parametrize("name", ["chatsession", "run", "approval", "auditentry"])
def test_no_search_fails(root: Client, ann: Any, name: str) -> None:
    for term in ("@%00", "%00", "@", "x%27", "%F0%9F%98%80"):
        assert root.get(f"/admin/conversations/{name}/?q={term}").status_code in (200, 302)
