"""What stands in for the beginning of a conversation, when it is too long for its model."""

from dataclasses import replace
from uuid import UUID

from django.db import transaction

from conversations.changes import ChangeBuilder, lock_session
from conversations.models import ChatSession, Message, Summary
from conversations.notify import MessageChanged
from conversations.shapes import message_view


@transaction.atomic
def save_summary(session_id: UUID, message_id: UUID, text: str, model: str) -> None:
    """Let `text` stand for all down to a reply, and show that there; the first one stays."""
    session = lock_session(ChatSession.objects.all(), session_id, is_activity=False)
    if Summary.objects.filter(message_id=message_id).exists():
        return
    message = Message.objects.select_related("run").get(pk=message_id, session=session)
    message.rev = session.rev
    message.save(update_fields=["rev"])
    message.summary = Summary.objects.create(message=message, text=text, model=model)
    change = ChangeBuilder(session)
    view = replace(message_view(message, run=message.run), parts=None)
    change.add(MessageChanged(view, created=False))
    change.announce(None)
