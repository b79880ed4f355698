"""Reads of a session's messages: what a page opens with, branches, and replies in progress."""

from collections.abc import Iterable, Sequence
from itertools import chain
from uuid import UUID

from django.db import connection
from django.db.models import QuerySet

from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import ChatSession, Message, Run
from conversations.queries import list_path, list_unfinished, load_messages, parse_id, reply_run
from conversations.runs.catch_up import Snapshot, read_snapshot
from conversations.shapes import History, MessageView, message_view, queue_view, run_view

STEPS = 100
"""Messages that one query walks down a branch."""

WALK_DOWN = """
    WITH RECURSIVE path (id, depth) AS (
        SELECT id, 0 FROM conversations_message WHERE id = %s
        UNION ALL
        SELECT (
            SELECT m.id FROM conversations_message m
            WHERE m.parent_id = path.id AND NOT m.withdrawn ORDER BY m.number DESC LIMIT 1
        ), path.depth + 1
        FROM path WHERE path.id IS NOT NULL AND path.depth < %s
    )
    SELECT id FROM path WHERE depth > 0 AND id IS NOT NULL ORDER BY depth
"""


def list_below(message_id: UUID, limit: int) -> list[UUID]:
    """Return the ids of up to `limit` messages below one: its newest child, that one's, and so on.

    Withdrawn children do not count. [] if there is nothing below, or no such message.
    """
    field = Message._meta.pk
    with connection.cursor() as cursor:
        cursor.execute(WALK_DOWN, [field.get_db_prep_value(message_id, connection), limit])
        return [field.to_python(row[0]) for row in cursor.fetchall()]


def find_end(message_id: UUID) -> UUID:
    """Return the id of the last message that `list_below` finds, without a limit.

    It is `message_id` itself if nothing is below this message.
    """
    while below := list_below(message_id, STEPS):
        message_id = below[-1]
    return message_id


def list_siblings(session: ChatSession, messages: Sequence[MessageView]) -> dict[str, list[str]]:
    """Return the ids of the children of the parents of `messages`, by parent, oldest first.

    Withdrawn children are left out, and then parents with fewer than two. The parent "" stands for
    the beginning of the session.
    """
    parents = [message.parent_message_id for message in messages]
    places = list_places(session, parents, among=Message.objects.filter(withdrawn=False))
    return {
        str(parent or ""): [str(pk) for pk in ids] for parent, ids in places.items() if len(ids) > 1
    }


def list_places(
    session: ChatSession, parents: Sequence[UUID | str | None], *, among: QuerySet[Message]
) -> dict[UUID | None, list[UUID]]:
    """Return the ids of the children of `parents` in `among`, by parent, oldest first.

    The parent None stands for the beginning of the session. Parents without children are left out.
    The other parents need not be of this session.
    """
    rows = among.order_by("number").values_list("parent_id", "pk")
    found = [rows.filter(parent_id__in=[pk for pk in parents if pk])]
    if None in parents:
        found.append(rows.filter(session_id=session.pk, parent=None))
    places: dict[UUID | None, list[UUID]] = {}
    for parent, pk in chain(*found):
        places.setdefault(parent, []).append(pk)
    return places


def get_history(
    session: ChatSession, limit: int = 200, *, before: str = "", branch: str = ""
) -> History:
    """Return the last messages of the session's active branch, at most `limit`, its run and queue.

    With `before`, the id of a message, returns the last ones above that message, without run and
    queue; `branch` is then ignored. With `branch`, the id of a message, returns those around that
    one, on its branch, which goes on below it with the newest child each time. Raises
    `AgentSiteError(not_found)` if there is no such message in the session, or that of `branch` is
    withdrawn, and `ChatSession.DoesNotExist` if the session has been purged.
    """
    # The revision first and the run's events last: what is committed between these reads is sent
    # again to a client that resumes from here, and changes nothing there.
    rev = ChatSession.objects.values_list("rev", flat=True).get(pk=session.pk)
    if before:
        return History(rev, _list_above(session, parse_id(before), limit), None, [])
    unfinished = list_unfinished(session.pk)
    leaf = ChatSession.objects.values_list("active_leaf_id", flat=True).get(pk=session.pk)
    end, later = _find_end(session, branch, limit) if branch else (leaf, "")
    messages = load_messages(list_path(end, limit)) if end else []
    shown = read_snapshot(unfinished[0]) if unfinished else None
    return History(
        rev=rev,
        messages=[_show(message, shown) for message in messages],
        run=run_view(shown.run) if shown else None,
        queue=[queue_view(run) for run in unfinished[1:]],
        later=later,
        aside=end != leaf,
    )


def _find_end(session: ChatSession, message_id: str, limit: int) -> tuple[UUID, str]:
    """Return the last message to show around one; a quarter of `limit` is for those above it.

    The second value is its id too if the branch goes on below it, else "". Raises
    `AgentSiteError(not_found)`.
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


def _show(message: Message, shown: Snapshot | None) -> MessageView:
    run = reply_run(message)
    if run is not None and shown is not None and run.pk == shown.run.pk:
        return message_view(message, run=shown.run, parts=shown.parts)
    return message_view(message, run=run)


def list_messages(session: ChatSession) -> QuerySet[Message]:
    """Return all messages of all branches, including withdrawn ones, in order of creation.

    Their runs and summaries are loaded with them.
    """
    messages = Message.objects.filter(session=session).select_related("run", "summary")
    return messages.order_by("number")


def show_messages(rows: Iterable[Message]) -> list[MessageView]:
    """Return views of messages; a reply in progress has the parts shown so far.

    `rows` must have their runs loaded, as by `list_messages` or `load_messages`.
    """
    return [_show_at_work(row) if _is_at_work(row) else _show_stored(row) for row in rows]


def _show_stored(row: Message) -> MessageView:
    return message_view(row, run=reply_run(row))


def _is_at_work(row: Message) -> bool:
    """Return whether the text is still in the journal; a run without an epoch has no journal."""
    run = reply_run(row)
    return run is not None and not run.is_ended and run.epoch > 0


def _show_at_work(row: Message) -> MessageView:
    """Show a reply by reading it and its run again.

    The run may have ended since `row` was read; then its text has moved into the message.
    """
    row = Message.objects.select_related("run", "summary").filter(pk=row.pk).first() or row
    run = reply_run(row)
    if run is None or run.is_ended:
        return message_view(row, run=run)
    shown = read_snapshot(run)
    return message_view(row, run=shown.run, parts=shown.parts)


def get_message_view(session: ChatSession, message_id: str) -> MessageView:
    """Return the view of one of the session's messages, which may be withdrawn.

    A reply in progress has the parts shown so far. Raises `AgentSiteError(not_found)`.
    """
    views = show_messages(list_messages(session).filter(pk=parse_id(message_id)))
    if not views:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    return views[0]


def get_reply_view(session: ChatSession, run: Run) -> MessageView:
    """Return the view of the reply of `run`, with the parts shown so far if it is in progress.

    The run must be one of the session's; raises `ValueError` for any other, and if it is gone.
    """
    [view] = show_messages(list_messages(session).filter(pk=run.reply_id))
    return view
