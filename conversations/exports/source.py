"""Reads conversations from the database in batches, so that memory use stays bounded."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Prefetch, Q, QuerySet

from conversations.models import ChatSession, Feedback, Item, Message, Review, Run
from conversations.queries import list_path, read_parts, reply_run
from conversations.runs.inputs import CALL, OUTPUT
from conversations.runs.usage import currency
from conversations.sessions.history import list_messages
from conversations.shapes import message_fields, message_view
from conversations.text import CUT, clean_text

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
    """A session and its messages on all branches and withdrawn ones, in order of `number`.

    A message has the fields of a `MessageView`, plus `text`, `on_active_branch` and `feedback`, and
    for a reply `model`, `usage`, `cost`, `retries` and `timings`. Its tool calls are not shortened,
    except outputs that are no text. Ids, times and costs are texts. `messages` reads from the
    database as it is iterated, and can be iterated only once.
    """

    session: Record
    messages: Iterator[Record]


def read_conversations(
    sessions: QuerySet[ChatSession], *, for_staff: bool = False
) -> Iterator[Conversation]:
    """Yield all of `sessions` by their creation, the oldest first, reading them in batches.

    `sessions` must not be sliced; those that are purged meanwhile are left out. `for_staff` adds
    the fields `owner`, a name, and `review`, None without one, to each `session`.
    """
    for group in _groups(sessions):
        loaded = _load(group) if len(group) > 1 else None
        about = _about(group) if for_staff else {}
        for session in group:
            batches = _batches(session) if loaded is None else [loaded[session.pk]]
            header = _header(session) | about.get(session.pk, {})
            yield Conversation(header, _records(session, batches))


def read_items(run_ids: Iterable[str]) -> dict[str, list[Record]]:
    """Return the items of these runs in order, by run id as text, in a `defaultdict` of lists."""
    items: dict[str, list[Record]] = defaultdict(list)
    rows = Item.objects.filter(run_id__in=list(run_ids)).order_by("run_id", "position")
    for run_id, payload in rows.values_list("run_id", "payload"):
        items[str(run_id)].append(payload)
    return items


def _groups(sessions: QuerySet[ChatSession]) -> Iterator[list[ChatSession]]:
    """Group consecutive sessions up to `MESSAGES_A_BATCH` messages; a larger one comes alone."""
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
    """Yield pages of session ids by keyset, so that no cursor stays open between two batches."""
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
        "owner_id": str(session.owner_id),
        "title_source": session.title_source,
        "archived_at": _iso(session.archived_at),
        "deleted_at": _iso(session.deleted_at),
        "currency": currency(),
    }


def _about(group: list[ChatSession]) -> dict[UUID, Record]:
    """Return, by session id, the fields that only staff exports contain."""
    ids = [session.pk for session in group]
    people = ("assignee", "reviewed_by")
    rows = Review.objects.filter(pk__in=ids).select_related(*people).prefetch_related("labels")
    reviews = {row.pk: _review(row) for row in rows}
    owners = ChatSession.objects.filter(pk__in=ids).select_related("owner")
    return {
        row.pk: {"owner": row.owner.get_username(), "review": reviews.get(row.pk)} for row in owners
    }


def _review(row: Review) -> Record:
    return {
        "labels": [label.name for label in row.labels.all()],
        "note": row.note,
        "assignee": row.assignee.get_username() if row.assignee else None,
        "reviewed_by": row.reviewed_by.get_username() if row.reviewed_by else None,
        "reviewed_at": _iso(row.reviewed_at),
    }


def _records(session: ChatSession, batches: Iterable[list[Message]]) -> Iterator[Record]:
    branch: set[UUID] | None = None
    for batch in batches:
        if branch is None:
            branch = _branch(session, batch)
        for row in batch:
            yield _record(row, on_active_branch=row.pk in branch)


def _branch(session: ChatSession, first: list[Message]) -> set[UUID]:
    """Return the ids of the active branch.

    Uses the rows in `first` if they are all messages of the session; otherwise runs a query.
    """
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
        "parts": _whole_parts(view.parts or [], run),
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
        "timings": {name: _iso(time) for name, time in times.items()},
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _whole_parts(parts: list[Record], run: Run | None) -> list[Record]:
    """Return `parts` with the shortened arguments and outputs replaced by their full texts."""
    if run is None or not any(map(_is_shortened, parts)):
        return parts
    items = read_items([str(run.pk)])[str(run.pk)]
    whole = {
        "arguments": [item["arguments"] for item in items if item.get("type") == CALL],
        "output": [item["output"] for item in items if item.get("type") == OUTPUT],
    }
    return [part | _whole_fields(part, whole) for part in parts]


def _is_shortened(part: Record) -> bool:
    return any(_is_cut(part, name) for name in ("arguments", "output"))


def _is_cut(part: Record, name: str) -> bool:
    return part["type"] == "tool" and str(part.get(name) or "").endswith(CUT)


def _whole_fields(part: Record, whole: dict[str, list[Any]]) -> Record:
    """Find the full texts that begin like the shortened ones, and remove them from `whole`.

    Matching by call id would fail: some servers use the same id in every turn.
    """
    found = {}
    for name, texts in whole.items():
        start = part[name].removesuffix(CUT) if _is_cut(part, name) else None
        for place, text in enumerate(texts):
            # An output that is not a string is skipped; its part keeps the shortened text.
            if start is not None and isinstance(text, str) and clean_text(text).startswith(start):
                found[name] = clean_text(texts.pop(place))
                break
    return found
