"""Conversations out of an export, as they were."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import DatabaseError, IntegrityError
from django.utils import timezone

from conversations import audit
from conversations.exports.as_json import MANY, ONE, VERSION
from conversations.exports.digest import Digest
from conversations.exports.source import TIMING_FIELDS, USAGE_FIELDS, Conversation, Record
from conversations.import_shapes import ImportRefusedError, check_session, find_leaf
from conversations.items import items_of_parts
from conversations.models import (
    ACTIVE,
    ChatSession,
    EndReason,
    Feedback,
    Item,
    Message,
    Role,
    Run,
    RunStatus,
    Summary,
    TitleSource,
)
from conversations.review_models import AuditAction
from conversations.text import SHOWN_CHARS, shorten
from conversations.usage import add_to_session

T = TypeVar("T")

BATCH = 500
"""Rows that one transaction writes at most."""


def list_exported(data: Any) -> list[Record]:
    """The conversations of a parsed JSON export; raises `ImportRefusedError`."""
    kind = data.get("format") if isinstance(data, dict) else None
    if kind not in (ONE, MANY) or data.get("version") != VERSION:
        raise ImportRefusedError("not an export of this version")
    found = [data] if kind == ONE else data.get("sessions")
    if not isinstance(found, list):
        raise ImportRefusedError("not an export of this version")
    return found


def import_all(owner: AbstractBaseUser, data: Any) -> int:
    """Make all sessions of a parsed JSON export, with all ids and times, or none; how many.

    In transactions of at most `BATCH` rows, since on SQLite nobody else writes meanwhile. The
    sessions count as deleted until all of them are whole, and are removed if they do not get so
    far; what was deleted when it was exported stays so. The audit log names each. Raises
    `ImportRefusedError`.
    """
    made: list[ChatSession] = []
    deleted: set[UUID] = set()
    try:
        for record in list_exported(data):
            leaf = _check(record)
            made.append(_add_session(owner, record["session"]))
            _fill(made[-1], record, leaf)
            if record["session"].get("deleted_at"):
                deleted.add(made[-1].pk)
    except BaseException as exc:
        for session in made:
            session.delete()
        # The database's own words quote rows.
        if isinstance(exc, IntegrityError):
            raise ImportRefusedError("an id in it is taken by another conversation") from exc
        if isinstance(exc, DatabaseError):
            raise ImportRefusedError("the database does not take it") from exc
        raise
    for step in _steps(session.pk for session in made):
        audit.record_each(None, AuditAction.IMPORTED, step, owner=owner.pk)
        ChatSession.objects.filter(pk__in=step).exclude(pk__in=deleted).update(deleted_at=None)
    return len(made)


def _fill(session: ChatSession, record: Record, leaf: UUID | None) -> None:
    header, messages = record["session"], record["messages"]
    _add_messages(session, messages)
    _add_runs(session, [message for message in messages if message["role"] == Role.ASSISTANT])
    _add_feedback(session, messages)
    _add_summaries(messages)
    ChatSession.objects.filter(pk=session.pk).update(
        created_at=datetime.fromisoformat(header["created_at"]),
        active_at=datetime.fromisoformat(header["active_at"]),
        active_leaf_id=leaf,
        archived_at=_time(header.get("archived_at")),
        message_count=max((message["number"] for message in messages), default=0),
        run_count=session.runs.count(),
    )


def _steps(rows: Iterable[T]) -> Iterator[list[T]]:
    left = iter(rows)
    while step := list(islice(left, BATCH)):
        yield step


def _check(record: Record) -> UUID | None:
    """The last message of the active branch; raises `ImportRefusedError`."""
    session = check_session(record)
    digest = Digest(Conversation(record["session"], iter(record["messages"])))
    for _ in digest.messages():
        pass
    if digest.value != record["sha256"]:
        raise ImportRefusedError(f"session {session.session.id} is damaged")
    return find_leaf(session)


def _add_session(owner: AbstractBaseUser, header: Record) -> ChatSession:
    if ChatSession.objects.filter(pk=header["id"]).exists():
        raise ImportRefusedError(f"session {header['id']} is there already")
    session = ChatSession(
        id=UUID(header["id"]), title=header["title"], agent=header["agent"], rev=header["rev"]
    )
    # In doubt no later reply gives another title to what its user may have named.
    by = TitleSource.USER if header["title"] else TitleSource.WORDS
    session.title_source = header.get("title_source") or by
    session.deleted_at = _time(header.get("deleted_at")) or timezone.now()
    session.owner_id = owner.pk
    session.save(force_insert=True)
    return session


def _add_messages(session: ChatSession, messages: list[Record]) -> None:
    """Parents come later than their replies when a branch was moved: so they are set at the end."""
    rows = [
        Message(
            id=UUID(message["message_id"]),
            session=session,
            number=message["number"],
            role=message["role"],
            parts=[_shown(part) for part in message["parts"]],
            client_message_id=message["client_message_id"] or "",
            rev=session.rev,
            withdrawn=message["withdrawn"],
        )
        for message in messages
    ]
    for step in _steps(rows):
        Message.objects.bulk_create(step)
    for row, message in zip(rows, messages, strict=True):
        row.created_at = datetime.fromisoformat(message["created_at"])
        row.parent_id = UUID(parent) if (parent := message["parent_message_id"]) else None
    for step in _steps(rows):
        Message.objects.bulk_update(step, ["created_at", "parent_id"])


def _shown(part: Record) -> Record:
    """As readers are shown it; the whole is in the items."""
    if part["type"] != "tool":
        return part
    texts = {name: part.get(name) for name in ("arguments", "output")}
    return part | {name: shorten(text, SHOWN_CHARS) for name, text in texts.items() if text}


def _add_runs(session: ChatSession, replies: list[Record]) -> None:
    rows = [_run(session, reply) for reply in replies]
    for step in _steps(rows):
        Run.objects.bulk_create(step)
    for row, reply in zip(rows, replies, strict=True):
        for name in TIMING_FIELDS:
            setattr(row, name, _time(reply["timings"][name]))
    for step in _steps(rows):
        Run.objects.bulk_update(step, TIMING_FIELDS)
    add_to_session(session.pk, session.runs.filter(ended_at__isnull=False))
    for items in _steps(_items(rows, replies)):
        Item.objects.bulk_create(items)


def _run(session: ChatSession, reply: Record) -> Run:
    """What was at work when it was exported is not begun again here."""
    ended = reply["run_status"] not in ACTIVE
    return Run(
        id=UUID(reply["run_id"]),
        session=session,
        owner_id=session.owner_id,
        number=reply["run_number"],
        status=reply["run_status"] if ended else RunStatus.INTERRUPTED,
        reason=reply["reason"] or "" if ended else EndReason.WORKER_LOST,
        error_code=reply["error_code"] or "",
        agent=reply["agent"] or "",
        model=reply["model"],
        cost=reply["cost"],
        retries=reply["retries"],
        prompt_id=reply["parent_message_id"],
        reply_id=UUID(reply["message_id"]),
        usage_source=reply["usage"]["source"],
        folded=True,
        **{name: reply["usage"][name] for name in USAGE_FIELDS},
    )


def _items(runs: list[Run], replies: list[Record]) -> Iterable[Item]:
    """The model is told what was shown; its own items are not in an export."""
    for run, reply in zip(runs, replies, strict=True):
        for position, payload in enumerate(items_of_parts(reply["parts"])):
            yield Item(run=run, position=position, payload=payload)


def _add_feedback(session: ChatSession, messages: list[Record]) -> None:
    rows = (
        Feedback(message_id=message["message_id"], user_id=session.owner_id, **verdict)
        for message in messages
        for verdict in message["feedback"][:1]
    )
    for step in _steps(rows):
        Feedback.objects.bulk_create(step)


def _add_summaries(messages: list[Record]) -> None:
    rows = (
        Summary(message_id=message["message_id"], text=message["summary"])
        for message in messages
        if message.get("summary") is not None
    )
    for step in _steps(rows):
        Summary.objects.bulk_create(step)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
