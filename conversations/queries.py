"""Basic reads of sessions, messages and runs; reads of a user's data take the user first."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar
from uuid import UUID

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce

from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import ACTIVE, HOLDING, ChatSession, Message, Run, RunEvent, RunStatus
from conversations.runs.usage import UsageTotals, read_session_totals, read_user_totals
from conversations.sessions.parts import PartsFolder, fold
from conversations.shapes import QueueView, RunTimings, UserId, queue_view, run_timings

User = AbstractBaseUser | AnonymousUser
EventRow = tuple[int, str, dict[str, Any]]
T = TypeVar("T")


IDS_A_QUERY = 500
"""Ids in one statement: older builds of SQLite take at most 999 parameters, newer ones 32,766."""


def in_chunks(ids: Iterable[T]) -> Iterator[list[T]]:
    """Yield `ids` in lists of at most `IDS_A_QUERY`, for statements with one parameter an id."""
    given = list(ids)
    for start in range(0, len(given), IDS_A_QUERY):
        yield given[start : start + IDS_A_QUERY]


def parse_id(value: str | UUID) -> UUID:
    """Parse an id; raises `AgentSiteError(not_found)`, as for an id that does not exist."""
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except ValueError as exc:
        raise AgentSiteError(ErrorCode.NOT_FOUND) from exc


def get_user(user_id: UserId) -> AbstractBaseUser:
    """Return the active user with this id; raises `AgentSiteError(not_authenticated)`."""
    users = get_user_model()._default_manager
    user = users.filter(pk=user_id, is_active=True).first()  # type: ignore[misc]
    if user is None:
        raise AgentSiteError(ErrorCode.NOT_AUTHENTICATED)
    return user


def sessions_of(user: User) -> QuerySet[ChatSession]:
    """Return the sessions that `user` may read: their own, without deleted ones."""
    return ChatSession.objects.filter(owner_id=user.pk, deleted_at=None)


def get_session(user: User, session_id: str | UUID) -> ChatSession:
    """Return a session of `user`.

    Every read of a session for a client goes through here or `sessions_of`. Raises
    `AgentSiteError(not_found)`, for another user's session too.
    """
    session = sessions_of(user).filter(id=parse_id(session_id)).first()
    if session is None:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    return session


def list_sessions(user: User, limit: int = 100) -> QuerySet[ChatSession]:
    """Return sessions, newest activity first, each with `run_status` (one of `ACTIVE` or None)."""
    return with_run_status(sessions_of(user).filter(archived_at=None)).order_by(
        "-active_at", "-id"
    )[:limit]


def with_run_status(sessions: QuerySet[ChatSession]) -> QuerySet[ChatSession]:
    """Annotate sessions with `run_status`, that of their first active run; None without one."""
    runs = Run.objects.filter(session=OuterRef("pk"))
    holding = Subquery(runs.filter(status__in=HOLDING).values("status")[:1])
    queued = Subquery(runs.filter(status=RunStatus.QUEUED).values("status")[:1])
    return sessions.annotate(run_status=Coalesce(holding, queued))


def reply_run(message: Message) -> Run | None:
    """Return the run that wrote `message`; load it with `select_related("run", "summary")`."""
    run: Run | None = getattr(message, "run", None)
    return run


def list_path(leaf: UUID, limit: int) -> list[UUID]:
    """Return ids of the last `limit` messages of the branch that ends at `leaf`, oldest first."""
    sql = """
        WITH RECURSIVE path (id, parent_id, depth) AS (
            SELECT id, parent_id, 1 FROM conversations_message WHERE id = %s
            UNION ALL
            SELECT m.id, m.parent_id, path.depth + 1
            FROM conversations_message m JOIN path ON m.id = path.parent_id
            WHERE path.depth < %s
        )
        SELECT id FROM path ORDER BY depth DESC
    """
    field = Message._meta.pk
    with connection.cursor() as cursor:
        cursor.execute(sql, [field.get_db_prep_value(leaf, connection), limit])
        return [field.to_python(row[0]) for row in cursor.fetchall()]


def load_messages(ids: list[UUID]) -> list[Message]:
    """Return the messages with `ids`, in that order, with their runs loaded."""
    found = Message.objects.select_related("run", "summary").in_bulk(ids)
    return [found[pk] for pk in ids]


def list_unfinished(session_id: UUID, *, lock: bool = False) -> list[Run]:
    """Return the runs that have not ended, in order, with prompts and replies loaded.

    `lock` locks their rows, and needs an open transaction.
    """
    # Sorted in Python: ORDER BY in this query makes SQLite read every run of the session.
    runs = Run.objects.filter(session_id=session_id, status__in=ACTIVE)
    if lock:
        runs = runs.select_for_update(of=("self",))
    return sorted(runs.select_related("prompt", "reply"), key=lambda run: run.number)


def get_active_run(session_id: UUID) -> Run | None:
    """Return the run that is running or awaits input, else the first queued one."""
    return next(iter(list_unfinished(session_id)), None)


def list_queue(session_id: UUID) -> list[QueueView]:
    """Return the runs that wait behind the active one, in order."""
    return [queue_view(run) for run in list_unfinished(session_id)[1:]]


def read_events(run: Run, *, after: int = 0, limit: int | None = None) -> list[EventRow]:
    """Return (seq, kind, payload) of the events after seq `after`, up to the `last_seq` of `run`.

    Only those of the epoch of `run`, which may be older than its row.
    """
    rows = RunEvent.objects.filter(
        run_id=run.pk, epoch=run.epoch, seq__gt=after, seq__lte=run.last_seq
    )
    return list(rows.order_by("seq").values_list("seq", "kind", "payload")[:limit])


def read_parts(run: Run) -> PartsFolder:
    """Build the parts shown of a run in progress from all of its events.

    For writers, which may see uncommitted events; readers use `conversations.runs.catch_up`.
    """
    return fold((kind, payload) for _, kind, payload in read_events(run))


def get_run(run_id: UUID) -> Run:
    """Return the run with its reply; raises `Run.DoesNotExist`.

    Does not check the owner: the caller must have authorised access to the run.
    """
    return Run.objects.select_related("reply").get(pk=run_id)


def session_usage(session: ChatSession) -> UsageTotals:
    """Return a session's usage, with replies on all branches, titles and summaries."""
    return read_session_totals(session.pk)


def user_usage(user: User) -> UsageTotals:
    """Return the usage of all of a user's sessions, deleted ones too."""
    return read_user_totals(user.pk)


def get_run_timings(run: Run) -> RunTimings:
    """Return the timings of a run, whose reply must be loaded."""
    return run_timings(run, run.reply.parts)


def runs_of(session: ChatSession) -> QuerySet[Run]:
    """Return all runs of a session."""
    return Run.objects.filter(session=session)


def get_run_of(session: ChatSession, run_id: str) -> Run:
    """Return one run of a session; raises `AgentSiteError(not_found)`."""
    run = runs_of(session).filter(pk=parse_id(run_id)).first()
    if run is None:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    return run


def list_events(run: Run, *, after: int, limit: int) -> list[RunEvent]:
    """Return the event rows after seq `after`, of the epoch and up to the `last_seq` of `run`."""
    rows = RunEvent.objects.filter(
        run_id=run.pk, epoch=run.epoch, seq__gt=after, seq__lte=run.last_seq
    )
    return list(rows.order_by("seq")[:limit])
