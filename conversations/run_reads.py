"""Reads of the replies of a session that its reader was let into."""

from django.db.models import QuerySet

from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import ChatSession, Run, RunEvent
from conversations.queries import parse_id


def runs_of(session: ChatSession) -> QuerySet[Run]:
    """All replies of the session."""
    return Run.objects.filter(session=session)


def get_run_of(session: ChatSession, run_id: str) -> Run:
    """One of them; raises `AgentSiteError(not_found)`."""
    run = runs_of(session).filter(pk=parse_id(run_id)).first()
    if run is None:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    return run


def list_events(run: Run, *, after: int, limit: int) -> list[RunEvent]:
    """The events of the run's epoch behind `after`, up to what its row says."""
    rows = RunEvent.objects.filter(
        run_id=run.pk, epoch=run.epoch, seq__gt=after, seq__lte=run.last_seq
    )
    return list(rows.order_by("seq")[:limit])
