"""What is done for a session between its replies, by one process at a time."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from conversations.models import ChatSession, Run, RunStatus, SideCall, TitleSource
from conversations.usage import TokenUsage, add_to_session, price, usage_columns


def begin_upkeep(session_id: UUID, duration: timedelta) -> bool:
    """Take a session's upkeep, unless another process has it for some time yet."""
    free = Q(upkeep_until=None) | Q(upkeep_until__lt=Now())
    sessions = ChatSession.objects.filter(free, pk=session_id, deleted_at=None)
    return bool(sessions.update(upkeep_until=Now() + duration))


def end_upkeep(session_id: UUID) -> None:
    """Leave it to whoever is next."""
    ChatSession.objects.filter(pk=session_id).update(upkeep_until=None)


@transaction.atomic
def add_side_call(
    session_id: UUID, purpose: SideCall.Purpose, model: str, usage: TokenUsage
) -> None:
    """Keep what a call of the model has used, whatever became of its answer."""
    call = SideCall.objects.create(
        session_id=session_id,
        purpose=purpose,
        model=model[:200],
        **usage_columns(usage, price(usage, model)),
    )
    add_to_session(session_id, [call])


@dataclass(frozen=True)
class FirstWords:
    """What a title is made of."""

    asked: str
    replied: str


def read_untitled(run_id: UUID) -> FirstWords | None:
    """What was said in a run that is complete, if its session has no title but first words."""
    asked = SideCall.objects.filter(purpose=SideCall.Purpose.TITLE).values("session")
    runs = Run.objects.filter(
        pk=run_id, status=RunStatus.COMPLETED, session__title_source=TitleSource.WORDS
    )
    run = runs.exclude(session__in=asked).select_related("prompt", "reply").first()
    return FirstWords(run.prompt.text, run.reply.text) if run else None
