"""Conversations as downloads, in every format, and back again."""

import csv
import io
import json
import tracemalloc
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, OperationalError
from django.test import AsyncClient

from conversations.exports import imports, source
from conversations.exports.formats import FORMATS, MEMORY_BYTES, PIECE_BYTES, Download, encode
from conversations.exports.source import read_conversations
from conversations.exports.writers import safe_cell
from conversations.models import ChatSession, Message, RunStatus, UsageSource
from conversations.queries import list_sessions, session_usage
from conversations.runs.usage import TokenUsage
from conversations.sessions.lists import save_summary
from conversations.sessions.posting import cancel_run, give_feedback
from realtime import dbpool
from realtime.api import downloads
from tests.support.chats import ask, begin, finish, make_user, session_of, talk
from tests.support.downloads import Answered, download
from tests.support.processes import count_nameless_files
from tests.support.threads import in_thread
from tests.support.usage import added_up

pytestmark = pytest.mark.django_db(transaction=True)

TOOL = {
    "type": "tool",
    "tool_call_id": "call_1",
    "name": "get_time",
    "arguments": '{"zone": "UTC"}',
    "status": "finished",
    "output": "12:00",
}
HOSTILE = '<script>alert(1)</script> ![x](https://example.org/x.png) "quoted" =1+1 \x1b[31m'


@pytest.fixture
async def ann(transactional_db: None) -> AsyncIterator[Any]:
    yield await in_thread(make_user, "ann")
    await in_thread(dbpool.shutdown)


@pytest.fixture
async def api(ann: Any) -> AsyncClient:
    client = AsyncClient()
    await client.aforce_login(ann)
    return client


def make_everything(ann: Any) -> ChatSession:
    """Branches, tools, a cancelled reply with its text, a failed one, feedback, usage."""
    posted = ask(ann, "What time is it?")
    usage = TokenUsage(input_tokens=7, output_tokens=3, source=UsageSource.MEASURED)
    finish(posted, "", parts=[TOOL, {"type": "text", "text": "**Noon.**"}], usage=usage)
    session = session_of(posted)
    give_feedback(
        user=ann, session_id=str(session.pk), message_id=str(posted.run.message_id), value="up"
    )
    again = ask(ann, "", session, regenerate=str(posted.run.message_id))
    finish(again, "Midday.", parts=[TOOL, {"type": "text", "text": "Midday."}])
    half = ask(ann, HOSTILE, session_of(posted))
    finish(half, "Half a", status=RunStatus.CANCELLED)
    failed = ask(ann, "again?", session_of(posted))
    finish(failed, "", status=RunStatus.FAILED, error_code="provider_cut")
    return session_of(posted)


async def get(api: AsyncClient, session: ChatSession, name: str) -> Answered:
    address = f"/api/sessions/{session.pk}/transcript/?export_format={name}"
    return await download(api, address)


async def test_a_transcript_is_a_download_of_everything(api: AsyncClient, ann: Any) -> None:
    session = await in_thread(talk, ann, ("one", "1"), ("two", "2"))
    answer = await download(api, f"/api/sessions/{session.pk}/transcript/")
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.headers["Content-Disposition"] == (
        f'attachment; filename="conversation-{session.pk}.json"'
    )
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    body = json.loads(answer.body)
    assert (body["format"], body["version"]) == ("agentsite.transcript", 1)
    assert body["session"]["title"] == "one"
    assert [(m["number"], m["text"]) for m in body["messages"]] == [
        (1, "one"),
        (2, "1"),
        (3, "two"),
        (4, "2"),
    ]


async def test_a_transcript_tells_everything(api: AsyncClient, ann: Any) -> None:
    session = await in_thread(make_everything, ann)
    messages = json.loads((await get(api, session, "json")).body)["messages"]
    seen = [(m["text"], m["on_active_branch"], m["run_status"]) for m in messages]
    assert seen == [
        ("What time is it?", True, None),
        ("**Noon.**", False, "completed"),
        ("Midday.", True, "completed"),
        (HOSTILE, True, None),
        ("Half a", True, "cancelled"),
        ("again?", True, None),
        ("", True, "failed"),
    ]
    first = messages[1]
    assert first["parts"][0] == TOOL
    assert first["feedback"] == [{"value": "up", "comment": ""}]
    assert first["usage"]["input_tokens"] == 7
    assert first["timings"]["claimed_at"] <= first["timings"]["ended_at"]
    assert messages[6]["error_code"] == "provider_cut"


async def test_a_reply_at_work_holds_what_was_shown(api: AsyncClient, ann: Any) -> None:
    posted = await in_thread(ask, ann, "one")
    await in_thread(begin, posted, "so ", "far")
    session = await in_thread(session_of, posted)
    messages = json.loads((await get(api, session, "json")).body)["messages"]
    assert (messages[1]["text"], messages[1]["run_status"]) == ("so far", "running")


async def test_a_reply_that_never_began(api: AsyncClient, ann: Any) -> None:
    posted = await in_thread(ask, ann, "one")
    await in_thread(cancel_run, user=ann, session_id=str(posted.session_id))
    session = await in_thread(session_of, posted)
    reply = json.loads((await get(api, session, "json")).body)["messages"][1]
    assert (reply["run_status"], reply["reason"]) == ("cancelled", "user")


@pytest.mark.parametrize("name", FORMATS)
async def test_every_format_is_an_attachment(api: AsyncClient, ann: Any, name: str) -> None:
    session = await in_thread(make_everything, ann)
    answer = await get(api, session, name)
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"].startswith("attachment; ")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Type"].startswith(FORMATS[name].media_type)
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert answer.headers["Repr-Digest"] == digest(answer.body)
    assert "Midday." in answer.text


def digest(body: bytes) -> str:
    return f"sha-256=:{b64encode(sha256(body).digest()).decode()}:"


async def test_the_format_is_also_taken_from_accept(api: AsyncClient, ann: Any) -> None:
    session = await in_thread(talk, ann, ("one", "1"))
    address = f"/api/sessions/{session.pk}/transcript/"
    answer = await download(api, address, headers={"Accept": "text/csv"})
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    refused = await download(api, address, headers={"Accept": "image/png"})
    assert refused.status_code == 406
    refused = await download(api, f"{address}?export_format=docx")
    assert refused.status_code == 400
    assert json.loads(refused.body)["error"]["code"] == "bad_frame"


async def test_what_is_large_waits_in_a_file(ann: Any) -> None:
    waiting = Download(FORMATS["jsonl"], "large")
    pieces = iter([b"x" * PIECE_BYTES] * (2 * MEMORY_BYTES // PIECE_BYTES) + [b"end"])
    files = count_nameless_files()
    while waiting.take(pieces):
        pass
    assert count_nameless_files() == files + 1
    response = waiting.response()
    body = b"".join([piece async for piece in response])
    assert len(body) == 2 * MEMORY_BYTES + 3
    assert response["Repr-Digest"] == digest(body)
    assert waiting.sha256 == sha256(body).hexdigest()
    response.close()
    assert count_nameless_files() == files


@pytest.mark.parametrize("written", [0, 3])
async def test_an_export_that_fails_is_an_error(
    api: AsyncClient, ann: Any, monkeypatch: Any, written: int
) -> None:
    session = await in_thread(talk, ann, ("one", "1"))

    def break_off(texts: Any) -> Iterator[bytes]:
        yield from [b"x"] * written
        raise OperationalError("the disk is gone")

    monkeypatch.setattr(downloads, "encode", break_off)
    answer = await get(api, session, "json")
    assert (answer.status_code, json.loads(answer.body)["error"]["code"]) == (503, "unavailable")


async def test_json_lines(api: AsyncClient, ann: Any) -> None:
    session = await in_thread(make_everything, ann)
    lines = [json.loads(line) for line in (await get(api, session, "jsonl")).text.splitlines()]
    assert len(lines) == 7
    assert {line["session"]["id"] for line in lines} == {str(session.pk)}
    assert all(len(line["sha256"]) == 64 for line in lines)


async def test_training_examples_hold_whole_replies_alone(api: AsyncClient, ann: Any) -> None:
    session = await in_thread(make_everything, ann)
    [line] = (await get(api, session, "openai")).text.splitlines()
    assert json.loads(line)["messages"] == [
        {"role": "user", "content": "What time is it?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "get_time", "arguments": '{"zone": "UTC"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "12:00"},
        {"role": "assistant", "content": "Midday."},
    ]


async def test_html_runs_and_fetches_nothing(api: AsyncClient, ann: Any) -> None:
    session = await in_thread(make_everything, ann)
    text = (await get(api, session, "html")).text
    assert "<strong>Noon.</strong>" in text
    assert "&lt;script&gt;" in text
    for word in ("<script", "<img", "<link", "src=", "@import", "url("):
        assert word not in text


async def test_plain_text_moves_no_cursor(api: AsyncClient, ann: Any) -> None:
    session = await in_thread(make_everything, ann)
    text = (await get(api, session, "text")).text
    assert "␛[31m" in text
    assert "\x1b" not in text
    assert "cancelled" in text
    assert "failed: provider_cut" in text


async def test_csv_holds_no_formula(api: AsyncClient, ann: Any) -> None:
    session = await in_thread(talk, ann, ("=cmd|' /C calc'!A0", "+1"), ("@x", "\tx"))
    rows = list(csv.DictReader(io.StringIO((await get(api, session, "csv")).text)))
    assert [row["text"] for row in rows] == ["'=cmd|' /C calc'!A0", "'+1", "'@x", "'\tx"]
    assert rows[0]["title"].startswith("'=")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\x00", " ="])
def test_a_cell_is_text(start: str) -> None:
    assert safe_cell(f"{start}1").startswith("'")


async def test_everything_that_matches(api: AsyncClient, ann: Any) -> None:
    await in_thread(talk, ann, ("apples", "1"))
    await in_thread(talk, ann, ("pears", "2"), ("more pears", "3"))
    await in_thread(talk, await in_thread(make_user, "ben"), ("foreign pears", "4"))
    body = json.loads((await download(api, "/api/export/")).body)
    assert [s["session"]["title"] for s in body["sessions"]] == ["apples", "pears"]
    body = json.loads((await download(api, "/api/export/?search=pears")).body)
    assert [len(s["messages"]) for s in body["sessions"]] == [4]
    never = quote("9999-12-31T23:59:59-14:00")
    for query in ("state=x", f"active_after={never}"):
        assert (await download(api, f"/api/export/?{query}")).status_code == 400
    nothing = await download(api, "/api/export/?search=plums")
    assert json.loads(nothing.body)["sessions"] == []


async def test_foreign_sessions_are_not_there(api: AsyncClient) -> None:
    foreign = await in_thread(talk, await in_thread(make_user, "ben"), ("secret", "1"))
    for name in FORMATS:
        assert (await get(api, foreign, name)).status_code == 404
    for named in (foreign.pk, uuid4(), "nonsense", "a" * 300):
        address = f"/api/sessions/{named}/transcript/"
        assert (await download(api, address)).status_code == 404
        assert (await AsyncClient().get(address)).status_code == 401
        for method in ("post", "put", "patch", "delete"):
            assert (await getattr(api, method)(address)).status_code == 405


async def test_what_is_imported_is_what_was_exported(
    api: AsyncClient, ann: Any, tmp_path: Path
) -> None:
    session = await in_thread(make_everything, ann)
    await in_thread(talk, ann, ("another", "1"))
    await ChatSession.objects.acreate(owner=ann, title="nothing was said")
    path = tmp_path / "export.json"
    before = await download(api, "/api/export/")
    path.write_bytes(before.body)
    with pytest.raises(CommandError, match="exists already"):
        await in_thread(call_command, "import_transcript", str(path), "--user=ann")
    await in_thread(ChatSession.objects.all().delete)
    await in_thread(call_command, "import_transcript", str(path), "--user=ann")
    after = json.loads((await download(api, "/api/export/")).body)
    assert after["sessions"] == json.loads(before.body)["sessions"]
    async for copy in ChatSession.objects.all():
        assert await in_thread(session_usage, copy) == await in_thread(added_up, copy)
    posted = await in_thread(ask, ann, "and now?", session)
    await in_thread(finish, posted, "later")


async def test_a_damaged_export_is_refused(api: AsyncClient, ann: Any, tmp_path: Path) -> None:
    session = await in_thread(talk, ann, ("one", "1"))
    path = tmp_path / "export.json"
    path.write_text((await get(api, session, "json")).text.replace('"1"', '"2"'))
    await in_thread(ChatSession.objects.all().delete)
    with pytest.raises(CommandError, match="does not match its SHA-256"):
        await in_thread(call_command, "import_transcript", str(path), "--user=ann")
    path.write_text("[]")
    with pytest.raises(CommandError, match="not an export"):
        await in_thread(call_command, "import_transcript", str(path), "--user=ann")
    assert not await ChatSession.objects.aexists()


async def test_an_import_in_steps_is_the_same(
    api: AsyncClient, ann: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await in_thread(make_everything, ann)
    path = tmp_path / "export.json"
    before = await download(api, "/api/export/")
    path.write_bytes(before.body)
    await in_thread(ChatSession.objects.all().delete)
    monkeypatch.setattr(imports, "BATCH", 2)
    await in_thread(call_command, "import_transcript", str(path), "--user=ann")
    after = json.loads((await download(api, "/api/export/")).body)
    assert after["sessions"] == json.loads(before.body)["sessions"]


async def test_an_import_that_fails_in_the_middle_leaves_nothing(
    api: AsyncClient, ann: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await in_thread(make_everything, ann)
    path = tmp_path / "export.json"
    path.write_bytes((await download(api, "/api/export/")).body)
    await in_thread(ChatSession.objects.all().delete)
    listed = []

    def fail(session: Any, messages: Any) -> None:
        listed.append(list_sessions(ann).count())
        raise DatabaseError("feedback")

    monkeypatch.setattr(imports, "_add_feedback", fail)
    with pytest.raises(CommandError, match="not imported"):
        await in_thread(call_command, "import_transcript", str(path), "--user=ann")
    # While it was not whole nobody saw it.
    assert listed == [0]
    assert not await ChatSession.objects.aexists()
    monkeypatch.undo()
    await in_thread(call_command, "import_transcript", str(path), "--user=ann")
    assert await in_thread(list_sessions(ann).count) == 1


async def test_an_import_makes_all_conversations_or_none(
    api: AsyncClient, ann: Any, tmp_path: Path
) -> None:
    await in_thread(talk, ann, ("one", "1"))
    second = await in_thread(talk, ann, ("two", "2"))
    path = tmp_path / "export.json"
    path.write_bytes((await download(api, "/api/export/")).body)
    for session in await in_thread(list, ChatSession.objects.all()):
        if session != second:
            await in_thread(session.delete)
    with pytest.raises(CommandError, match="exists already"):
        await in_thread(call_command, "import_transcript", str(path), "--user=ann")
    assert await ChatSession.objects.acount() == 1


async def test_an_import_of_ids_that_are_taken_is_refused(
    api: AsyncClient, ann: Any, tmp_path: Path
) -> None:
    session = await in_thread(talk, ann, ("one", "1"))
    path = tmp_path / "export.json"
    path.write_bytes((await get(api, session, "json")).body)
    other = await in_thread(ChatSession.objects.create, owner=ann)
    await Message.objects.aupdate(session=other)
    await in_thread(session.delete)
    with pytest.raises(CommandError, match="an id belongs to another"):
        await in_thread(call_command, "import_transcript", str(path), "--user=ann")


@pytest.mark.parametrize(("ids", "sessions"), [(1, 1), (2, 3), (3, 2)])
def test_batches_leave_nothing_out(ann: Any, monkeypatch: Any, ids: int, sessions: int) -> None:
    monkeypatch.setattr(source, "IDS_A_BATCH", ids)
    monkeypatch.setattr(source, "SESSIONS_A_BATCH", sessions)
    talks = [talk(ann, (word, "1")) for word in "abcdefg"]
    # Two that began at the same time.
    ChatSession.objects.filter(pk=talks[3].pk).update(created_at=talks[2].created_at)
    found = [conversation.session["id"] for conversation in read_conversations(mine(ann))]
    rows = mine(ann).order_by("created_at", "pk").values_list("pk", flat=True)
    assert found == list(map(str, rows))


def test_one_is_told_alone_as_among_others(ann: Any) -> None:
    summed_up, other = talk(ann, ("one", "1"), ("two", "2")), talk(ann, ("three", "3"))
    message = summed_up.messages.get(number=2)
    save_summary(summed_up.pk, message.pk, "in short", "scripted")

    def told(*sessions: ChatSession) -> list[Any]:
        rows = ChatSession.objects.filter(pk__in=[session.pk for session in sessions])
        return [(found.session, list(found.messages)) for found in read_conversations(rows)]

    assert told(summed_up, other) == told(summed_up) + told(other)


def test_memory_is_flat_however_much_there_is(transactional_db: None) -> None:
    ann = make_user("ann")
    peaks = []
    for count in (150, 450):
        fill(ann, count)
        tracemalloc.start()
        written = sum(map(len, encode(FORMATS["json"].write(read_conversations(mine(ann))))))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert written > 5_000_000
    assert peaks[1] < 1.3 * peaks[0] + 500_000


def mine(ann: Any) -> Any:
    return ChatSession.objects.filter(owner=ann)


def fill(ann: Any, count: int) -> None:
    """So many more sessions of ten long messages."""
    sessions = ChatSession.objects.bulk_create(
        ChatSession(owner=ann, title="long", message_count=10) for _ in range(count)
    )
    parts = [{"type": "text", "text": "word " * 200}]
    Message.objects.bulk_create(
        (
            Message(session=session, number=number, role="user", parts=parts, rev=0)
            for session in sessions
            for number in range(1, 11)
        ),
        batch_size=500,
    )
