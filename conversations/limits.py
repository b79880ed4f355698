"""What one user may have at work at once, and use in a day."""

from dataclasses import dataclass
from datetime import timedelta

from django.contrib.auth import get_user_model
from django.db.models import Count, F, Min, Q, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import Run, RunStatus
from conversations.shapes import UserId

DAY = timedelta(days=1)


@dataclass(frozen=True)
class ChatLimits:
    """`queue_max` is of a session, the others are of a user; None is no limit."""

    queue_max: int = 10
    runs: int | None = None
    tokens_a_day: int | None = None


def check_user(user_id: UserId, limits: ChatLimits, *, starts: bool) -> None:
    """Whether a user may ask once more; `starts` tells that the reply would begin at once.

    The user's row stays locked until the transaction ends, so that two chats cannot both take the
    last place. Raises `AgentSiteError`: limit_runs, limit_tokens, not_authenticated (it is gone).
    """
    users = get_user_model()._default_manager.select_for_update(no_key=True)
    if not users.filter(pk=user_id).values_list("pk").first():  # type: ignore[misc]
        raise AgentSiteError(ErrorCode.NOT_AUTHENTICATED)
    now = timezone.now()
    tokens = Coalesce(F("input_tokens"), 0) + Coalesce(F("output_tokens"), 0)
    at_work = Q(status__in=(RunStatus.QUEUED, RunStatus.RUNNING))
    theirs = Run.objects.filter(owner_id=user_id)  # type: ignore[misc]
    today = theirs.filter(created_at__gt=now - DAY)
    used = today.aggregate(
        tokens=Sum(tokens),
        sessions=Count("session", filter=at_work, distinct=True),
        oldest=Min("created_at", filter=Q(input_tokens__gt=0)),
    )
    if starts and limits.runs is not None and used["sessions"] >= limits.runs:
        raise AgentSiteError(ErrorCode.LIMIT_RUNS)
    if limits.tokens_a_day is not None and (used["tokens"] or 0) >= limits.tokens_a_day:
        free_at = (used["oldest"] or now) + DAY
        raise AgentSiteError(
            ErrorCode.LIMIT_TOKENS, retry_after=round((free_at - now).total_seconds())
        )
