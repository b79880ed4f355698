"""Imports conversations from a JSON export: validates the file and creates the rows.

The SHA-256 in a file detects damage only; it does not prove who wrote the file.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import DatabaseError, IntegrityError, transaction
from django.utils import timezone
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from conversations.errors import ErrorCode
from conversations.exports.source import TIMING_FIELDS, USAGE_FIELDS, Conversation, Record
from conversations.exports.writers import MANY, ONE, VERSION, Digest
from conversations.models import (
    ACTIVE,
    AuditAction,
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
    UsageSource,
    Verdict,
)
from conversations.people import accounts
from conversations.runs.inputs import items_of_parts
from conversations.runs.usage import add_to_session
from conversations.sessions.parts import PartShape
from conversations.text import SHOWN_CHARS, clean_text, shorten

OLDEST_YEAR = 1970
AHEAD = timedelta(days=1)
"""The tolerated lead of the exporting machine's clock."""

INTEGER_MAX = 2**31 - 1
SMALL_MAX = 2**15 - 1
REV_MAX = 2**53
COST_MAX = Decimal(10**8)


class ImportRefusedError(Exception):
    """The file cannot be imported; the message says why, and may be shown to people."""


def _check_moment(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise ValueError("must be a time in ISO 8601") from exc
    if moment.tzinfo is None or moment.year < OLDEST_YEAR:
        raise ValueError(f"must have a time zone and be no earlier than {OLDEST_YEAR}")
    if moment > timezone.now() + AHEAD:
        raise ValueError("must not be in the future")
    return text


Moment = Annotated[str, AfterValidator(_check_moment)]
Count = Annotated[int, Field(strict=True, ge=0, le=INTEGER_MAX)]
Number = Annotated[int, Field(strict=True, ge=1, le=INTEGER_MAX)]
Flag = Annotated[bool, Field(strict=True)]


class ImportedUsage(BaseModel):
    """The token usage of a reply; None: the count is not known."""

    input_tokens: Count | None
    output_tokens: Count | None
    cached_input_tokens: Count | None
    reasoning_tokens: Count | None
    source: UsageSource


class ImportedTimings(BaseModel):
    """The timestamps of a reply's run; None: that has not happened."""

    created_at: Moment
    queued_at: Moment
    claimed_at: Moment | None
    first_token_at: Moment | None
    last_token_at: Moment | None
    cancel_requested_at: Moment | None
    stopped_at: Moment | None
    ended_at: Moment | None


class ImportedFeedback(BaseModel):
    """A person's rating of a reply."""

    value: Verdict
    comment: str


class ImportedMessage(BaseModel):
    """The fields that messages of people and replies share.

    `summary` is what the model is given in place of the messages down to this one; None without a
    summary, and in older exports.
    """

    message_id: UUID
    number: Number
    parts: list[Annotated[PartShape, Field(discriminator="type")]]
    created_at: Moment
    parent_message_id: UUID | None
    client_message_id: Annotated[str, Field(max_length=100)] | None
    withdrawn: Flag
    on_active_branch: Flag
    feedback: list[ImportedFeedback]
    summary: str | None = None


class ImportedQuestion(ImportedMessage):
    """A message that a person wrote."""

    role: Literal["user"]


class ImportedReply(ImportedMessage):
    """A reply of an agent, with its run. Its parent is the message that it answers."""

    role: Literal["assistant"]
    parent_message_id: UUID
    run_id: UUID
    run_number: Number
    run_status: RunStatus
    agent: Annotated[str, Field(max_length=100)] | None
    reason: EndReason | Literal[""] | None
    error_code: ErrorCode | Literal[""] | None
    model: str = Field(max_length=200)
    usage: ImportedUsage
    cost: Annotated[Decimal, Field(ge=0, lt=COST_MAX, decimal_places=6)] | None
    retries: int = Field(strict=True, ge=0, le=SMALL_MAX)
    timings: ImportedTimings


class ImportedHeader(BaseModel):
    """A session without its messages."""

    id: UUID
    title: str = Field(max_length=200)
    agent: str = Field(max_length=100)
    rev: int = Field(strict=True, ge=0, le=REV_MAX)
    created_at: Moment
    active_at: Moment
    # Older exports do not have these fields.
    title_source: TitleSource | None = None
    archived_at: Moment | None = None
    deleted_at: Moment | None = None


class ImportedSession(BaseModel):
    """One conversation in the file."""

    session: ImportedHeader
    messages: list[Annotated[ImportedQuestion | ImportedReply, Field(discriminator="role")]]
    sha256: str


def check_session(record: Any) -> ImportedSession:
    """Validate one session of a parsed file, except its SHA-256, and return it.

    Ids and numbers must be unique within the session, every parent must be a message of the same
    session, no chain of parents may be circular, the active branch must be one branch to its end,
    and texts must be storable. Nothing is compared with the database. Raises `ImportRefusedError`,
    whose message never quotes values of the file other than ids.
    """
    try:
        session = ImportedSession.model_validate(record)
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        text = first["msg"]
        if first["type"] == "union_tag_invalid":  # whose message quotes the file
            text = "{discriminator} must be one of {expected_tags}".format_map(first["ctx"])
        raise ImportRefusedError(f"{place}: {text}") from exc
    for fault in _faults(session, record):
        raise ImportRefusedError(f"session {session.session.id}: {fault}")
    return session


def _faults(session: ImportedSession, record: Any) -> Iterator[str]:
    if any(clean_text(text) != text for text in _texts(record)):
        yield "a text contains invalid characters"
    messages = session.messages
    parents = {message.message_id: message.parent_message_id for message in messages}
    replies = [message for message in messages if isinstance(message, ImportedReply)]
    unique = (
        [message.message_id for message in messages],
        [message.number for message in messages],
        [reply.run_id for reply in replies],
        [reply.run_number for reply in replies],
    )
    if any(len(values) != len(set(values)) for values in unique):
        yield "an id or a number is not unique"
    if any(parent is not None and parent not in parents for parent in parents.values()):
        yield "the parent of a message is missing"
    elif not _is_acyclic(parents):
        yield "the parents of its messages form a cycle"
    elif {m.message_id for m in messages if m.on_active_branch} != _path(session, parents):
        yield "its active messages are not one branch"


def find_leaf(session: ImportedSession) -> UUID | None:
    """Return the id of the last message of the active branch, or None if no message is active.

    If the active messages are not one branch, which `check_session` refuses, any of their ends.
    """
    active = [message for message in session.messages if message.on_active_branch]
    followed = {message.parent_message_id for message in active}
    return next((m.message_id for m in active if m.message_id not in followed), None)


def _path(session: ImportedSession, parents: dict[UUID, UUID | None]) -> set[UUID]:
    place, path = find_leaf(session), set()
    while place is not None:
        path.add(place)
        place = parents[place]
    return path


def _is_acyclic(parents: dict[UUID, UUID | None]) -> bool:
    """Return whether every chain of parents ends at a message without a parent.

    Visits each message once, so the time is linear in their number.
    """
    known: set[UUID] = set()
    for place in parents:
        here: UUID | None = place
        chain: set[UUID] = set()
        while here is not None and here not in known:
            if here in chain:
                return False
            chain.add(here)
            here = parents[here]
        known |= chain
    return True


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(entry)
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield key
            yield from _texts(entry)


T = TypeVar("T")

BATCH = 500
"""The most rows that one transaction writes."""


def list_exported(data: Any) -> list[Record]:
    """Return the conversations of a parsed JSON export of one or many, which are not checked.

    Raises `ImportRefusedError` if `data` is no export of the version `VERSION`.
    """
    kind = data.get("format") if isinstance(data, dict) else None
    if kind not in (ONE, MANY) or data.get("version") != VERSION:
        raise ImportRefusedError(f"the file is not an export of version {VERSION}")
    found = [data] if kind == ONE else data.get("sessions")
    if not isinstance(found, list):
        raise ImportRefusedError(f"the file is not an export of version {VERSION}")
    return found


def import_all(owner: AbstractBaseUser, data: Any) -> int:
    """Create all sessions of a parsed JSON export for `owner`, or none; return their number.

    Keeps the ids of sessions, messages and runs, and their times. A run that was active when it was
    exported becomes interrupted; of several ratings of a reply the first is kept, as the owner's.
    Writes at most `BATCH` rows per transaction, because SQLite blocks other writers during one.
    Until everything is written, the new sessions are marked as deleted; they are removed if the
    import fails. A session that was deleted when it was exported stays deleted. Each session gets
    an entry in the audit log. Raises `ImportRefusedError`, also for an id that exists already.
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
        for step in _steps(session.pk for session in made):
            _show(owner, step, deleted)
    except BaseException as exc:
        for session in made:
            session.delete()
        # The database's own message quotes values of rows, so it is not passed on.
        if isinstance(exc, IntegrityError):
            raise ImportRefusedError("an id belongs to another conversation") from exc
        if isinstance(exc, DatabaseError):
            raise ImportRefusedError("the database rejected it") from exc
        raise
    return len(made)


@transaction.atomic
def _show(owner: AbstractBaseUser, ids: list[UUID], deleted: set[UUID]) -> None:
    """Make imported sessions visible, with their entries in the audit log."""
    accounts.record_each(None, AuditAction.IMPORTED, ids, owner=owner.pk)
    ChatSession.objects.filter(pk__in=ids).exclude(pk__in=deleted).update(deleted_at=None)


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
    """Check a session and its SHA-256; return the last message of its active branch.

    Raises `ImportRefusedError`.
    """
    session = check_session(record)
    digest = Digest(Conversation(record["session"], iter(record["messages"])))
    for _ in digest.messages():
        pass
    if digest.value != record["sha256"]:
        raise ImportRefusedError(f"session {session.session.id} does not match its SHA-256")
    return find_leaf(session)


def _add_session(owner: AbstractBaseUser, header: Record) -> ChatSession:
    if ChatSession.objects.filter(pk=header["id"]).exists():
        raise ImportRefusedError(f"session {header['id']} exists already")
    session = ChatSession(
        id=UUID(header["id"]), title=header["title"], agent=header["agent"], rev=header["rev"]
    )
    # Without this field, treat a title as one that the user chose, so that no later reply replaces
    # it.
    by = TitleSource.USER if header["title"] else TitleSource.WORDS
    session.title_source = header.get("title_source") or by
    session.deleted_at = _time(header.get("deleted_at")) or timezone.now()
    session.owner_id = owner.pk
    session.save(force_insert=True)
    return session


def _add_messages(session: ChatSession, messages: list[Record]) -> None:
    """Create the messages.

    On a moved branch a parent can have a higher number than its reply, so parents are set only
    after all rows exist.
    """
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
    """Shorten the arguments and output of a tool part; the items keep the full text."""
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
    """Build the run of a reply. A run that was active when exported is imported as interrupted."""
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
    """Rebuild the model's items from the parts, because exports do not contain the items."""
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
