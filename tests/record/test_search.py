"""Search by words, on both databases."""

from collections.abc import Iterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.db import connection, transaction
from pytest_django import DjangoDbBlocker

from conversations.models import ChatSession, Message, SearchEntry, TitleSource
from conversations.people.accounts import adopt_guest, create_guest
from conversations.queries import sessions_of
from conversations.sessions import lists, queue, search
from conversations.sessions.lists import save_title
from conversations.sessions.search import Piece, containing, find_entries, phrases_of
from tests.support.chats import ask, begin, finish, make_user, session_of, talk
from tests.support.databases import migrated, orm_on
from tests.support.servers import Postgres

TEXT = "Pear trees make an orchard; user@example.com wrote C++ in naïve Größe, 3.5 kg. Über 日本"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "sqlite":
        request.getfixturevalue("db")
        yield
        return
    url, blocker = request.getfixturevalue("tables"), request.getfixturevalue("django_db_blocker")
    with blocker.unblock(), orm_on(url):
        yield


@pytest.fixture(scope="module")
def tables(postgres: Postgres, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    """The URL of a Postgres database with all tables."""
    with django_db_blocker.unblock(), migrated(postgres) as url:
        yield url


@pytest.fixture
def ann(database: None) -> Any:
    return make_user("ann")


def found(user: Any, words: str) -> list[str]:
    """Titles of the user's sessions, the newest first."""
    sessions = containing(sessions_of(user), words, owner=user).order_by("-active_at")
    return [session.title for session in sessions]


def found_by_staff(words: str) -> list[str]:
    sessions = containing(ChatSession.objects.all(), words, owner=None).order_by("active_at")
    return [session.title for session in sessions]


SPACELESS = {
    "zh": "今天天气很好，我们去公园散步吧。",
    "ja": "明日の天気予報を教えて、カメラも。東京タワーへ行く",
    "ko": "서울에서 회의가 있습니다. 회의실은 어디인가요?",
    "th": "พรุ่งนี้ไปเที่ยวทะเลกันไหม",
    "mixed": "用Python写程序，我的iPhone手机 ready",
}


@pytest.mark.parametrize(
    ("words", "language"),
    [
        *(("天气", "zh"), ("公园", "zh"), ("散步", "zh"), ("园", "zh"), ("公园 天气很好", "zh")),
        *(
            ("天気", "ja"),
            ("予報", "ja"),
            ("メラ", "ja"),
            ("タワー", "ja"),
            ("教えて、カメラ", "ja"),
        ),
        *(("서울", "ko"), ("회의", "ko"), ("어디", "ko"), ("회의실", "ko"), ("있습", "ko")),
        *(("ทะเล", "th"), ("เที่ยว", "th"), ("พรุ่งนี้", "th"), ("เที่ยว ทะเล", "th")),
        *(
            ("python写", "mixed"),
            ("iPhone手机", "mixed"),
            ("手机 ready", "mixed"),
            ("手机 read", "mixed"),
        ),
    ],
)
def test_words_are_found_inside_texts_without_spaces(ann: Any, words: str, language: str) -> None:
    for name, text in SPACELESS.items():
        talk(ann, (f"{name} asks", text))
    talk(make_user("ben"), ("ben asks", SPACELESS[language]))
    assert found(ann, words) == [f"{language} asks"]
    assert sorted(found_by_staff(words)) == ["ben asks", f"{language} asks"]
    (entry,) = find_entries(ann, words, 10)
    assert entry.text == SPACELESS[language]


@pytest.mark.parametrize("words", ["天園", "气天", "公园 东京", "서울 ทะเล", "天气 ready", "園%"])
def test_what_is_not_inside_is_not_found(ann: Any, words: str) -> None:
    for name, text in SPACELESS.items():
        talk(ann, (f"{name} asks", text))
    assert (found(ann, words), found_by_staff(words)) == ([], [])


@pytest.mark.parametrize(
    "words",
    [
        *("pear", "ORCHARD", "trees pear", "orch", "example", "user@example.com", "com wrote"),
        *("c++", "3.5", "Größe", "日本", "question", "quest", "Pear  \n trees"),
    ],
)
def test_words_are_found(ann: Any, words: str) -> None:
    talk(ann, ("the question", TEXT))
    assert found(ann, words) == ["the question"]


@pytest.mark.parametrize(
    "words",
    [
        *("apple", "pear apple", "ear", "or", "trees@pear", "question orchard", "owner", "text"),
        # Nothing of what the two query languages know does anything.
        *("pear OR apple", "pear NOT apple", "NEAR(pear trees)", "text:pear", "pear AND trees"),
        *('"', "'", "\\", "*", "()", "!", "pear | apple", "-", "---", "'owner 1'", "%", "_"),
        *("<b>", "^apple", "\x00", "pear:*A", "{text} : x", "a" * 200, "\ud800"),
    ],
)
def test_what_is_not_there_is_not_found(ann: Any, words: str) -> None:
    talk(ann, ("the question", TEXT))
    assert found(ann, words) == []


def test_no_words_are_no_condition(ann: Any) -> None:
    talk(ann, ("one", "1"))
    assert found(ann, "  ") == ["one"]


def test_everybody_finds_their_own(ann: Any) -> None:
    ben = make_user("ben")
    talk(ann, ("an orchard", "x"))
    talk(ben, ("the orchard", "x"))
    assert found(ann, "orchard") == ["an orchard"]
    assert found(ben, "orchard") == ["the orchard"]
    assert found_by_staff("orchard") == ["an orchard", "the orchard"]
    assert found_by_staff(str(ann.pk)) == []


def test_a_reply_is_found_when_it_has_ended(ann: Any) -> None:
    posted = ask(ann, "question")
    assert found(ann, "orchard") == []
    session = session_of(posted)
    finish(posted, "orchard")
    assert found(ann, "orchard") == ["question"]
    begin(ask(ann, "more", session), "secretly")
    assert found(ann, "secretly") == []


def test_tools_and_thoughts_are_not_searched(ann: Any) -> None:
    tool = {"type": "tool", "tool_call_id": "1", "name": "dig", "status": "finished"}
    parts = [{"type": "reasoning", "text": "hidden"}, tool, {"type": "text", "text": "shown"}]
    finish(ask(ann, "question"), "", parts=parts)
    assert [found(ann, words) for words in ("hidden", "dig", "shown")] == [[], [], ["question"]]


def test_a_new_title_replaces_the_old_one(ann: Any) -> None:
    session = talk(ann, ("one", "1"))
    Message.objects.filter(session=session, role="user").update(parts=[])
    save_title(session, "Orchards", TitleSource.USER)
    assert (found(ann, "one"), found(ann, "orchards")) == ([], ["Orchards"])


def test_sessions_take_their_words_to_a_new_owner(ann: Any) -> None:
    guest = create_guest()
    talk(guest, ("an orchard", "pears"))
    with transaction.atomic():
        adopt_guest(guest, ann)
    assert found(ann, "pears") == ["an orchard"]
    assert SearchEntry.objects.exclude(owner=ann).count() == 0


def test_deleted_rows_are_gone_from_the_index(ann: Any) -> None:
    session = talk(ann, ("an orchard", "pears"))
    talk(ann, ("other", "plums"))
    session.delete()
    assert (found(ann, "pears"), found(ann, "plums")) == ([], ["other"])
    assert SearchEntry.objects.count() == 3
    if connection.vendor == "sqlite":
        check_index()


def check_index() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO conversations_searchindex (conversations_searchindex, rank)"
            " VALUES ('integrity-check', 1)"
        )


def test_entries_tell_what_matched_the_newest_first(ann: Any) -> None:
    talk(ann, ("an orchard", "orchards in bloom"))
    talk(ann, ("two", "the orchard again"))
    texts = [entry.text for entry in find_entries(ann, "orchard", 2)]
    assert texts == ["the orchard again", "orchards in bloom"]


def test_what_was_taken_back_is_not_found(ann: Any) -> None:
    head = ask(ann, "at work")
    session = session_of(head)
    waiting = ask(ann, "an orchard", session)
    assert found(ann, "orchard") == ["at work"]
    queue.remove_queued(user=ann, session_id=str(session.pk), run_id=str(waiting.run_id))
    assert found(ann, "orchard") == []
    Message.objects.filter(withdrawn=True).update(parts=[{"type": "text", "text": "orchards"}])
    assert found(ann, "orchards") == []
    if connection.vendor == "sqlite":
        check_index()


def test_what_was_taken_back_before_is_forgotten(ann: Any) -> None:
    """By a migration, in a database whose index knew it."""
    session = talk(ann, ("an orchard", "pears"))
    config = apps.get_app_config("conversations")
    search.drop_triggers(config, "default", plan=[None])
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "DROP TRIGGER conversations_search_message_changed ON conversations_message;"
                "CREATE TRIGGER conversations_search_message_changed AFTER UPDATE OF parts"
                " ON conversations_message FOR EACH ROW"
                " EXECUTE FUNCTION conversations_search_message()"
            )
    Message.objects.filter(session=session, role="assistant").update(withdrawn=True)
    migration = import_module("conversations.migrations.0014_withdrawn_is_not_searched")
    migration.forget(apps, SimpleNamespace(connection=connection))
    search.install(config, using="default")
    assert (found(ann, "pears"), found(ann, "orchard")) == ([], ["an orchard"])
    if connection.vendor == "sqlite":
        check_index()


def test_the_newest_message_of_each_session_is_told(ann: Any) -> None:
    first, second = talk(ann, ("orchards", "x"), ("more orchards", "y")), talk(ann, ("z", "none"))
    save_title(second, "An orchard", TitleSource.USER)
    talk(make_user("ben"), ("orchards", "x"))
    matches = lists.find_matches(ann, "orch", [first, second])
    assert {pk: match.message_id for pk, match in matches.items()} == {
        first.pk: Message.objects.get(session=first, number=3).pk
    }
    assert matches[first.pk].excerpt == [Piece("more "), Piece("orchards", found=True)]
    assert lists.find_matches(ann, " ", [first]) == {}


def test_a_long_text_can_be_kept(ann: Any) -> None:
    talk(ann, ("long", "orchard " + "".join(f"w{n} " for n in range(200_000))))
    assert found(ann, "orchard") == ["long"]


def test_what_is_there_already_is_indexed(ann: Any) -> None:
    """The index comes to a database that is in use."""
    talk(ann, ("an orchard", "pears"))
    uninstall()
    SearchEntry.objects.all().delete()
    talk(ann, ("meanwhile", "plums"))
    assert SearchEntry.objects.count() == 0
    search.install(apps.get_app_config("conversations"), using="default")
    assert (found(ann, "pears"), found(ann, "plums")) == (["an orchard"], ["meanwhile"])


def list_triggers() -> list[tuple[str, str]]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name, sql FROM sqlite_master WHERE type IN ('trigger', 'view')"
            " AND name LIKE 'conversations_search%' ORDER BY name"
        )
        return list(cursor.fetchall())


def test_a_failed_migration_leaves_no_gap_in_the_index(ann: Any) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("triggers stay on Postgres")
    config = apps.get_app_config("conversations")
    kept, gone = talk(ann, ("an orchard", "pears")), talk(ann, ("a shed", "tools"))
    before = list_triggers()
    search.drop_triggers(config, "default", plan=[None])
    # What is written while there are no triggers.
    talk(ann, ("meanwhile", "plums"))
    reply = Message.objects.get(session=kept, role="assistant")
    Message.objects.filter(pk=reply.pk).update(parts=[{"type": "text", "text": "apples"}])
    save_title(kept, "A wood", TitleSource.USER)
    gone.delete()
    search.put_back("default")
    assert list_triggers() == before
    talk(ann, ("later", "figs"))
    assert found(ann, "figs") == ["later"]
    search.drop_triggers(config, "default", plan=[None])
    search.install(config, using="default")
    assert list_triggers() == before
    words = ("pears", "orchard", "tools", "apples", "wood", "plums", "figs")
    assert {word: found(ann, word) for word in words} == {
        "pears": [],
        "orchard": ["A wood"],
        "tools": [],
        "apples": ["A wood"],
        "wood": ["A wood"],
        "plums": ["meanwhile"],
        "figs": ["later"],
    }
    check_index()
    search.put_back("default")
    assert list_triggers() == before


def test_changed_functions_reach_a_database_in_use(ann: Any) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("triggers are made anew on SQLite")
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE OR REPLACE FUNCTION conversations_search_message() RETURNS trigger"
            " LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
            "COMMENT ON FUNCTION conversations_search_message IS 'of an earlier version'"
        )
    talk(ann, ("before", "pears"))
    search.install(apps.get_app_config("conversations"), using="default")
    talk(ann, ("after", "pears"))
    assert found(ann, "pears") == ["after"]


def uninstall() -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            search.drop_triggers(apps.get_app_config("conversations"), "default", plan=[None])
            cursor.execute("DROP TABLE conversations_searchindex")
        else:
            cursor.execute(
                "SET CONSTRAINTS ALL IMMEDIATE;"
                "ALTER TABLE conversations_searchentry DROP COLUMN document;"
                "DROP FUNCTION conversations_search_message, conversations_search_session,"
                " conversations_search_text CASCADE;"
                "SET CONSTRAINTS ALL DEFERRED"
            )


@pytest.mark.in_process("SQLite's tables")
@pytest.mark.django_db(transaction=True)
def test_tables_can_be_made_anew_by_migrations() -> None:
    """As Django changes a column on SQLite."""
    ann, config = make_user("ann"), apps.get_app_config("conversations")
    talk(ann, ("before", "pears"))
    search.drop_triggers(config, "default", plan=[None])
    with connection.schema_editor() as editor:
        for model in (ChatSession, Message, SearchEntry):
            editor._remake_table(model)  # type: ignore[attr-defined]
    search.install(config, "default")
    talk(ann, ("after", "pears"))
    assert found(ann, "pears") == ["after", "before"]
    check_index()


def test_phrases() -> None:
    assert phrases_of('to "user@example.com" — ok!') == [["to"], ["user", "example", "com"], ["ok"]]
