"""What staff do about sessions: assign, label, note, mark as reviewed."""

from collections.abc import Iterator, Sequence
from uuid import UUID

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from conversations import audit
from conversations.models import ChatSession
from conversations.review_models import AuditAction, Label, Review

Staff = AbstractBaseUser | AnonymousUser

STEP = 250
"""Sessions that one transaction writes about: a review and an entry of the log for each."""

LEFT = Q(review__reviewed_at=None) | Q(review__reviewed_at__lt=F("active_at"))
"""Not reviewed, or not since something was said."""


def list_staff() -> QuerySet[AbstractBaseUser]:
    """Whom a review can be assigned to."""
    model = get_user_model()
    staff = model._default_manager.filter(is_staff=True, is_active=True)
    return staff.order_by(model.USERNAME_FIELD)


def list_labels() -> QuerySet[Label]:
    return Label.objects.all()


def get_review(session: ChatSession) -> Review:
    """The session's review, which is not kept before something is in it."""
    return Review.objects.filter(session=session).first() or Review(session=session)


class ReviewChangedError(Exception):
    """Somebody else has saved the review since it was shown."""


def version_of(review: Review) -> str:
    """What tells a saved review from a later one; "" for one that was never saved."""
    return review.changed_at.isoformat() if review.changed_at else ""


def is_up_to_date(review: Review) -> bool:
    """Whether all that was said in the session is reviewed."""
    return review.reviewed_at is not None and review.reviewed_at >= review.session.active_at


@transaction.atomic
def save_review(
    *,
    staff: Staff,
    review: Review,
    labels: Sequence[Label],
    mark: bool | None,
    version: str,
) -> Review:
    """Keep what was filled in.

    `mark` is whether the session is to be reviewed from now on, None to leave that as it is: who
    adds a note has reviewed nothing. `version` is that of the review which was shown. Raises
    `ReviewChangedError`.
    """
    # Two who save the first review have no row of it to wait for.
    ChatSession.objects.select_for_update().filter(pk=review.session_id).first()
    before = Review.objects.filter(session=review.session_id).first()
    if version != (version_of(before) if before else ""):
        raise ReviewChangedError
    if mark is not None:
        review.reviewed_at = timezone.now() if mark else None
        review.reviewed_by_id = staff.pk if mark else None
    review.save()
    review.labels.set(labels)
    names = [label.name for label in labels]
    told = {} if mark is None else {"reviewed": mark}
    audit.record(staff, AuditAction.REVIEWED, review.session_id, labels=names, **told)
    if review.assignee_id != (before.assignee_id if before else None):
        audit.record(staff, AuditAction.ASSIGNED, review.session_id, to=review.assignee_id)
    return review


def assign(*, staff: Staff, session_ids: Sequence[UUID], assignee: Staff) -> None:
    """Give these sessions to `assignee`; what was reviewed stays so.

    In several transactions: each holds up everybody else who writes to SQLite.
    """
    for ids in _steps(session_ids):
        rows = [Review(session_id=pk, assignee_id=assignee.pk) for pk in ids]
        with transaction.atomic():
            _save_each(rows, ["assignee"])
            audit.record_each(staff, AuditAction.ASSIGNED, ids, to=assignee.pk)


def mark_reviewed(*, staff: Staff, session_ids: Sequence[UUID]) -> None:
    """As if each had been opened and ticked; labels and notes stay. In steps, as `assign`."""
    now = timezone.now()
    for ids in _steps(session_ids):
        rows = [Review(session_id=pk, reviewed_at=now, reviewed_by_id=staff.pk) for pk in ids]
        with transaction.atomic():
            _save_each(rows, ["reviewed_at", "reviewed_by"])
            audit.record_each(staff, AuditAction.REVIEWED, ids, reviewed=True)


def _steps(session_ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    for start in range(0, len(session_ids), STEP):
        yield session_ids[start : start + STEP]


def _save_each(rows: Sequence[Review], fields: Sequence[str]) -> None:
    Review.objects.bulk_create(
        rows, update_conflicts=True, unique_fields=["session"], update_fields=fields
    )
