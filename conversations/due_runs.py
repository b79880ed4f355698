"""The runs that somebody has to look after."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db.models import Exists, OuterRef, QuerySet, TextField
from django.db.models.functions import Cast, Now

from conversations.models import ACTIVE, Approval, Run, RunStatus


def list_cancelled(run_ids: Iterable[UUID]) -> list[UUID]:
    """Those of `run_ids` that have been asked to stop."""
    runs = Run.objects.filter(pk__in=list(run_ids), cancel_requested_at__isnull=False)
    return list(runs.values_list("pk", flat=True))


def list_orphans() -> list[UUID]:
    """Runs whose lease has expired, by the database's clock."""
    runs = Run.objects.filter(status=RunStatus.RUNNING, lease_until__lt=Now())
    return list(runs.values_list("pk", flat=True)[:500])


def list_expired() -> list[UUID]:
    """Runs that have awaited input for too long, by the database's clock."""
    late = Approval.objects.filter(
        decision="", expires_at__lt=Now(), run__status=RunStatus.AWAITING_INPUT
    )
    return list(late.values_list("run_id", flat=True).distinct()[:500])


def list_forgotten(age: timedelta) -> list[UUID]:
    """Claimable runs that have been queued for longer than `age`."""
    runs = _claimable_runs().filter(queued_at__lt=Now() - age)
    return list(runs.values_list("pk", flat=True)[:500])


def list_undelivered(age: timedelta) -> list[Run]:
    """`list_forgotten` without the runs that a job of Procrastinate's tables waits for."""
    # Not always installed: its tables are Postgres' alone.
    job: Any = apps.get_registered_model("procrastinate", "ProcrastinateJob")
    jobs = job.objects.filter(status="todo", queueing_lock=Cast(OuterRef("pk"), TextField()))
    runs = _claimable_runs().filter(queued_at__lt=Now() - age).exclude(Exists(jobs))
    return list(runs.order_by("queued_at").only("owner")[:500])


def get_agent(run_id: UUID) -> str:
    """The name of a run's agent, "" for the default one or a run that is not there any more."""
    return Run.objects.filter(pk=run_id).values_list("agent", flat=True).first() or ""


def _claimable_runs() -> QuerySet[Run]:
    """Queued runs that are the first unfinished ones of their sessions."""
    earlier = Run.objects.filter(session=OuterRef("session"), status__in=ACTIVE).filter(
        number__lt=OuterRef("number")
    )
    return Run.objects.filter(status=RunStatus.QUEUED).exclude(Exists(earlier))


def list_unwatched(grace: timedelta) -> list[UUID]:
    """Running runs of sessions whose last viewer left longer than `grace` ago."""
    runs = Run.objects.filter(
        status=RunStatus.RUNNING,
        cancel_requested_at=None,
        session__viewed_until__lt=Now() - grace,
    )
    return list(runs.values_list("pk", flat=True)[:500])
