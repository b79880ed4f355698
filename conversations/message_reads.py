"""Reads of the messages of a session that its reader was let into."""

from collections.abc import Iterable

from django.db.models import QuerySet

from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import ChatSession, Message, Run
from conversations.queries import get_active_run, parse_id, reply_run
from conversations.shapes import MessageView, message_view
from conversations.snapshots import read_snapshot


def list_messages(session: ChatSession) -> QuerySet[Message]:
    """All messages with their runs, those of left branches too."""
    messages = Message.objects.filter(session=session).select_related("run", "summary")
    return messages.order_by("number")


def show_messages(session: ChatSession, rows: Iterable[Message]) -> list[MessageView]:
    """The messages as they are shown: a reply at work with what there is of it."""
    active = get_active_run(session.pk)
    views = []
    for row in rows:
        run = reply_run(row)
        # `active` was read before the rows: by their reading it may have ended, with more text.
        if active is not None and run is not None and run.pk == active.pk and not run.is_ended:
            shown = read_snapshot(active)
            views.append(message_view(row, run=shown.run, parts=shown.parts))
        else:
            views.append(message_view(row, run=run))
    return views


def get_message_view(session: ChatSession, message_id: str) -> MessageView:
    """One of the session's messages as it is shown; raises `AgentSiteError(not_found)`."""
    views = show_messages(session, list_messages(session).filter(pk=parse_id(message_id)))
    if not views:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    return views[0]


def get_reply_view(session: ChatSession, run: Run) -> MessageView:
    """The reply of one of the session's runs as it is shown."""
    [view] = show_messages(session, list_messages(session).filter(pk=run.reply_id))
    return view
