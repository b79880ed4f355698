"""What a file of conversations must be before a row is made of it.

The file's SHA-256 says only that it is whole: whoever writes a file can compute it.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from django.utils import timezone
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from conversations.errors import ErrorCode
from conversations.models import EndReason, RunStatus, TitleSource, UsageSource, Verdict
from conversations.part_shapes import PartShape
from conversations.text import clean_text

OLDEST_YEAR = 1970
AHEAD = timedelta(days=1)
"""How far another machine's clock may be ahead of this one's."""

INTEGER_MAX = 2**31 - 1
SMALL_MAX = 2**15 - 1
REV_MAX = 2**53
COST_MAX = Decimal(10**8)


class ImportRefusedError(Exception):
    """The file is no export, is damaged, or is there already; the text says which."""


def _check_moment(text: str) -> str:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None or moment.year < OLDEST_YEAR:
        raise ValueError("is not a moment of this age")
    if moment > timezone.now() + AHEAD:
        raise ValueError("is in the future")
    return text


Moment = Annotated[str, AfterValidator(_check_moment)]
Count = Annotated[int, Field(strict=True, ge=0, le=INTEGER_MAX)]
Number = Annotated[int, Field(strict=True, ge=1, le=INTEGER_MAX)]
Flag = Annotated[bool, Field(strict=True)]


class ImportedUsage(BaseModel):
    """Tokens of a reply."""

    input_tokens: Count | None
    output_tokens: Count | None
    cached_input_tokens: Count | None
    reasoning_tokens: Count | None
    source: UsageSource


class ImportedTimings(BaseModel):
    """When what happened to a reply."""

    created_at: Moment
    queued_at: Moment
    claimed_at: Moment | None
    first_token_at: Moment | None
    last_token_at: Moment | None
    cancel_requested_at: Moment | None
    stopped_at: Moment | None
    ended_at: Moment | None


class ImportedFeedback(BaseModel):
    """A verdict on a message."""

    value: Verdict
    comment: str


class ImportedMessage(BaseModel):
    """What is common to messages of people and replies."""

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
    """A message of a person."""

    role: Literal["user"]


class ImportedReply(ImportedMessage):
    """A message of an agent, with its run; it always has a prompt."""

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
    """What a session is beside its messages."""

    id: UUID
    title: str = Field(max_length=200)
    agent: str = Field(max_length=100)
    rev: int = Field(strict=True, ge=0, le=REV_MAX)
    created_at: Moment
    active_at: Moment
    # Files of the version before lack these.
    title_source: TitleSource | None = None
    archived_at: Moment | None = None
    deleted_at: Moment | None = None


class ImportedSession(BaseModel):
    """A conversation of a file."""

    session: ImportedHeader
    messages: list[Annotated[ImportedQuestion | ImportedReply, Field(discriminator="role")]]
    sha256: str


def check_session(record: Any) -> ImportedSession:
    """The session of a file; raises `ImportRefusedError` where it is not as an export has it.

    It names nothing outside itself: a parent is a message of the same session, and no chain of
    parents is a circle. The errors quote nothing of the file but ids.
    """
    try:
        session = ImportedSession.model_validate(record)
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise ImportRefusedError(f"{place}: {first['msg']}") from exc
    for fault in _faults(session, record):
        raise ImportRefusedError(f"session {session.session.id}: {fault}")
    return session


def _faults(session: ImportedSession, record: Any) -> Iterator[str]:
    if any(clean_text(text) != text for text in _texts(record)):
        yield "a text in it holds what is no character"
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
        yield "an id or a number in it is there twice"
    if any(parent is not None and parent not in parents for parent in parents.values()):
        yield "a message follows one that is not in it"
    elif not _ends(parents):
        yield "its messages follow each other in a circle"
    elif {m.message_id for m in messages if m.on_active_branch} != _path(session, parents):
        yield "its active branch is none"


def find_leaf(session: ImportedSession) -> UUID | None:
    """The last message of the active branch: the one that no other of that branch follows."""
    active = [message for message in session.messages if message.on_active_branch]
    followed = {message.parent_message_id for message in active}
    return next((m.message_id for m in active if m.message_id not in followed), None)


def _path(session: ImportedSession, parents: dict[UUID, UUID | None]) -> set[UUID]:
    place, path = find_leaf(session), set()
    while place is not None:
        path.add(place)
        place = parents[place]
    return path


def _ends(parents: dict[UUID, UUID | None]) -> bool:
    """Whether every chain of parents comes to a first message; each is gone through once."""
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
