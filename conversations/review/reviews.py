"""Reads sessions for staff, and saves reviews, labels and notes."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from operator import or_
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.db.models import Count, Exists, F, Max, OuterRef, Q, QuerySet, Sum
from django.utils import timezone

from conversations.models import (
    AuditAction,
    ChatSession,
    Feedback,
    Label,
    Message,
    Review,
    Run,
    Verdict,
)
from conversations.people import accounts
from conversations.queries import list_path, load_messages, reply_run
from conversations.review.drawing import Drawing, draw
from conversations.review.figures import Seconds
from conversations.review.timeline import read_timelines
from conversations.sessions.history import list_places, show_messages
from conversations.sessions.rendering import read_html, show_parts
from conversations.shapes import MessageView

Staff = AbstractBaseUser | AnonymousUser

STEP = 250
"""Sessions per transaction; each gets a review and an entry in the audit log."""

LEFT = Q(review__reviewed_at=None) | Q(review__reviewed_at__lt=F("active_at"))
"""Not reviewed, or active again since the review."""


def list_staff() -> QuerySet[AbstractBaseUser]:
    """Return the users to whom a review can be assigned: all active staff, by user name."""
    model = get_user_model()
    staff = model._default_manager.filter(is_staff=True, is_active=True)
    return staff.order_by(model.USERNAME_FIELD)


def list_labels() -> QuerySet[Label]:
    """Return all labels, by name."""
    return Label.objects.all()


def get_review(session: ChatSession) -> Review:
    """Return the session's review; if it has none, a new one that is not saved yet."""
    return Review.objects.filter(session=session).first() or Review(session=session)


class ReviewChangedError(Exception):
    """The review was saved after it was shown, by somebody else or from another form."""


def version_of(review: Review) -> str:
    """Return a text that changes with each saving of the review; "" if it was never saved."""
    return review.changed_at.isoformat() if review.changed_at else ""


def is_up_to_date(review: Review) -> bool:
    """Return whether the review's session was reviewed and has not been active since."""
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
    """Save `review` with exactly these `labels`, record it in the audit log, and return it.

    `mark` sets whether the session is reviewed; None leaves that unchanged, because adding a note
    does not review anything. `version` is `version_of` the review that was shown. Raises
    `ReviewChangedError`, and saves nothing, if that of the stored review differs. A changed
    assignee gets an entry of its own in the audit log. Locks the session.
    """
    # Lock the session's row: before the first save, the review has no row that could be locked.
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
    accounts.record(staff, AuditAction.REVIEWED, review.session_id, labels=names, **told)
    if review.assignee_id != (before.assignee_id if before else None):
        accounts.record(staff, AuditAction.ASSIGNED, review.session_id, to=review.assignee_id)
    return review


def assign(*, staff: Staff, session_ids: Sequence[UUID], assignee: Staff) -> None:
    """Assign these sessions, which must exist, to `assignee`; record each in the audit log.

    Creates the reviews that do not exist; labels, notes and whether a session is reviewed stay.
    Commits every `STEP` sessions, because a transaction blocks all other writers on SQLite.
    """
    for ids in _steps(session_ids):
        rows = [Review(session_id=pk, assignee_id=assignee.pk) for pk in ids]
        with transaction.atomic():
            _save_each(rows, ["assignee"])
            accounts.record_each(staff, AuditAction.ASSIGNED, ids, to=assignee.pk)


def mark_reviewed(*, staff: Staff, session_ids: Sequence[UUID]) -> None:
    """Mark these sessions, which must exist, as reviewed by `staff` now.

    Records each in the audit log. Creates the reviews that do not exist; labels, notes and
    assignees stay. Commits every `STEP` sessions.
    """
    now = timezone.now()
    for ids in _steps(session_ids):
        rows = [Review(session_id=pk, reviewed_at=now, reviewed_by_id=staff.pk) for pk in ids]
        with transaction.atomic():
            _save_each(rows, ["reviewed_at", "reviewed_by"])
            accounts.record_each(staff, AuditAction.REVIEWED, ids, reviewed=True)


def _steps(session_ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    for start in range(0, len(session_ids), STEP):
        yield session_ids[start : start + STEP]


def _save_each(rows: Sequence[Review], fields: Sequence[str]) -> None:
    # With `changed_at`, so that a form that shows an older review is not saved over this.
    Review.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["session"],
        update_fields=[*fields, "changed_at"],
    )


PAGE = 40
RECENT = 2_000
SOME = 2_000
SAMPLE = 500
FREQUENT = 20
EVERYTHING = 1_000_000_000


@dataclass(frozen=True)
class SessionFacts:
    """The facts about a session that lists show.

    Status, error code and model are those of the latest run; "" without one. `tokens`, input and
    output, and `cost` are sums over all runs, without titles and summaries; None if no run's is
    known. `first_token_s` is the longest wait for a first token, in seconds; None if no run has had
    one. `good` and `bad` count ratings.
    """

    status: str = ""
    error_code: str = ""
    model: str = ""
    tokens: int | None = None
    cost: Decimal | None = None
    first_token_s: float | None = None
    good: int = 0
    bad: int = 0


def read_facts(sessions: Sequence[ChatSession]) -> dict[UUID, SessionFacts]:
    """Return facts by session id, in three queries in total; sessions without runs are absent."""
    runs = Run.objects.filter(session__in=[session.pk for session in sessions])
    latest = {run.session_id: run for run in _read_latest(sessions)}
    sums = runs.values("session_id").annotate(
        tokens=Sum(F("input_tokens") + F("output_tokens")),
        cost=Sum("cost"),
        slowest=Max(Seconds("first_token_at", "created_at")),
    )
    verdicts = _count_verdicts(sessions)
    return {row["session_id"]: _facts(latest.get(row["session_id"]), row, verdicts) for row in sums}


def _read_latest(sessions: Sequence[ChatSession]) -> QuerySet[Run]:
    """Return the latest run of each session, found by its number.

    With a join instead, the query planner would read all sessions.
    """
    places = (Q(session=session.pk, number=session.run_count) for session in sessions)
    return Run.objects.filter(reduce(or_, places, Q(pk__in=[])))


def _count_verdicts(sessions: Sequence[ChatSession]) -> Counter[tuple[UUID, str]]:
    """Count the ratings of each value in each session."""
    given = Feedback.objects.filter(message__session__in=[session.pk for session in sessions])
    rows = given.values_list("message__session_id", "value").annotate(Count("pk"))
    return Counter({(session_id, value): count for session_id, value, count in rows})


def sessions_judged(value: str) -> QuerySet[Any]:
    """Return a subquery of the ids of sessions in which a reply was rated `value`."""
    return Feedback.objects.filter(value=value).values("message__session_id")


def _facts(
    last: Run | None, sums: Mapping[str, Any], verdicts: Counter[tuple[UUID, str]]
) -> SessionFacts:
    return SessionFacts(
        status=last.status if last else "",
        error_code=last.error_code if last else "",
        model=last.model if last else "",
        tokens=sums["tokens"],
        cost=sums["cost"],
        first_token_s=sums["slowest"],
        good=verdicts[sums["session_id"], Verdict.UP],
        bad=verdicts[sums["session_id"], Verdict.DOWN],
    )


def sessions_with_runs(sessions: QuerySet[ChatSession], condition: Q) -> QuerySet[ChatSession]:
    """Return those of `sessions` that have at least one run for which all of `condition` holds.

    Runs one or three queries at once, to choose the form of the filter that is fast for a condition
    as rare or frequent as this one. If it is rare, runs that are added later do not count.
    """
    runs = Run.objects.filter(condition).order_by().values_list("session_id", flat=True)
    some = list(runs[:SOME])
    if len(some) < SOME:
        return sessions.filter(pk__in=set(some))
    if _is_frequent(condition):
        return sessions.filter(Exists(Run.objects.filter(condition, session=OuterRef("pk"))))
    # The limit keeps the query planner from merging the subquery with the outer query.
    return sessions.filter(pk__in=runs[:EVERYTHING])


def _is_frequent(condition: Q) -> bool:
    """Return whether at least one in `FREQUENT` of the recently active sessions has such a run."""
    latest = ChatSession.objects.order_by("-active_at", "-id").values_list("pk", flat=True)[:SAMPLE]
    having = Run.objects.filter(condition, session__in=list(latest)).values("session").distinct()
    return having.count() * FREQUENT >= SAMPLE


def recent_values(column: str) -> list[str]:
    """Return the distinct values of `column` in the `RECENT` newest runs, sorted, without ""."""
    rows = Run.objects.order_by("-created_at", "-id").values_list(column, flat=True)[:RECENT]
    return sorted({value for value in rows if value})


@dataclass(frozen=True)
class Shown:
    """A message on the page of a session; only a reply has a `run`, and its timeline as `drawing`.

    `parts` are the view's parts, where the text parts of replies have `html`. `others` are the ids
    of the other messages with the same parent. `feedback` has the ratings of the message.
    """

    view: MessageView
    parts: list[dict[str, Any]]
    run: Run | None
    drawing: Drawing | None
    others: list[UUID]
    feedback: list[Feedback]


@dataclass(frozen=True)
class SessionPage:
    """A page of messages of one branch; `earlier` is the id of the message above it, or None."""

    messages: list[Shown]
    earlier: UUID | None


def read_session_page(session: ChatSession, until: UUID | None = None) -> SessionPage:
    """Read the last `PAGE` messages of the active branch, or of the branch that ends with `until`.

    The caller must check that `until` is the id of a message of `session`. Records nothing in the
    audit log.
    """
    leaf = until or session.active_leaf_id
    rows = load_messages(list_path(leaf, PAGE)) if leaf else []
    views = show_messages(rows)
    html = read_html(views)
    runs = {row.pk: run for row in rows if (run := reply_run(row))}
    timelines = read_timelines(runs.values(), timezone.now())
    parents = [row.parent_id for row in rows]
    places = list_places(session, parents, among=Message.objects.all())
    feedback = list(Feedback.objects.filter(message__in=rows).order_by("pk"))
    return SessionPage(
        messages=[
            Shown(
                view=view,
                parts=show_parts(view, html),
                run=runs.get(row.pk),
                drawing=draw(timelines[runs[row.pk].pk]) if row.pk in runs else None,
                others=[pk for pk in places.get(row.parent_id, []) if pk != row.pk],
                feedback=[given for given in feedback if given.message_id == row.pk],
            )
            for row, view in zip(rows, views, strict=True)
        ],
        earlier=rows[0].parent_id if rows else None,
    )


def has_message(session: ChatSession, message_id: UUID) -> bool:
    """Return whether the message belongs to the session."""
    return Message.objects.filter(pk=message_id, session=session).exists()


def find_run(session: ChatSession, run_id: UUID) -> Run | None:
    """Return the run if it belongs to the session, with its reply loaded; else None."""
    return Run.objects.select_related("reply").filter(pk=run_id, session=session).first()
