import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conversations.changes import Change, SessionListed, register
from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import ChatSession, Message, Run
from conversations.people.accounts import adopt_guest, create_guest, is_guest
from conversations.queries import list_sessions
from conversations.sessions.history import get_history
from tests.support.chats import ask, begin, finish, make_user, session_of, talk

pytestmark = pytest.mark.django_db

Users = get_user_model()._default_manager


def test_a_guest_is_a_user_without_a_password() -> None:
    guest = create_guest()
    assert is_guest(guest)
    assert guest.is_active
    assert not guest.has_usable_password()
    assert not is_guest(make_user("ann"))


def test_guests_have_names_of_their_own() -> None:
    assert create_guest().get_username() != create_guest().get_username()


def test_everything_moves_and_the_guest_is_gone() -> None:
    guest, ann = create_guest(), make_user("ann")
    own = talk(ann, ("hers", "yes"))
    moved = [talk(guest, ("one", "1"), ("two", "2")), talk(guest, ("three", "3"))]
    adopt_guest(guest, ann)
    assert not Users.filter(pk=guest.pk).exists()
    assert set(ChatSession.objects.filter(owner=ann)) == {own, *moved}
    assert not Run.objects.exclude(owner=ann).exists()
    assert [message.text for message in get_history(moved[0]).messages] == ["one", "1", "two", "2"]


def test_moving_raises_the_revision() -> None:
    guest, ann = create_guest(), make_user("ann")
    session = talk(guest, ("one", "1"))
    adopt_guest(guest, ann)
    assert ChatSession.objects.get(pk=session.pk).rev == session.rev + 1


def test_sessions_keep_their_order() -> None:
    guest, ann = create_guest(), make_user("ann")
    for number in range(4):
        talk(guest, (f"{number}", "x"))
    before = [session.title for session in list_sessions(guest)]
    adopt_guest(guest, ann)
    assert [session.title for session in list_sessions(ann)] == before == ["3", "2", "1", "0"]


def test_a_reply_at_work_goes_on_for_the_account() -> None:
    guest, ann = create_guest(), make_user("ann")
    posted = ask(guest, "one")
    claimed = begin(posted, "so ", "far")
    adopt_guest(guest, ann)
    run = Run.objects.get(pk=claimed.run.pk)
    assert (run.owner_id, run.status, run.claim) == (ann.pk, "running", claimed.run.claim)
    assert get_history(session_of(posted)).messages[-1].text == "so far"


def test_an_id_that_the_account_has_used_is_let_go() -> None:
    guest, ann = create_guest(), make_user("ann")
    hers = ask(ann, "hers", client_message_id="same")
    theirs = ask(guest, "theirs", client_message_id="same")
    other = ask(guest, "other", client_message_id="other")
    adopt_guest(guest, ann)
    kept = dict(Run.objects.values_list("pk", "client_message_id"))
    assert [kept[run.pk] for run in map(run_of, (hers, theirs, other))] == ["same", None, "other"]


def run_of(posted: object) -> Run:
    return Run.objects.get(pk=posted.run_id)  # type: ignore[attr-defined]


def test_deleted_sessions_move_without_a_word(
    django_capture_on_commit_callbacks: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Change] = []
    monkeypatch.setattr("conversations.changes._handlers", [])
    register(told.append)
    guest, ann = create_guest(), make_user("ann")
    kept, deleted = talk(guest, ("one", "1")), talk(guest, ("two", "2"))
    ChatSession.objects.filter(pk=deleted.pk).update(deleted_at=deleted.created_at)
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[operator]
        adopt_guest(guest, ann)
    assert ChatSession.objects.filter(owner=ann).count() == 2
    assert [(change.session_id, change.owner_id) for change in told] == [(kept.pk, ann.pk)]
    assert [type(event) for event in told[0].events] == [SessionListed]


def test_a_tab_that_is_still_the_guests_is_told_to_sign_in() -> None:
    guest, ann = create_guest(), make_user("ann")
    adopt_guest(guest, ann)
    with pytest.raises(AgentSiteError) as caught:
        ask(guest, "one")
    assert caught.value.code == ErrorCode.NOT_AUTHENTICATED
    assert not ChatSession.objects.exists()


def test_locks_are_taken_in_the_order_of_workers() -> None:
    """Sessions, then runs by id: else Postgres ends one of two that wait for each other."""
    guest = create_guest()
    for content in ("one", "two"):
        begin(ask(guest, content), "so ")
    with CaptureQueriesContext(connection) as queries:
        adopt_guest(guest, make_user("ann"))
    sqls = [query["sql"] for query in queries]

    def places(words: str) -> list[int]:
        return [place for place, sql in enumerate(sqls) if words in sql]

    [lock] = [
        place for place in places('SELECT "conversations_run"') if "ORDER BY 1" in sqls[place]
    ]
    sessions, runs = places("SET rev ="), places('UPDATE "conversations_run"')
    assert len(sessions) == 2
    assert max(sessions) < lock < min(runs)


def test_who_signs_in_twice_at_once_moves_once() -> None:
    guest, ann = create_guest(), make_user("ann")
    session = talk(guest, ("one", "1"))
    for _ in range(2):
        adopt_guest(guest, ann)
    assert ChatSession.objects.get() == session
    assert list(Users.all()) == [ann]


def test_a_failure_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    guest, ann = create_guest(), make_user("ann")
    finish(ask(guest, "one"), "1")

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(Users.model, "delete", fail)
    with pytest.raises(RuntimeError):
        adopt_guest(guest, ann)
    assert Users.filter(pk=guest.pk).exists()
    assert ChatSession.objects.get().owner_id == guest.pk
    assert Message.objects.count() == 2
