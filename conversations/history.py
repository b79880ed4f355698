"""What a page of a conversation opens with."""

from uuid import UUID

from conversations.branches import list_below
from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import ChatSession, Message
from conversations.queries import (
    list_path,
    list_unfinished,
    load_messages,
    parse_id,
    reply_run,
)
from conversations.shapes import History, MessageView, message_view, queue_view, run_view
from conversations.snapshots import Snapshot, read_snapshot


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


def _show(message: Message, shown: Snapshot | None) -> MessageView:
    run = reply_run(message)
    if run is not None and shown is not None and run.pk == shown.run.pk:
        return message_view(message, run=shown.run, parts=shown.parts)
    return message_view(message, run=run)
