"""Writes to a session: lock it, collect the changes, and notify handlers after the commit."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Optional
from uuid import UUID

from django.db import connection, transaction
from django.db.models import AutoField, Model
from django.utils import timezone

from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import ACTIVE, ChatSession, Item, Message, Run, RunStatus
from conversations.queries import EventRow, User, columns_of, list_unfinished, load
from conversations.runs.events import INSERT_ROWS, FromNow, insert_events
from conversations.shapes import MessageView, QueueView, RunRef, UserId, message_view, queue_view

if TYPE_CHECKING:
    from conversations.runs.states import Claimed


@dataclass(frozen=True)
class MessageChanged:
    """A message was created or changed; `created` tells which.

    `message.parts` is None if readers get the parts from the run's events.
    """

    message: MessageView
    created: bool


@dataclass(frozen=True)
class QueueChanged:
    """The queue changed; `queue` is all of it: the runs behind the first unfinished one."""

    queue: list[QueueView]


@dataclass(frozen=True)
class RunQueued:
    """A new run was not claimed in the transaction that added it.

    `position` is the number of unfinished runs before it; 0: it is the next to be claimed.
    """

    run: RunRef
    position: int


@dataclass(frozen=True)
class RunCancelRequested:
    """A cancel of a running run was requested; its worker must stop the run."""

    run: RunRef

    @property
    def run_id(self) -> UUID:
        return self.run.run_id


@dataclass(frozen=True)
class RunAdvanced:
    """A move wrote events to a run's journal: (seq, kind, payload) in order, without a gap.

    Commits of streamed text are not announced in this way. `run` is the row after these events,
    with its reply loaded. `html` has the HTML of each text part of an ended run; None if the run
    has not ended, or its HTML has not been rendered yet.
    """

    run: Run
    events: list[tuple[int, str, dict[str, Any]]]
    html: list[str] | None = None


@dataclass(frozen=True)
class RunReady:
    """A run may be worked on now.

    `claimed` is the claim if the same transaction has made one for this process, in which handlers
    are called; None: nobody has claimed the run yet.
    """

    run_id: UUID
    claimed: Optional["Claimed"] = None


@dataclass(frozen=True)
class RunEnded:
    """A run has reached a terminal status; its worker must stop, and nothing may start it."""

    run_id: UUID


@dataclass(frozen=True)
class SessionListed:
    """The entry of a session in its owner's list changed, as `kind` says.

    "created" is also for a session that came from another owner; with "activity", `active_at` has
    changed. `active_at` is ISO 8601. `run_status` is that of the first unfinished run; None without
    one.
    """

    kind: Literal["created", "updated", "deleted", "activity"]
    title: str
    active_at: str
    run_status: str | None
    archived: bool
    pinned: bool


@dataclass(frozen=True)
class FeedbackChanged:
    """The owner has rated a reply, perhaps as before; `value` None: the owner takes a rating back.

    `message_id` is the id of the reply.
    """

    message_id: UUID
    value: str | None


@dataclass(frozen=True)
class ShareChanged:
    """A share was created or, if `revoked`, revoked; `created_at` is ISO 8601."""

    share_id: UUID
    created_at: str
    revoked: bool


Event = (
    MessageChanged
    | QueueChanged
    | RunQueued
    | RunCancelRequested
    | RunAdvanced
    | RunReady
    | RunEnded
    | SessionListed
    | FeedbackChanged
    | ShareChanged
)

UNNUMBERED = (FeedbackChanged, ShareChanged)
"""Events that do not change the session itself: its revision stays the same."""


@dataclass(frozen=True)
class Change:
    """The events of one transaction on one session, in order; `rev` is the revision after it."""

    session_id: UUID
    owner_id: UserId
    rev: int
    events: tuple[Event, ...]


_handlers: list[Callable[[Change], None]] = []
_enqueuers: list[Callable[[Run], None]] = []
_recorders: list[Callable[[Change], None]] = []


def register_enqueuer(enqueue: Callable[[Run], None]) -> None:
    """Register `enqueue`, to be called in each transaction that makes a run ready.

    The call comes before the commit, while the session of the run is locked. `enqueue` may write
    to the same database, and must not raise for a run that is already enqueued. A run that is
    claimed in the same transaction is not passed to it.
    """
    _enqueuers.append(enqueue)


def enqueue_ready(run: Run) -> None:
    """Pass a run that has become ready to all registered enqueuers, in the current transaction."""
    for enqueue in _enqueuers:
        enqueue(run)


def register_recorder(record: Callable[[Change], None]) -> None:
    """Register `record`, to be called with each change in its transaction, before the commit.

    What it writes is committed with the change or not at all; it must not raise.
    """
    _recorders.append(record)


def register(handler: Callable[[Change], None]) -> None:
    """Register `handler`, to be called after every committed change, in the thread of the commit.

    It must not raise: the code that committed would get the exception, and handlers registered
    later would miss the change.
    """
    _handlers.append(handler)


def announce_unnumbered(session: ChatSession, event: FeedbackChanged | ShareChanged) -> None:
    """Announce an event of `UNNUMBERED`; the session need not be locked."""
    announce(Change(session.pk, session.owner_id, session.rev, (event,)))


def announce(change: Change) -> None:
    """Call the recorders with `change` now, and the handlers once the transaction has committed.

    That is the outermost open transaction; if it is rolled back, handlers are not called. Without
    an open transaction they are called at once.
    """
    for record in _recorders:
        record(change)
    transaction.on_commit(lambda: _call(change))


def _call(change: Change) -> None:
    for handler in _handlers:
        handler(change)


ListKind = Literal["created", "updated", "deleted", "activity"]


class RunLostError(Exception):
    """The run has ended, another worker has claimed it, or its row has changed since it was read.

    Functions that write raise it inside their transaction, which is rolled back.
    """


def lock_session(
    session_id: UUID,
    *,
    user: User | None = None,
    with_deleted: bool = False,
    is_activity: bool = True,
) -> ChatSession:
    """Increment the revision of a session, which locks its row, and return the session.

    With `user` it must be one of theirs, and not deleted unless `with_deleted`; without, any
    session is locked. Needs an open transaction; the lock is held until it ends. Lock the session
    before any run. With `is_activity`, the session's `active_at` becomes now, which moves it to the
    top of its owner's list. Raises `AgentSiteError(not_found)` if there is no such session.
    """
    table = ChatSession._meta
    sql, params = "UPDATE conversations_chatsession SET rev = rev + 1", []
    if is_activity:
        sql += ", active_at = %s"
        params.append(connection.ops.adapt_datetimefield_value(timezone.now()))
    sql += " WHERE id = %s"
    params.append(table.pk.get_db_prep_value(session_id, connection))
    if user is not None:
        sql += " AND owner_id = %s" + ("" if with_deleted else " AND deleted_at IS NULL")
        params.append(table.get_field("owner").get_db_prep_value(user.pk, connection))
    with connection.cursor() as cursor:
        cursor.execute(f"{sql} RETURNING {columns_of(ChatSession, table.db_table)}", params)
        row = cursor.fetchone()
    if row is None:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    return load(ChatSession, row)


def lock_runs(session_ids: Iterable[UUID]) -> None:
    """Lock the active runs of sessions, in the order of the runs' ids.

    Needs an open transaction that holds the locks of these sessions. Commits of text lock runs in
    the same order, to avoid deadlocks. On SQLite the transaction itself keeps other writers out.
    """
    runs = Run.objects.filter(session__in=list(session_ids), status__in=ACTIVE).order_by("pk")
    list(runs.select_for_update().values_list("pk", flat=True))


class ChangeBuilder:
    """Collects the events of one transaction on one session, whose lock the caller holds.

    `unfinished` has the session's active runs in order, with prompts and replies loaded; code that
    adds or ends a run must update this list. With `is_new`, the session has no runs, and none are
    read. With `locks_runs`, the rows of these runs are locked too, since commits of text write them
    without the session's lock.
    """

    def __init__(
        self, session: ChatSession, *, is_new: bool = False, locks_runs: bool = False
    ) -> None:
        self.session = session
        self.events: list[Event] = []
        self.unfinished: list[Run] = [] if is_new else list_unfinished(session.pk, lock=locks_runs)
        self._queue_before = self._queue()
        self._claimable_before = self.claimable

    @property
    def head(self) -> Run | None:
        """The run that is running or awaits input, else the first queued one; None if all ended."""
        return self.unfinished[0] if self.unfinished else None

    @property
    def waiting(self) -> list[Run]:
        """The runs behind the first unfinished one, in order."""
        return self.unfinished[1:]

    @property
    def claimable(self) -> UUID | None:
        """The id of the first unfinished run if it is queued, and so may be claimed; else None."""
        queued = self.head is not None and self.head.status == RunStatus.QUEUED
        return self.head.pk if self.head is not None and queued else None

    def find(self, run_id: UUID) -> Run | None:
        """Return the run with this id from `unfinished`; None if it is not there."""
        return next((run for run in self.unfinished if run.pk == run_id), None)

    def add(self, event: Event) -> None:
        self.events.append(event)

    def announce(self, kind: ListKind | None) -> None:
        """Pass the collected events to the recorders now, and to the handlers after the commit.

        Call it last, and once. Adds `RunReady` if a run has become claimable, which is also passed
        to the enqueuers now; `QueueChanged` if the queue has changed; and `SessionListed` with
        `kind`, unless `kind` is None, or the session is deleted and `kind` is not "deleted".
        """
        if self.head is not None and self.claimable not in (None, self._claimable_before):
            enqueue_ready(self.head)
            self.add(RunReady(self.head.pk))
        if (queue := self._queue()) != self._queue_before:
            self.add(QueueChanged(queue))
        # A run that ends after its session was deleted must not put the session back on the list.
        if kind is not None and (self.session.deleted_at is None or kind == "deleted"):
            self.add(self._line(kind))
        session = self.session
        announce(Change(session.pk, session.owner_id, session.rev, tuple(self.events)))

    def _queue(self) -> list[QueueView]:
        return [queue_view(run) for run in self.waiting]

    def _line(self, kind: ListKind) -> SessionListed:
        return SessionListed(
            kind=kind,
            title=self.session.title,
            active_at=self.session.active_at.isoformat(),
            run_status=self.head.status if self.head else None,
            archived=self.session.is_archived,
            pinned=self.session.is_pinned,
        )


@contextmanager
def locked_run(run_id: UUID, session_id: UUID | None = None) -> Iterator[tuple[ChangeBuilder, Run]]:
    """Open a transaction for a move of a run; yield its change and the run, both locked.

    Locks the session, then the rows of its active runs. The change is announced as activity of the
    session when the block ends without an exception. `session_id` saves a query if the caller knows
    it. Raises `RunLostError` if the session has no unfinished run with this id, `Run.DoesNotExist`
    for an unknown run if `session_id` is None, and `AgentSiteError(not_found)` if the session has
    been purged.
    """
    with transaction.atomic():
        if session_id is None:
            session_id = Run.objects.values_list("session_id", flat=True).get(pk=run_id)
        session = lock_session(session_id)
        change = ChangeBuilder(session, locks_runs=True)
        run = change.find(run_id)
        if run is None:
            raise RunLostError(f"run {run_id} has ended")
        yield change, run
        change.announce("activity")


def write_events(run: Run, events: Iterable[EventRow]) -> None:
    """Add (seq, kind, payload) rows to the run's journal, in its current epoch.

    Does not change the run's `last_seq`.
    """
    insert_events((run.pk, run.epoch, *event, None) for event in events)


def insert(rows: Sequence[Model], conflict: str = "") -> None:
    """Insert new objects of one model, as `bulk_create` does but faster; none if `rows` is empty.

    In statements of `INSERT_ROWS` rows: the caller opens the transaction. An automatic primary
    key is not set on them; `FromNow` may stand for a moment. `conflict` is the clause `ON
    CONFLICT` with what follows it, or "": then an existing row raises `IntegrityError`.
    """
    for start in range(0, len(rows), INSERT_ROWS):
        _insert_rows(rows[start : start + INSERT_ROWS], conflict)


def _insert_rows(rows: Sequence[Model], conflict: str) -> None:
    meta: Any = rows[0]._meta
    fields = [field for field in meta.concrete_fields if not isinstance(field, AutoField)]
    columns = ", ".join(field.column for field in fields)
    values = [[prepare(field, field.pre_save(made, True)) for field in fields] for made in rows]
    places = ", ".join(f"({', '.join(sql for sql, _ in row)})" for row in values)
    sql = f"INSERT INTO {meta.db_table} ({columns}) VALUES {places} {conflict}"  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(sql, [param for row in values for _, param in row])
    for made in rows:
        made._state.adding, made._state.db = False, connection.alias


def prepare(field: Any, value: Any) -> tuple[str, Any]:
    """Return the SQL for a value of a field in a statement that writes it, and its parameter."""
    if isinstance(value, FromNow):
        return value.prepare()
    return "%s", field.get_db_prep_save(value, connection)


def update(model: type[Model], values: Mapping[str, Any], where: Mapping[str, Any]) -> int:
    """Write `values` to the rows whose columns equal all of `where`; return how many there are.

    Both are by field name; `FromNow` may stand for a moment to write. None in `where` equals
    nothing.
    """
    changes, written = _pair(model, values, ", ")
    conditions, wanted = _pair(model, where, " AND ")
    sql = f"UPDATE {model._meta.db_table} SET {changes} WHERE {conditions}"  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(sql, [*written, *wanted])
        return int(cursor.rowcount)


def _pair(model: type[Model], values: Mapping[str, Any], joint: str) -> tuple[str, list[Any]]:
    """Return `column = value` for each of `values`, joined by `joint`, and their parameters."""
    meta: Any = model._meta
    fields = [(meta.get_field(name), value) for name, value in values.items()]
    pairs = [(field.column, *prepare(field, value)) for field, value in fields]
    text = joint.join(f"{column} = {sql}" for column, sql, _ in pairs)
    return text, [param for _, _, param in pairs]


def add_items(run: Run, items: Sequence[dict[str, Any]]) -> None:
    """Store the items of the run's reply, which has none yet, in this order."""
    insert([Item(run=run, position=place, payload=item) for place, item in enumerate(items)])


def replace_items(run: Run, items: Sequence[dict[str, Any]]) -> None:
    """Delete the items of the run's reply, if any, and store `items` instead, in this order."""
    Item.objects.filter(run_id=run.pk).delete()
    add_items(run, items)


def update_reply(change: ChangeBuilder, run: Run) -> None:
    """Save the reply's parts at the session's current revision, and add that to `change`.

    The view of the added `MessageChanged` has no parts: readers get those from the run's events.
    """
    run.reply.rev = change.session.rev
    written = {"rev": run.reply.rev, "parts": run.reply.parts}
    update(Message, written, where={"id": run.reply_id})
    view = replace(message_view(run.reply, run=run), parts=None)
    change.add(MessageChanged(view, created=False))
