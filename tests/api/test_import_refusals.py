"""What a file of conversations may not hold; its SHA-256 is right in every case."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError
from django.utils import timezone

from conversations.exports.source import Conversation, read_conversations
from conversations.exports.writers import Digest, write_one
from conversations.models import AuditEntry, ChatSession, Message, TitleSource
from conversations.people import accounts
from tests.support.chats import make_user, talk

pytestmark = pytest.mark.django_db(transaction=True)

Change = Callable[[Any, Any], Any]
"""Changes the session and its messages: a question, a reply, a question, a reply."""


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """A parsed export of a conversation that is not there any more."""
    session = talk(make_user("ann"), ("one", "1"), ("two", "2"))
    found = ChatSession.objects.filter(pk=session.pk)
    exported = json.loads("".join(write_one(read_conversations(found))))
    found.delete()
    return exported


def run_import(path: Path, data: Any) -> None:
    """As an operator does it, with the right digest."""
    digest = Digest(Conversation(data["session"], iter(data["messages"])))
    list(digest.messages())
    path.write_text(json.dumps(data | {"sha256": digest.value}))
    call_command("import_transcript", str(path), "--user=ann")


def set_in(*place: Any, to: Any) -> Change:
    """Puts a value where `place` says, beginning at the messages or at the session."""

    def change(session: Any, messages: Any) -> None:
        target = {"session": session, "messages": messages}
        for step in place[:-1]:
            target = target[step]
        target[place[-1]] = to

    return change


def make_circle(session: Any, messages: Any) -> None:
    messages[0]["parent_message_id"] = messages[-1]["message_id"]


def repeat_id(session: Any, messages: Any) -> None:
    messages[2]["message_id"] = messages[0]["message_id"]


LATER = (timezone.now() + timedelta(days=3)).isoformat()
CHANGES: dict[str, Change] = {
    "status": set_in("messages", 1, "run_status", to="exploded"),
    "role": set_in("messages", 0, "role", to="system"),
    "verdict": set_in("messages", 1, "feedback", to=[{"value": "sideways", "comment": ""}]),
    "title": set_in("session", "title", to="x" * 5_000),
    "year 1": set_in("session", "active_at", to="0001-01-01T00:00:00+00:00"),
    "year 9999": set_in("messages", 0, "created_at", to="9999-12-31T23:59:59-14:00"),
    "future": set_in("session", "active_at", to=LATER),
    "naive": set_in("messages", 1, "timings", "ended_at", to="2026-01-01T00:00:00"),
    "parts": set_in("messages", 1, "parts", to="text"),
    "kind of part": set_in("messages", 1, "parts", to=[{"type": "script", "text": "x"}]),
    "cost": set_in("messages", 1, "cost", to="much"),
    "endless cost": set_in("messages", 1, "cost", to="Infinity"),
    "tokens": set_in("messages", 1, "usage", "input_tokens", to=-1),
    "many tokens": set_in("messages", 1, "usage", "input_tokens", to=2**63),
    "error": set_in("messages", 1, "error_code", to="<script>"),
    "no parent": set_in("messages", 1, "parent_message_id", to=None),
    "circle": make_circle,
    "twice": repeat_id,
    "branch": set_in("messages", 1, "on_active_branch", to=False),
    "NUL": set_in("session", "title", to="a\0b"),
    "number": set_in("messages", 0, "number", to=2**40),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_no_export_is_refused(file: Any, tmp_path: Path, name: str) -> None:
    CHANGES[name](file["session"], file["messages"])
    with pytest.raises(CommandError, match="not imported"):
        run_import(tmp_path / "export.json", file)
    assert not ChatSession.objects.exists()


@pytest.mark.parametrize(
    "change",
    [
        set_in("session", "created_at", to="secret"),
        set_in("messages", 0, "role", to="secret"),
        set_in("messages", 1, "parts", to=[{"type": "secret"}]),
        set_in("messages", 1, "run_status", to="secret"),
    ],
)
def test_a_refusal_does_not_quote_the_file(file: Any, tmp_path: Path, change: Change) -> None:
    change(file["session"], file["messages"])
    with pytest.raises(CommandError, match="not imported") as caught:
        run_import(tmp_path / "export.json", file)
    assert "secret" not in str(caught.value)


def test_a_foreign_message_is_no_parent(file: Any, tmp_path: Path) -> None:
    """It would be shown to the importing user, and to anybody by a link."""
    foreign = talk(make_user("ben"), ("only ben knows", "1"))
    leaf = Message.objects.filter(session=foreign).latest("number")
    file["messages"][0]["parent_message_id"] = str(leaf.pk)
    with pytest.raises(CommandError, match="the parent of a message is missing"):
        run_import(tmp_path / "export.json", file)
    assert list(ChatSession.objects.all()) == [foreign]


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "secret words", '{"format": "agentsite.transcripts"}']
)
def test_a_file_that_is_none(file: Any, tmp_path: Path, text: str) -> None:
    path = tmp_path / "export.json"
    path.write_text(text)
    with pytest.raises(CommandError, match="not imported") as caught:
        call_command("import_transcript", str(path), "--user=ann")
    assert "secret" not in str(caught.value)


def test_an_import_that_fails_at_its_last_step_leaves_nothing(
    file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("the log")

    monkeypatch.setattr(accounts, "record_each", fail)
    with pytest.raises(CommandError, match="the database rejected it"):
        run_import(tmp_path / "export.json", file)
    assert not ChatSession.objects.exists()


def test_the_untouched_file_is_taken_and_logged(file: Any, tmp_path: Path) -> None:
    run_import(tmp_path / "export.json", file)
    session = ChatSession.objects.get()
    assert session.title_source == TitleSource.WORDS
    entry = AuditEntry.objects.get(action="imported")
    assert (entry.session_id, entry.actor) == (session.pk, None)
