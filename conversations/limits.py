"""What one user may have at work at once, and what a user and the site may use in a day."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connection
from django.db.models import QuerySet, Sum
from django.utils import timezone

from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import Guest, Run, SiteUsage, UserUsage
from conversations.shapes import UserId
from conversations.usage import SLOT, find_slot

DAY = timedelta(days=1)

# The statuses stand in the text as in the condition of the index `runs_at_work`: SQLite uses a
# partial index only where it can see that the condition holds.
COUNT_AT_WORK = """
    SELECT COUNT(*) FROM (
        SELECT DISTINCT session_id FROM conversations_run
        WHERE owner_id = %s AND status IN ('queued', 'running') LIMIT %s
    ) AS at_work
"""


@dataclass(frozen=True)
class ChatLimits:
    """`queue_max` is of a session, `site_tokens_a_day` of all users, the others are of a user.

    A guest has `guest_tokens_a_day`. None is no limit.
    """

    queue_max: int = 10
    runs: int | None = None
    tokens_a_day: int | None = None
    guest_tokens_a_day: int | None = None
    site_tokens_a_day: int | None = None


def check_user(user_id: UserId, limits: ChatLimits, *, starts: bool) -> None:
    """Whether a user may ask once more; `starts` tells that the reply would begin at once.

    The user's row stays locked until the transaction ends, so that two chats cannot both take the
    last place. Reads no row of an ended run: the cost does not depend on how many there are.
    Raises `AgentSiteError`: limit_runs, limit_tokens, limit_site, not_authenticated (it is gone).
    """
    users = get_user_model()._default_manager.select_for_update(no_key=True)
    if not users.filter(pk=user_id).values_list("pk").first():  # type: ignore[misc]
        raise AgentSiteError(ErrorCode.NOT_AUTHENTICATED)
    if starts and limits.runs is not None and count_at_work(user_id, limits.runs) >= limits.runs:
        raise AgentSiteError(ErrorCode.LIMIT_RUNS)
    check_budget(user_id, limits)


def check_budget(user_id: UserId, limits: ChatLimits) -> None:
    """Whether a model may be called for a user; raises `AgentSiteError`: limit_tokens, limit_site.

    What runs of other processes have spent is in the database after each of their model calls.
    """
    own = limits.tokens_a_day
    guests = Guest.objects.filter(pk=user_id)  # type: ignore[misc]
    if limits.guest_tokens_a_day is not None and guests.exists():
        own = limits.guest_tokens_a_day
    if own is not None:
        _check_tokens(UserUsage.objects.filter(user_id=user_id), own, ErrorCode.LIMIT_TOKENS)  # type: ignore[misc]
    if limits.site_tokens_a_day is not None:
        _check_tokens(SiteUsage.objects.all(), limits.site_tokens_a_day, ErrorCode.LIMIT_SITE)


def count_at_work(user_id: UserId, most: int) -> int:
    """In how many sessions of the user something is queued or running, up to `most`."""
    owner = Run._meta.get_field("owner").get_db_prep_value(user_id, connection)
    with connection.cursor() as cursor:
        cursor.execute(COUNT_AT_WORK, [owner, most])
        [count] = cursor.fetchone()
    return int(count)


def _check_tokens(usage: QuerySet[Any], limit: int, code: ErrorCode) -> None:
    now = timezone.now()
    # A slot counts until its last moment is a day ago, so that no 24 hours ever exceed the limit.
    counted = usage.filter(slot__gte=find_slot(now - DAY))
    used = counted.aggregate(tokens=Sum("tokens"))["tokens"] or 0
    if used < limit:
        return
    slots = counted.order_by("slot").values_list("slot", "tokens")
    free_at = _find_free_slot(slots, used - limit, find_slot(now)) * SLOT.total_seconds()
    wait = datetime.fromtimestamp(free_at, UTC) + DAY - now
    raise AgentSiteError(code, retry_after=round(wait.total_seconds()))


def _find_free_slot(slots: Iterable[tuple[int, int]], excess: int, present: int) -> int:
    """The slot with whose beginning, a day later, less than the limit is left.

    `excess` is by how much the limit is exceeded, `slots` are oldest first.
    """
    for slot, tokens in slots:
        excess -= tokens
        if excess < 0:
            return slot + 1
    return present + 1
