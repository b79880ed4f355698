"""Basic reads of sessions, messages and runs; reads of a user's data take the user first."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.db.models import Model, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce

from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import (
    ACTIVE,
    HOLDING,
    ChatSession,
    Message,
    Run,
    RunEvent,
    RunStatus,
    Summary,
)
from conversations.runs.usage import UsageTotals, read_session_totals, read_user_totals
from conversations.sessions.parts import PartsFolder, fold
from conversations.shapes import QueueView, RunTimings, UserId, queue_view, run_timings

User = AbstractBaseUser | AnonymousUser
EventRow = tuple[int, str, dict[str, Any]]
T = TypeVar("T")
M = TypeVar("M", bound=Model)


IDS_A_QUERY = 500
"""Ids in one statement: older builds of SQLite take at most 999 parameters, newer ones 32,766."""


def in_chunks(ids: Iterable[T]) -> Iterator[list[T]]:
    """Yield `ids` in lists of at most `IDS_A_QUERY`, for statements with one parameter an id."""
    given = list(ids)
    for start in range(0, len(given), IDS_A_QUERY):
        yield given[start : start + IDS_A_QUERY]


def parse_id(value: str | UUID) -> UUID:
    """Return `value` as a UUID; raises `AgentSiteError(not_found)` if it is not one.

    Clients get the same error for an id that does not exist.
    """
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except ValueError as exc:
        raise AgentSiteError(ErrorCode.NOT_FOUND) from exc


def get_user(user_id: UserId) -> AbstractBaseUser:
    """Return the active user with this id.

    Raises `AgentSiteError(not_authenticated)` if there is none, or the user is not active.
    """
    users = get_user_model()._default_manager
    user = users.filter(pk=user_id, is_active=True).first()  # type: ignore[misc]
    if user is None:
        raise AgentSiteError(ErrorCode.NOT_AUTHENTICATED)
    return user


def sessions_of(user: User) -> QuerySet[ChatSession]:
    """Return the sessions of `user`, archived ones too, but without deleted ones; in no order."""
    return ChatSession.objects.filter(owner_id=user.pk, deleted_at=None)


def get_session(user: User, session_id: str | UUID) -> ChatSession:
    """Return the session of `user` with this id, also if it is archived.

    Raises `AgentSiteError(not_found)` if there is none, if it belongs to another user or is
    deleted, and for a text that is not an id.
    """
    found = find(ChatSession, id=parse_id(session_id), owner=user.pk, deleted_at=None)
    if found is None:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    return found


def list_sessions(user: User, limit: int = 100) -> QuerySet[ChatSession]:
    """Return at most `limit` sessions of `user`, newest activity first, without archived ones.

    Each has the attribute `run_status` of `with_run_status`.
    """
    return with_run_status(sessions_of(user).filter(archived_at=None)).order_by(
        "-active_at", "-id"
    )[:limit]


def list_pinned(user: User, limit: int = 100) -> QuerySet[ChatSession]:
    """Return at most `limit` pinned sessions of `user`, as `list_sessions` does."""
    pinned = sessions_of(user).filter(archived_at=None, is_pinned=True)
    return with_run_status(pinned).order_by("-active_at", "-id")[:limit]


def with_run_status(sessions: QuerySet[ChatSession]) -> QuerySet[ChatSession]:
    """Annotate each session with `run_status`, one of `ACTIVE`; None without an unfinished run.

    It is the status of the run that is running or awaits input, else "queued".
    """
    runs = Run.objects.filter(session=OuterRef("pk"))
    holding = Subquery(runs.filter(status__in=HOLDING).values("status")[:1])
    queued = Subquery(runs.filter(status=RunStatus.QUEUED).values("status")[:1])
    return sessions.annotate(run_status=Coalesce(holding, queued))


def reply_run(message: Message) -> Run | None:
    """Return the run whose reply is `message`; None for a message that a person wrote.

    The first call is a query unless the run was loaded with `select_related("run")`.
    """
    run: Run | None = getattr(message, "run", None)
    return run


def list_path(leaf: UUID, limit: int) -> list[UUID]:
    """Return ids of the last `limit` messages of the branch that ends at `leaf`, oldest first.

    `leaf` is the last of them. Returns [] if there is no such message.
    """
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
    """Return the messages with `ids`, in that order, with their runs and summaries loaded.

    Raises `KeyError` if a message does not exist.
    """
    found = Message.objects.select_related("run", "summary").in_bulk(ids)
    return [found[pk] for pk in ids]


# Every move of a run reads this: through the ORM, building the statement takes three times as long
# as all the rest. Without ORDER BY, which would make SQLite read every run of the session.
UNFINISHED = """
    SELECT {run}, {prompt}, {reply} FROM conversations_run run
    JOIN conversations_message prompt ON prompt.id = run.prompt_id
    JOIN conversations_message reply ON reply.id = run.reply_id
    WHERE run.session_id = %s AND run.status IN ({statuses})
"""


def list_unfinished(session_id: UUID, *, lock: bool = False) -> list[Run]:
    """Return a session's runs that have not ended, in order, with prompts and replies loaded.

    With `lock`, which needs an open transaction, the rows of these runs are locked; on SQLite the
    transaction itself keeps other writers out.
    """
    sql = UNFINISHED.format(
        run=columns_of(Run, "run"),
        prompt=columns_of(Message, "prompt"),
        reply=columns_of(Message, "reply"),
        statuses=", ".join(["%s"] * len(ACTIVE)),
    )
    if lock and connection.features.has_select_for_update_of:
        sql += "FOR UPDATE OF run"
    key = Run._meta.get_field("session").get_db_prep_value(session_id, connection)
    with connection.cursor() as cursor:
        cursor.execute(sql, [key, *ACTIVE])
        rows = cursor.fetchall()
    return sorted(map(_load_unfinished, rows), key=lambda run: run.number)


def _load_unfinished(row: Sequence[Any]) -> Run:
    run, prompt, reply = split(row, Run, Message, Message)
    found = load(Run, run)
    found.prompt, found.reply = load(Message, prompt), load(Message, reply)
    return found


# Each resume reads this; as for UNFINISHED, the ORM would take most of the time.
CHANGED = """
    SELECT {message}, {run}, {summary} FROM conversations_message message
    LEFT JOIN conversations_run run ON run.reply_id = message.id
    LEFT JOIN conversations_summary summary ON summary.message_id = message.id
    WHERE message.session_id = %s AND message.rev > %s
    ORDER BY message.rev, message.number LIMIT %s
"""


def list_changed(session_id: UUID, *, rev: int, limit: int) -> list[Message]:
    """Return the first `limit` messages that changed after revision `rev`, oldest change first.

    Their runs and summaries are loaded.
    """
    sql = CHANGED.format(
        message=columns_of(Message, "message"),
        run=columns_of(Run, "run"),
        summary=columns_of(Summary, "summary"),
    )
    key = Message._meta.get_field("session").get_db_prep_value(session_id, connection)
    with connection.cursor() as cursor:
        cursor.execute(sql, [key, rev, limit])
        return [_load_changed(row) for row in cursor.fetchall()]


def _load_changed(row: Sequence[Any]) -> Message:
    message, run, summary = split(row, Message, Run, Summary)
    found = load(Message, message)
    known = found._state.fields_cache
    known["run"] = None if run[0] is None else load(Run, run)
    known["summary"] = None if summary[0] is None else load(Summary, summary)
    return found


def split(row: Sequence[Any], *models: type[Model]) -> Iterator[Sequence[Any]]:
    """Yield the values for `load` of each model, from a row with the `columns_of` all of them."""
    start = 0
    for model in models:
        end = start + len(model._meta.concrete_fields)
        yield row[start:end]
        start = end


def find(model: type[M], **where: Any) -> M | None:
    """Return the first object of `select`; None if there is none."""
    return next(iter(select(model, **where)), None)


def select(model: type[M], **where: Any) -> list[M]:
    """Return the objects whose fields equal all of `where`, as the ORM does but faster.

    `where` is by field name. A list equals each of its values, None an empty field.
    """
    conditions, params = [], []
    for name, wanted in where.items():
        field: Any = model._meta.get_field(name)
        values = wanted if isinstance(wanted, list) else [wanted]
        if not values:
            return []
        places = ", ".join(["%s"] * len(values))
        conditions.append(f"{field.column} {'IS NULL' if wanted is None else f'IN ({places})'}")
        if wanted is not None:
            params += [field.get_db_prep_value(value, connection) for value in values]
    table = model._meta.db_table
    sql = f"SELECT {columns_of(model, table)} FROM {table} WHERE {' AND '.join(conditions)}"  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return [load(model, row) for row in cursor.fetchall()]


@cache
def columns_of(model: type[Model], table: str) -> str:
    """Return all columns of `model`, in the order that `load` needs, as the text of a statement.

    `table` is the name or alias of the table there.
    """
    return ", ".join(f"{table}.{field.column}" for field in model._meta.concrete_fields)


def load(model: type[M], values: Sequence[Any]) -> M:
    """Make an object from a row whose columns are `columns_of(model)`, as the ORM does."""
    read = list(values)
    for place, convert, column in _converters(model, connection.vendor):
        read[place] = convert(read[place], column, connection)
    names = [field.attname for field in model._meta.concrete_fields]
    return model.from_db(connection.alias, names, read)


@cache
def _converters(model: type[Model], vendor: str) -> list[tuple[int, Callable[..., Any], Any]]:
    """Return what makes Python values of the database's: place, function, column.

    The functions are the same for all connections to databases of one `vendor`.
    """
    found = []
    for place, field in enumerate(model._meta.concrete_fields):
        column = field.get_col(model._meta.db_table)
        converters = [
            *connection.ops.get_db_converters(column),
            *column.get_db_converters(connection),
        ]
        found += [(place, convert, column) for convert in converters]
    return found


def get_active_run(session_id: UUID) -> Run | None:
    """Return a session's run that is running or awaits input, else the first queued one.

    Returns None if all runs have ended. The run's prompt and reply are loaded.
    """
    return next(iter(list_unfinished(session_id)), None)


def list_queue(session_id: UUID) -> list[QueueView]:
    """Return the runs of a session behind the first unfinished one, in order."""
    return [queue_view(run) for run in list_unfinished(session_id)[1:]]


def read_events(run: Run, *, after: int = 0, limit: int | None = None) -> list[EventRow]:
    """Return (seq, kind, payload) of the events after seq `after`, at most `limit`, in order.

    Reads up to the `last_seq` of `run` in its epoch, so that events committed after `run` was read
    are left out. Once a run is folded, its streamed text is missing.
    """
    rows = RunEvent.objects.filter(
        run_id=run.pk, epoch=run.epoch, seq__gt=after, seq__lte=run.last_seq
    )
    return list(rows.order_by("seq").values_list("seq", "kind", "payload")[:limit])


def read_parts(run: Run) -> PartsFolder:
    """Return a folder with the parts of a run in progress, built from the events of `read_events`.

    Not for a folded run, whose events no longer have its text: its reply has the parts.
    """
    return fold((kind, payload) for _, kind, payload in read_events(run))


def get_run(run_id: UUID) -> Run:
    """Return the run with its reply loaded; raises `Run.DoesNotExist`.

    Does not check the owner: the caller must have authorised access to the run.
    """
    return Run.objects.select_related("reply").get(pk=run_id)


def session_usage(session: ChatSession) -> UsageTotals:
    """Return the usage of a session's ended runs, on all branches, and of titles and summaries."""
    return read_session_totals(session.pk)


def user_usage(user: User) -> UsageTotals:
    """Return the sum of `session_usage` of a user's sessions, also deleted ones not purged yet."""
    return read_user_totals(user.pk)


def get_run_timings(run: Run) -> RunTimings:
    """Return the timings of a run and of the tool calls in its reply's stored parts.

    The reply should be loaded, else this is a query. Its parts may be missing until the run ends.
    """
    return run_timings(run, run.reply.parts)


def runs_of(session: ChatSession) -> QuerySet[Run]:
    """Return all runs of a session, in no order."""
    return Run.objects.filter(session=session)


def get_run_of(session: ChatSession, run_id: str) -> Run:
    """Return the run with this id if it belongs to `session`.

    Raises `AgentSiteError(not_found)` otherwise, and for a text that is not an id.
    """
    run = runs_of(session).filter(pk=parse_id(run_id)).first()
    if run is None:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    return run


def list_events(run: Run, *, after: int, limit: int) -> list[RunEvent]:
    """Return the rows of the events that `read_events` returns for the same arguments.

    Their `step` is not loaded.
    """
    rows = RunEvent.objects.filter(
        run_id=run.pk, epoch=run.epoch, seq__gt=after, seq__lte=run.last_seq
    )
    return list(rows.defer("step").order_by("seq")[:limit])
