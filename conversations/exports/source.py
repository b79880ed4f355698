"""Conversations out of the database, in batches: memory stays flat however many there are."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Prefetch, Q, QuerySet

from conversations.message_reads import list_messages
from conversations.models import ChatSession, Feedback, Message, Run
from conversations.queries import list_path, read_parts, reply_run
from conversations.shapes import message_fields, message_view

Record = dict[str, Any]

IDS_A_BATCH = 10_000
SESSIONS_A_BATCH = 200
MESSAGES_A_BATCH = 500
USAGE_FIELDS = ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens")
TIMING_FIELDS = (
    *("created_at", "queued_at", "claimed_at", "first_token_at", "last_token_at"),
    *("cancel_requested_at", "stopped_at", "ended_at"),
)


@dataclass(frozen=True)
class Conversation:
    """A session and its messages, those of left branches too, in order of `number`.

    A message is a `MessageView` with its `text`, `on_active_branch`, `feedback`, and for a reply
    `model`, `usage` and `timings`. The messages are read while they are gone through, once.
    """

    session: Record
    messages: Iterator[Record]


def read_conversations(sessions: QuerySet[ChatSession]) -> Iterator[Conversation]:
    """All of `sessions`, the oldest first."""
    for group in _groups(sessions):
        loaded = _load(group) if len(group) > 1 else None
        for session in group:
            batches = _batches(session) if loaded is None else [loaded[session.pk]]
            yield Conversation(_header(session), _records(session, batches))


def _groups(sessions: QuerySet[ChatSession]) -> Iterator[list[ChatSession]]:
    """Neighbours whose messages are together no more than a batch, or one session alone."""
    group: list[ChatSession] = []
    size = 0
    for session in _walk(sessions):
        if group and size + session.message_count > MESSAGES_A_BATCH:
            yield group
            group, size = [], 0
        group.append(session)
        size += session.message_count
    if group:
        yield group


def _walk(sessions: QuerySet[ChatSession]) -> Iterator[ChatSession]:
    for ids in _ids(sessions):
        for place in range(0, len(ids), SESSIONS_A_BATCH):
            batch = ids[place : place + SESSIONS_A_BATCH]
            found = ChatSession.objects.in_bulk(batch)
            yield from (found[pk] for pk in batch if pk in found)


def _ids(sessions: QuerySet[ChatSession]) -> Iterator[list[UUID]]:
    """By keyset, so that no cursor stays open between two batches; each is found by a sort."""
    ordered = sessions.order_by("created_at", "id").values_list("created_at", "id")
    page = list(ordered[:IDS_A_BATCH])
    while page:
        yield [pk for _, pk in page]
        created_at, last = page[-1]
        later = Q(created_at__gt=created_at) | Q(created_at=created_at, id__gt=last)
        page = list(ordered.filter(later)[:IDS_A_BATCH])


def _load(group: list[ChatSession]) -> dict[UUID, list[Message]]:
    loaded: dict[UUID, list[Message]] = defaultdict(list)
    rows = Message.objects.filter(session__in=group).select_related("run", "summary")
    for row in rows.order_by("number").prefetch_related(_feedback()):
        loaded[row.session_id].append(row)
    return loaded


def _batches(session: ChatSession) -> Iterator[list[Message]]:
    rows = list_messages(session).prefetch_related(_feedback())
    batch = list(rows[:MESSAGES_A_BATCH])
    while batch:
        yield batch
        batch = list(rows.filter(number__gt=batch[-1].number)[:MESSAGES_A_BATCH])


def _feedback() -> Prefetch:
    return Prefetch("feedback", Feedback.objects.order_by("pk"), to_attr="verdicts")


def _header(session: ChatSession) -> Record:
    return {
        "id": str(session.pk),
        "title": session.title,
        "agent": session.agent,
        "rev": session.rev,
        "created_at": session.created_at.isoformat(),
        "active_at": session.active_at.isoformat(),
    }


def _records(session: ChatSession, batches: Iterable[list[Message]]) -> Iterator[Record]:
    branch: set[UUID] | None = None
    for batch in batches:
        if branch is None:
            branch = _branch(session, batch)
        for row in batch:
            yield _record(row, on_active_branch=row.pk in branch)


def _branch(session: ChatSession, first: list[Message]) -> set[UUID]:
    """The ids that people see, from the rows themselves where these are all."""
    leaf = session.active_leaf_id
    if leaf is not None and len(first) < session.message_count:
        return set(list_path(leaf, session.message_count))
    parents = {row.pk: row.parent_id for row in first}
    branch = set()
    while leaf is not None and leaf not in branch:
        branch.add(leaf)
        leaf = parents.get(leaf)
    return branch


def _record(row: Message, *, on_active_branch: bool) -> Record:
    run = reply_run(row)
    at_work = run is not None and not run.is_ended
    view = message_view(row, run=run, parts=read_parts(run).parts if run and at_work else None)
    return {
        **message_fields(view),
        "text": view.text,
        "on_active_branch": on_active_branch,
        "feedback": [{"value": v.value, "comment": v.comment} for v in row.verdicts],  # type: ignore[attr-defined]
        **(_run_record(run) if run else {}),
    }


def _run_record(run: Run) -> Record:
    times = {name: getattr(run, name) for name in TIMING_FIELDS}
    return {
        "model": run.model,
        "usage": {name: getattr(run, name) for name in USAGE_FIELDS} | {"source": run.usage_source},
        "cost": None if run.cost is None else str(run.cost),
        "retries": run.retries,
        "timings": {name: time.isoformat() if time else None for name, time in times.items()},
    }
