"""Every read; those of a person's data take the user first."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.models import Session
from django.db import connection
from django.db.models import Exists, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from conversations.branches import list_below
from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import (
    ACTIVE,
    HOLDING,
    Approval,
    ChatSession,
    Message,
    Run,
    RunEvent,
    RunStatus,
    SideCall,
)
from conversations.parts import PartsFolder, fold
from conversations.shapes import (
    History,
    MessageView,
    QueueView,
    RunTimings,
    UserId,
    message_view,
    queue_view,
    run_timings,
    run_view,
)
from conversations.usage import UsageTotals, total_usage

User = AbstractBaseUser | AnonymousUser
EventRow = tuple[int, str, dict[str, Any]]


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


def get_history(
    session: ChatSession, limit: int = 200, *, before: str = "", branch: str = ""
) -> History:
    """The last `limit` messages on the session's active branch, and where its runs are.

    With `before`, the id of a message, only those above it. With `branch`, those around that
    message on the branch that it is on, which goes on below it by the newest message at each
    place. Raises `AgentSiteError(not_found)`.

    The revision is read first and the events last: what is committed meanwhile is sent again
    to a client that resumes from here, and changes nothing.
    """
    rev = ChatSession.objects.values_list("rev", flat=True).get(pk=session.pk)
    if before:
        return History(rev, _list_above(session, parse_id(before), limit), None, [])
    active = get_active_run(session.pk)
    queue = list_queue(session.pk)
    leaf = ChatSession.objects.values_list("active_leaf_id", flat=True).get(pk=session.pk)
    end, later = _find_end(session, branch, limit) if branch else (leaf, "")
    messages = load_messages(list_path(end, limit)) if end else []
    shown = read_parts(active).parts if active else []
    return History(
        rev=rev,
        messages=[_shown(message, active, shown) for message in messages],
        run=run_view(active) if active else None,
        queue=queue,
        later=later,
        aside=end != leaf,
    )


def _find_end(session: ChatSession, message_id: str, limit: int) -> tuple[UUID, str]:
    """The last message to show around one, a quarter of `limit` being left for what is above it.

    With its id again if the branch goes on below it.
    """
    start = Message.objects.filter(session=session, pk=parse_id(message_id), withdrawn=False)
    if not start.exists():
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    ahead = limit - limit // 4
    shown = [parse_id(message_id), *list_below(parse_id(message_id), ahead)]
    end = shown[:ahead][-1]
    return end, str(end) if len(shown) > ahead else ""


def _list_above(session: ChatSession, message_id: UUID, limit: int) -> list[MessageView]:
    message = Message.objects.filter(session=session, pk=message_id).first()
    if message is None:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    above = load_messages(list_path(message.parent_id, limit)) if message.parent_id else []
    return [message_view(one, run=reply_run(one)) for one in above]


def _shown(message: Message, active: Run | None, shown: list[dict[str, Any]]) -> MessageView:
    run = reply_run(message)
    if run is not None and active is not None and run.pk == active.pk:
        return message_view(message, run=active, parts=shown)
    return message_view(message, run=run)


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


def list_unfinished(session_id: UUID) -> list[Run]:
    """Runs that have not ended, in order, with prompts and replies.

    Sorted here: an order in this query's SQL makes SQLite read every run of the session.
    """
    runs = Run.objects.filter(session_id=session_id, status__in=ACTIVE)
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
    """What has been shown of a run that works: its events, folded."""
    return fold((kind, payload) for _, kind, payload in read_events(run))


def get_run(run_id: UUID) -> Run:
    """The run with its reply, for whoever was authorised to follow it already."""
    return Run.objects.select_related("reply").get(pk=run_id)


@dataclass(frozen=True)
class CatchUp:
    """What a reader of a run has missed.

    `events` follow the reader's cursor without a gap; where that cannot be, `parts` is all that
    was shown up to `seq`, and `events` go on from there.
    """

    run: Run
    events: list[EventRow]
    parts: list[dict[str, Any]] | None = None
    seq: int = 0


def read_catch_up(run_id: UUID, *, epoch: int, seq: int, limit: int) -> CatchUp:
    """What came after (`epoch`, `seq`), from the run's row first and its events after that.

    The end of an ended run is always among it: whoever asks is owed it.
    """
    run = get_run(run_id)
    newest = run.last_seq - 1 if run.is_ended else run.last_seq
    after = min(seq, newest) if epoch == run.epoch else 0
    missed = run.last_seq - after
    if missed <= limit:
        events = read_events(run, after=after)
        if len(events) == missed:
            return CatchUp(run, events)
    if not run.is_ended:
        return CatchUp(run, [], read_parts(run).parts, run.last_seq)
    last = read_events(run, after=run.last_seq - 1)
    return CatchUp(run, last, run.reply.parts, run.last_seq - 1)


@dataclass(frozen=True)
class SessionState:
    """What a reader of a session has missed.

    `messages` changed after the reader's revision, oldest first; None when there are too many.
    `active` is (id, number) of the active run, `numbers` those of the runs asked for that exist.
    """

    rev: int
    run_count: int
    messages: list[MessageView] | None
    queue: list[QueueView]
    active: tuple[UUID, int] | None
    numbers: dict[UUID, int]


def read_session_state(
    session_id: UUID, *, rev: int | None, runs: Iterable[UUID], limit: int, max_chars: int
) -> SessionState:
    """What came after `rev` (nothing, when that is None), the revision being read first.

    `messages` are at most `limit` with at most `max_chars` of text.
    """
    session = ChatSession.objects.only("rev", "run_count").get(pk=session_id)
    active = get_active_run(session_id)
    return SessionState(
        rev=session.rev,
        run_count=session.run_count,
        messages=[] if rev is None else _list_changes(session_id, rev, limit, max_chars),
        queue=list_queue(session_id),
        active=(active.pk, active.number) if active else None,
        numbers=dict(
            Run.objects.filter(session_id=session_id, pk__in=list(runs)).values_list("pk", "number")
        ),
    )


def _list_changes(
    session_id: UUID, rev: int, limit: int, max_chars: int
) -> list[MessageView] | None:
    changed = Message.objects.filter(session_id=session_id, rev__gt=rev)
    rows = list(changed.select_related("run", "summary").order_by("rev", "number")[: limit + 1])
    if len(rows) > limit or sum(len(row.text) for row in rows) > max_chars:
        return None
    return [message_view(row, run=reply_run(row)) for row in rows]


@dataclass(frozen=True)
class Heads:
    """Where everything is that the viewers of a process follow."""

    revs: dict[UUID, int]
    runs: dict[UUID, tuple[int, int]]


def read_heads(sessions: Iterable[UUID], runs: Iterable[UUID]) -> Heads:
    """The rev of each session, and (epoch, last_seq) of each run."""
    revs = ChatSession.objects.filter(pk__in=list(sessions), deleted_at=None)
    states = Run.objects.filter(pk__in=list(runs))
    return Heads(
        revs=dict(revs.values_list("pk", "rev")),
        runs={pk: (epoch, seq) for pk, epoch, seq in states.values_list("pk", "epoch", "last_seq")},
    )


def list_cancelled(run_ids: Iterable[UUID]) -> list[UUID]:
    """Those of `run_ids` that have been asked to stop."""
    runs = Run.objects.filter(pk__in=list(run_ids), cancel_requested_at__isnull=False)
    return list(runs.values_list("pk", flat=True))


def list_orphans() -> list[UUID]:
    """Runs whose lease has expired, by the database's clock."""
    runs = Run.objects.filter(status=RunStatus.RUNNING, lease_until__lt=Now())
    return list(runs.values_list("pk", flat=True)[:500])


def list_expired() -> list[UUID]:
    """Runs that have awaited input for too long, by the database's clock."""
    late = Approval.objects.filter(
        decision="", expires_at__lt=Now(), run__status=RunStatus.AWAITING_INPUT
    )
    return list(late.values_list("run_id", flat=True).distinct()[:500])


def list_forgotten(age: timedelta, agents: frozenset[str] | None = None) -> list[UUID]:
    """Claimable runs that have been queued for longer than `age`, if given, only of `agents`."""
    runs = _claimable_runs().filter(queued_at__lt=Now() - age)
    if agents is not None:
        runs = runs.filter(agent__in=agents)
    return list(runs.values_list("pk", flat=True)[:500])


def list_held(agents: frozenset[str]) -> list[UUID]:
    """Runs that would be claimable if their agent were one of `agents`."""
    runs = _claimable_runs().exclude(agent__in=agents)
    return list(runs.values_list("pk", flat=True)[:500])


def _claimable_runs() -> QuerySet[Run]:
    """Queued runs that are the first unfinished ones of their sessions."""
    earlier = Run.objects.filter(session=OuterRef("session"), status__in=ACTIVE).filter(
        number__lt=OuterRef("number")
    )
    return Run.objects.filter(status=RunStatus.QUEUED).exclude(Exists(earlier))


def list_unwatched(grace: timedelta) -> list[UUID]:
    """Running runs of sessions whose last viewer left longer than `grace` ago."""
    runs = Run.objects.filter(
        status=RunStatus.RUNNING,
        cancel_requested_at=None,
        session__viewed_until__lt=Now() - grace,
    )
    return list(runs.values_list("pk", flat=True)[:500])


def session_usage(session: ChatSession) -> UsageTotals:
    """What a session has taken, replies on other branches, its title and summaries too."""
    side_calls = SideCall.objects.filter(session_id=session.pk)
    return total_usage(Run.objects.filter(session_id=session.pk), side_calls)


def user_usage(user: User, since: datetime | None = None) -> UsageTotals:
    """What a user's sessions have taken, deleted ones too."""
    runs = Run.objects.filter(owner_id=user.pk)
    side_calls = SideCall.objects.filter(session__owner_id=user.pk)
    if since is None:
        return total_usage(runs, side_calls)
    return total_usage(runs.filter(created_at__gte=since), side_calls.filter(created_at__gte=since))


def get_run_timings(run: Run) -> RunTimings:
    """When what happened to a run; its reply is loaded with it."""
    return run_timings(run, run.reply.parts)


@dataclass(frozen=True)
class SignIn:
    """What a socket was let in by; `key` is a session key, `expires` the end of a token."""

    user_id: UserId
    auth_hash: str
    key: str | None
    expires: datetime | None


def list_ended_sign_ins(sign_ins: Iterable[SignIn]) -> set[SignIn]:
    """Those of `sign_ins` that do not hold any more."""
    given = set(sign_ins)
    users = get_user_model()._default_manager.filter(
        pk__in={sign_in.user_id for sign_in in given}, is_active=True
    )
    hashes: dict[UserId, str] = {user.pk: user.get_session_auth_hash() for user in users}
    now = timezone.now()
    keys = Session.objects.filter(
        session_key__in=[s.key for s in given if s.key], expire_date__gt=now
    )
    live = set(keys.values_list("session_key", flat=True))
    return {
        s
        for s in given
        if hashes.get(s.user_id) != s.auth_hash
        or (s.key is not None and s.key not in live)
        or (s.expires is not None and s.expires <= now)
    }
