"""What is deleted is gone, from every table."""

import json
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from django.apps import apps
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Permission
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import PROTECT
from django.test import Client
from django.utils import timezone

from conversations.models import (
    ApiKey,
    AuditEntry,
    ChatSession,
    Feedback,
    Guest,
    Label,
    Review,
    Run,
    Share,
    SignOuts,
    SocketTicket,
    UserUsage,
)
from conversations.people.accounts import create_guest, create_key
from conversations.people.privacy import erase_user, purge
from tests.support.chats import ask, begin, finish, last_message, make_user, session_of, talk

CANARY = "quetzalcoatlus"


@pytest.fixture
def ann(db: None) -> Any:
    return make_user("ann")


def cells() -> Iterator[tuple[str, str]]:
    """Every value of every table, with the table's name."""
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            for row in cursor.fetchall():
                yield from ((table, _text(value)) for value in row)


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def tables_with(text: str) -> set[str]:
    return {table for table, value in cells() if text in value.casefold()}


def relations_to(user_id: int) -> list[str]:
    """Names of all columns in which rows still name the user."""
    return [
        f"{model._meta.label}.{field.name}"
        for model in apps.get_models(include_auto_created=True)
        for field in model._meta.concrete_fields
        if field.is_relation
        and field.related_model is not None
        and getattr(field.related_model, "_meta", None) is not None
        and field.related_model._meta.label == "auth.User"
        and model._base_manager.filter(**{field.name: user_id}).exists()
    ]


@pytest.mark.django_db(transaction=True)
def test_nothing_of_an_erased_user_is_left() -> None:
    name = f"ann-{CANARY}"
    ann, staff = make_user(name), make_user("staff", is_staff=True, is_superuser=True)
    fill(ann, staff)
    ben = talk(make_user("ben"), ("ben's", "stays"))
    assert len(tables_with(CANARY)) > 5
    assert len(relations_to(ann.pk)) >= 3
    call_command("erase_user", name, no_input=True, stdout=StringIO())
    assert tables_with(CANARY) == set()
    assert relations_to(ann.pk) == []
    assert list(ChatSession.objects.all()) == [ben]
    assert AuditEntry.objects.filter(action="erased").count() == 1


def fill(ann: Any, staff: Any) -> None:
    """Rows of every kind, each with the word."""
    browser = Client()
    browser.force_login(ann)
    tool = {"type": "tool", "tool_call_id": "c", "name": CANARY, "status": "finished"}
    parts = [tool | {"arguments": CANARY, "output": CANARY}, {"type": "text", "text": CANARY}]
    posted = ask(ann, CANARY, client_message_id=CANARY)
    finish(posted, "", parts=parts, items=[{"role": "assistant", "content": CANARY}])
    session = session_of(posted)
    Feedback.objects.create(message=last_message(session), user=ann, value="down", comment=CANARY)
    Share.objects.create(session=session, leaf=last_message(session), token_hash=CANARY)
    begin(ask(ann, f"{CANARY} at work", session), CANARY)
    ask(ann, f"{CANARY} in the queue", session)
    review = Review.objects.create(session=session, assignee=staff, note=CANARY)
    review.labels.add(Label.objects.create(name="label"))
    desk = Client()
    desk.force_login(staff)
    desk.get(f"/admin/conversations/chatsession/{session.pk}/change/")
    for query in (f"@{ann.username}", CANARY, f"@ {ann.username} "):
        address = f"/admin/conversations/chatsession/export/?{urlencode({'q': query})}"
        desk.post(address, {"export_format": "json"}).close()
    LogEntry.objects.log_actions(staff.pk, [ann], CHANGE, CANARY)
    browser.logout()
    browser.force_login(ann)


def test_erasing_asks_and_knows_the_name(ann: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda _: "no")
    for name in ("ann", "nobody"):
        with pytest.raises(CommandError):
            call_command("erase_user", name)
    assert relations_to(ann.pk) == []
    ann.refresh_from_db()
    assert ann.is_active


def test_rows_of_another_app_that_keep_the_account(
    ann: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeps = LogEntry._meta.get_field("user").remote_field
    monkeypatch.setattr(keeps, "on_delete", PROTECT)
    LogEntry.objects.log_actions(ann.pk, [make_user("ben")], CHANGE, "")
    ann.username = ann.email = ann.first_name = ann.last_name = CANARY
    ann.save()
    own_everything(ann)
    talk(ann, (f"A {CANARY}?", "Extinct."))
    with pytest.raises(CommandError, match="disabled, as erased-"):
        call_command("erase_user", CANARY, no_input=True)
    ann.refresh_from_db()
    assert not ann.is_active
    assert not ann.has_usable_password()
    assert tables_with(CANARY) == set()
    assert relations_to(ann.pk) == ["admin.LogEntry.user"]
    assert AuditEntry.objects.get().detail == {"sessions": 1}


def own_everything(ann: Any) -> None:
    """A row of each table that belongs to the account and not to a session."""
    Guest.objects.create(user=ann)
    ApiKey.objects.create(owner=ann, name=CANARY, prefix="agk_1", key_hash="-")
    SocketTicket.objects.create(user=ann, token_hash="-", expires_at=timezone.now())
    SignOuts.objects.create(user=ann, count=1)
    UserUsage.objects.create(user=ann, slot=1, tokens=1)


def test_an_erased_owner_of_nothing(ann: Any) -> None:
    assert erase_user(ann) == 0


def age(session: ChatSession, days: float, **fields: Any) -> None:
    moment = timezone.now() - timedelta(days=days)
    ChatSession.objects.filter(pk=session.pk).update(
        **dict.fromkeys(fields or ("active_at",), moment)
    )


def left() -> set[str]:
    return set(ChatSession.objects.values_list("title", flat=True))


def test_old_sessions_are_purged(ann: Any, settings: Any) -> None:
    settings.RETENTION_DAYS, settings.RESTORE_DAYS = 30, 3
    for title, days in (("old", 31), ("young", 29)):
        age(talk(ann, (title, "x")), days)
    for title, days in (("deleted", 4), ("restorable", 2)):
        age(talk(ann, (title, "x")), days, deleted_at=True)
    posted = ask(ann, "old but at work")
    begin(posted)
    age(session_of(posted), 31)
    out = StringIO()
    call_command("purge", dry_run=True, stdout=out)
    assert "2 sessions to delete" in out.getvalue()
    call_command("purge", stdout=out)
    assert left() == {"young", "restorable", "old but at work"}
    assert Run.objects.count() == 3
    assert AuditEntry.objects.get().detail == {"sessions": 2}
    assert purge() == 0


def test_everything_is_kept_by_default(ann: Any) -> None:
    for number in range(3):
        age(talk(ann, (f"{number}", "x")), 3_000)
    assert purge() == 0


def test_guests_who_have_left_nothing_are_purged(ann: Any) -> None:
    writer, young, _ = (create_guest() for _ in range(3))
    talk(writer, ("left", "something"))
    past = timezone.now() - timedelta(days=15)
    Guest.objects.exclude(user=young).update(created_at=past)
    purge()
    users = type(ann).objects.all()
    assert set(users) == {ann, writer, young}


def test_a_guest_whom_others_protect_stays_and_stops_nothing(
    ann: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a row of another app kept the account of the first of them."""
    first, second = create_guest(), create_guest()
    Guest.objects.update(created_at=timezone.now() - timedelta(days=15))
    LogEntry.objects.create(user=first, action_flag=1, object_repr="x")
    monkeypatch.setattr(LogEntry._meta.get_field("user").remote_field, "on_delete", PROTECT)
    purge()
    assert set(type(ann).objects.all()) == {ann, first}
    assert second.pk


def test_many_are_purged_in_small_batches(ann: Any, settings: Any) -> None:
    settings.RETENTION_DAYS = 1
    for number in range(45):
        age(talk(ann, (f"{number}", "x")), 2)
    assert purge() == 45
    assert left() == set()


def test_a_person_gets_all_that_is_kept(ann: Any, tmp_path: Path) -> None:
    session, deleted = talk(ann, ("mine", "all mine")), talk(ann, ("deleted", "still kept"))
    age(deleted, 1, deleted_at=True)
    Feedback.objects.create(message=last_message(session), user=ann, value="up", comment="thanks")
    _, key = create_key(user=ann, name="backup", scopes=["read"])
    talk(make_user("ben"), ("not ann's", "secret"))
    path = tmp_path / "ann.zip"
    call_command("export_user", "ann", str(path))
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name).decode() for name in archive.namelist()}
    assert set(files) == {"account.json", "conversations.json", "conversations.html"}
    account = json.loads(files["account.json"])
    assert account["account"]["username"] == "ann"
    assert "password" not in account["account"]
    assert account["feedback"][0]["comment"] == "thanks"
    assert account["api_keys"][0]["name"] == "backup"
    assert key not in files["account.json"]
    told = json.dumps(json.loads(files["conversations.json"]))
    assert "all mine" in told
    assert "still kept" in told
    assert "secret" not in told
    for name, file in (("ann", str(path)), ("nobody", str(tmp_path / "x.zip"))):
        with pytest.raises(CommandError):
            call_command("export_user", name, file)


class TestInTheAdmin:
    """Staff erase a person without a command."""

    @pytest.fixture
    def desk(self, ann: Any) -> Client:
        staff = make_user("staff", is_staff=True)
        names = ("delete_user", "view_user", "change_user")
        staff.user_permissions.add(*Permission.objects.filter(codename__in=names))
        client = Client()
        client.force_login(staff)
        return client

    def test_deleting_a_person_erases_all(self, desk: Client, ann: Any) -> None:
        talk(ann, (f"A {CANARY}?", "Extinct."))
        address = f"/admin/auth/user/{ann.pk}/delete/"
        shown = desk.get(address).content.decode()
        assert "Are you sure" in shown
        assert CANARY not in shown
        assert desk.post(address, {"post": "yes"}).status_code == 302
        assert relations_to(ann.pk) == []
        assert tables_with(CANARY) == set()
        entry = AuditEntry.objects.get(action="erased")
        assert (entry.actor and entry.actor.get_username(), entry.detail) == (
            "staff",
            {"sessions": 1},
        )

    def test_it_needs_the_permission(self, ann: Any, client: Client) -> None:
        client.force_login(make_user("other", is_staff=True))
        address = f"/admin/auth/user/{ann.pk}/delete/"
        assert client.post(address, {"post": "yes"}).status_code == 403
        assert not AuditEntry.objects.exists()

    def test_several_are_not_deleted_at_once(self, desk: Client, ann: Any) -> None:
        form = {"action": "delete_selected", "_selected_action": [ann.pk], "post": "yes"}
        desk.post("/admin/auth/user/", form)
        assert type(ann).objects.filter(pk=ann.pk).exists()

    def test_somebody_who_is_not_there(self, desk: Client) -> None:
        assert desk.post("/admin/auth/user/0/delete/", {"post": "yes"}).status_code == 404


def test_an_export_by_command_is_in_the_log_of_each_session(ann: Any, tmp_path: Path) -> None:
    session = talk(ann, ("one", "1"))
    call_command("export_user", "ann", str(tmp_path / "ann.zip"))
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.session_id, entry.actor) == ("exported", session.pk, None)
