"""What the owner of a session thinks of its replies."""

from django.db import transaction
from django.db.models import QuerySet

from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import ChatSession, Feedback, Message, Role
from conversations.notify import FeedbackChanged, announce_unnumbered
from conversations.queries import User, get_session, parse_id
from conversations.text import clean_text


def list_feedback(*, user: User, session_id: str) -> QuerySet[Feedback]:
    """The user's own in one session; raises `AgentSiteError(not_found)`."""
    session = get_session(user, session_id)
    given = Feedback.objects.filter(user_id=session.owner_id, message__session=session)
    return given.order_by("pk")


@transaction.atomic
def give_feedback(
    *, user: User, session_id: str, message_id: str, value: str, comment: str = ""
) -> Feedback:
    """Keep the user's verdict on a reply, in place of an earlier one; raises `AgentSiteError`."""
    session = get_session(user, session_id)
    given, _ = Feedback.objects.update_or_create(
        message=_get_reply(session, message_id),
        user_id=session.owner_id,
        defaults={"value": value, "comment": clean_text(comment)},
    )
    announce_unnumbered(session, FeedbackChanged(given.message_id, given.value))
    return given


@transaction.atomic
def take_feedback_back(*, user: User, session_id: str, message_id: str) -> None:
    """Forget the user's verdict, if there is one; raises `AgentSiteError(not_found)`."""
    session = get_session(user, session_id)
    reply = _get_reply(session, message_id)
    Feedback.objects.filter(message=reply, user_id=session.owner_id).delete()
    announce_unnumbered(session, FeedbackChanged(reply.pk, None))


def _get_reply(session: ChatSession, message_id: str) -> Message:
    replies = session.messages.filter(role=Role.ASSISTANT)
    reply = replies.filter(pk=parse_id(message_id)).first()
    if reply is None:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    return reply
