"""Reads that everything builds on; those of a person's data take the user first."""

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
"""Older builds of SQLite take no more than 999 parameters a statement, newer ones 32,766."""


def in_chunks(ids: Iterable[T]) -> Iterator[list[T]]:
    """`ids` for statements that name them one by one, however many there are."""
    given = list(ids)
    for start in range(0, len(given), IDS_A_QUERY):
        yield given[start : start + IDS_A_QUERY]


def parse_id(value: str | UUID) -> UUID:
    """The id in `value`; raises `AgentSiteError(not_found)`, as for an id that does not exist."""
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except ValueError as exc:
        raise AgentSiteError(ErrorCode.NOT_FOUND) from exc


def get_user(user_id: UserId) -> AbstractBaseUser:
    """The user of that id, for work on their behalf; raises `AgentSiteError(not_authenticated)`."""
    users = get_user_model()._default_manager
    user = users.filter(pk=user_id, is_active=True).first()  # type: ignore[misc]
    if user is None:
        raise AgentSiteError(ErrorCode.NOT_AUTHENTICATED)
    return user


def sessions_of(user: User) -> QuerySet[ChatSession]:
    """The sessions that `user` may read."""
    return ChatSession.objects.filter(owner_id=user.pk, deleted_at=None)


def get_session(user: User, session_id: str | UUID) -> ChatSession:
    """The one door to a session; raises `AgentSiteError(not_found)`, also for a foreign one."""
    session = sessions_of(user).filter(id=parse_id(session_id)).first()
    if session is None:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    return session


def list_sessions(user: User, limit: int = 100) -> QuerySet[ChatSession]:
    """Newest activity first, each with `run_status` (one of `ACTIVE` or None)."""
    return with_run_status(sessions_of(user).filter(archived_at=None)).order_by(
        "-active_at", "-id"
    )[:limit]


def with_run_status(sessions: QuerySet[ChatSession]) -> QuerySet[ChatSession]:
    """Adds `run_status`, that of the session's first active run."""
    runs = Run.objects.filter(session=OuterRef("pk"))
    holding = Subquery(runs.filter(status__in=HOLDING).values("status")[:1])
    queued = Subquery(runs.filter(status=RunStatus.QUEUED).values("status")[:1])
    return sessions.annotate(run_status=Coalesce(holding, queued))


def reply_run(message: Message) -> Run | None:
    """The run that `message` is the reply of; load with `select_related("run", "summary")`."""
    run: Run | None = getattr(message, "run", None)
    return run


def list_path(leaf: UUID, limit: int) -> list[UUID]:
    """Ids from the oldest of the last `limit` messages down to `leaf`."""
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
    """The messages of `ids`, in that order, with their runs."""
    found = Message.objects.select_related("run", "summary").in_bulk(ids)
    return [found[pk] for pk in ids]


def list_unfinished(session_id: UUID, *, lock: bool = False) -> list[Run]:
    """Runs that have not ended, in order, with prompts and replies; `lock` locks their rows.

    Sorted here: an order in this query's SQL makes SQLite read every run of the session.
    """
    runs = Run.objects.filter(session_id=session_id, status__in=ACTIVE)
    if lock:
        runs = runs.select_for_update(of=("self",))
    return sorted(runs.select_related("prompt", "reply"), key=lambda run: run.number)


def get_active_run(session_id: UUID) -> Run | None:
    """The run at work or awaiting input, else the head of the queue."""
    return next(iter(list_unfinished(session_id)), None)


def list_queue(session_id: UUID) -> list[QueueView]:
    """What waits behind the active run, in order."""
    return [queue_view(run) for run in list_unfinished(session_id)[1:]]


def read_events(run: Run, *, after: int = 0, limit: int | None = None) -> list[EventRow]:
    """(seq, kind, payload) of the run's epoch, `after` excluded, up to its `last_seq`."""
    rows = RunEvent.objects.filter(
        run_id=run.pk, epoch=run.epoch, seq__gt=after, seq__lte=run.last_seq
    )
    return list(rows.order_by("seq").values_list("seq", "kind", "payload")[:limit])


def read_parts(run: Run) -> PartsFolder:
    """What has been shown of a run in progress: all of its events, folded anew.

    For writers, who may see what is not committed yet; readers use `conversations.runs.catch_up`.
    """
    return fold((kind, payload) for _, kind, payload in read_events(run))


def get_run(run_id: UUID) -> Run:
    """The run with its reply, for whoever was authorised to follow it already."""
    return Run.objects.select_related("reply").get(pk=run_id)


def session_usage(session: ChatSession) -> UsageTotals:
    """What a session has taken, replies on other branches, its title and summaries too."""
    return read_session_totals(session.pk)


def user_usage(user: User) -> UsageTotals:
    """What a user's sessions have taken, deleted ones too."""
    return read_user_totals(user.pk)


def get_run_timings(run: Run) -> RunTimings:
    """When what happened to a run; its reply is loaded with it."""
    return run_timings(run, run.reply.parts)


def runs_of(session: ChatSession) -> QuerySet[Run]:
    """All replies of the session."""
    return Run.objects.filter(session=session)


def get_run_of(session: ChatSession, run_id: str) -> Run:
    """One of them; raises `AgentSiteError(not_found)`."""
    run = runs_of(session).filter(pk=parse_id(run_id)).first()
    if run is None:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    return run


def list_events(run: Run, *, after: int, limit: int) -> list[RunEvent]:
    """The events of the run's epoch behind `after`, up to what its row says."""
    rows = RunEvent.objects.filter(
        run_id=run.pk, epoch=run.epoch, seq__gt=after, seq__lte=run.last_seq
    )
    return list(rows.order_by("seq")[:limit])
