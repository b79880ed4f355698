"""Reads of the messages of a session that its reader was let into."""

from collections.abc import Iterable

from django.db.models import QuerySet

from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import ChatSession, Message, Run
from conversations.queries import parse_id, reply_run
from conversations.shapes import MessageView, message_view
from conversations.snapshots import read_snapshot


def list_messages(session: ChatSession) -> QuerySet[Message]:
    """All messages with their runs, those of left branches too."""
    messages = Message.objects.filter(session=session).select_related("run", "summary")
    return messages.order_by("number")


def show_messages(rows: Iterable[Message]) -> list[MessageView]:
    """The messages as they are shown: a reply at work with what there is of it.

    `rows` are loaded with their runs, by `list_messages` or `load_messages`.
    """
    return [_show_at_work(row) if _is_at_work(row) else _show(row) for row in rows]


def _show(row: Message) -> MessageView:
    return message_view(row, run=reply_run(row))


def _is_at_work(row: Message) -> bool:
    """Whether its text is in a journal still; a run that was never claimed has none."""
    run = reply_run(row)
    return run is not None and not run.is_ended and run.epoch > 0


def _show_at_work(row: Message) -> MessageView:
    """By its run as it is now, which may have ended since the row was read: then the text moved."""
    row = Message.objects.select_related("run", "summary").filter(pk=row.pk).first() or row
    run = reply_run(row)
    if run is None or run.is_ended:
        return message_view(row, run=run)
    shown = read_snapshot(run)
    return message_view(row, run=shown.run, parts=shown.parts)


def get_message_view(session: ChatSession, message_id: str) -> MessageView:
    """One of the session's messages as it is shown; raises `AgentSiteError(not_found)`."""
    views = show_messages(list_messages(session).filter(pk=parse_id(message_id)))
    if not views:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    return views[0]


def get_reply_view(session: ChatSession, run: Run) -> MessageView:
    """The reply of one of the session's runs as it is shown."""
    [view] = show_messages(list_messages(session).filter(pk=run.reply_id))
    return view
