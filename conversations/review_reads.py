"""What staff see of everybody's sessions; whoever calls has asked for their permission."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from operator import or_
from typing import Any
from uuid import UUID

from django.db.models import Count, Exists, F, Max, OuterRef, Q, QuerySet, Sum
from django.utils import timezone

from conversations.branches import list_places
from conversations.drawing import Drawing, draw
from conversations.message_reads import show_messages
from conversations.models import ChatSession, Feedback, Message, Run, Verdict
from conversations.moments import Seconds
from conversations.queries import list_path, load_messages, reply_run
from conversations.reply_html import read_html, show_parts
from conversations.shapes import MessageView
from conversations.timeline import read_timelines

PAGE = 40
RECENT = 2_000
SOME = 2_000
SAMPLE = 500
FREQUENT = 20
EVERYTHING = 1_000_000_000


@dataclass(frozen=True)
class SessionFacts:
    """What a list tells of a session's runs; times in seconds, of the slowest."""

    status: str = ""
    error_code: str = ""
    model: str = ""
    tokens: int | None = None
    cost: Decimal | None = None
    first_token_s: float | None = None
    good: int = 0
    bad: int = 0


def read_facts(sessions: Sequence[ChatSession]) -> dict[UUID, SessionFacts]:
    """By session id, in three queries for all of them."""
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
    """The last run of each, by its number: a planner that had to join would read all sessions."""
    places = (Q(session=session.pk, number=session.run_count) for session in sessions)
    return Run.objects.filter(reduce(or_, places, Q(pk__in=[])))


def _count_verdicts(sessions: Sequence[ChatSession]) -> Counter[tuple[UUID, str]]:
    """How often each verdict was given in each session."""
    given = Feedback.objects.filter(message__session__in=[session.pk for session in sessions])
    rows = given.values_list("message__session_id", "value").annotate(Count("pk"))
    return Counter({(session_id, value): count for session_id, value, count in rows})


def sessions_judged(value: str) -> QuerySet[Any]:
    """The ids of sessions with a reply that somebody judged so."""
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
    """Those of `sessions` with one run for which all of `condition` holds.

    Where many sessions have such a run, the next one is found soon by going through all in turn;
    otherwise the sessions of all such runs are collected first.
    """
    runs = Run.objects.filter(condition).order_by().values_list("session_id", flat=True)
    some = list(runs[:SOME])
    if len(some) < SOME:
        return sessions.filter(pk__in=set(some))
    if _is_frequent(condition):
        return sessions.filter(Exists(Run.objects.filter(condition, session=OuterRef("pk"))))
    # With a limit, no planner mixes this with what is around it.
    return sessions.filter(pk__in=runs[:EVERYTHING])


def _is_frequent(condition: Q) -> bool:
    """Whether one in `FREQUENT` of the sessions that were active last has such a run."""
    latest = ChatSession.objects.order_by("-active_at", "-id").values_list("pk", flat=True)[:SAMPLE]
    having = Run.objects.filter(condition, session__in=list(latest)).values("session").distinct()
    return having.count() * FREQUENT >= SAMPLE


def recent_values(column: str) -> list[str]:
    """What the column of the newest runs holds, for a filter's choices."""
    rows = Run.objects.order_by("-created_at", "-id").values_list(column, flat=True)[:RECENT]
    return sorted({value for value in rows if value})


@dataclass(frozen=True)
class Shown:
    """A message of a session page, with its run's picture where it is a reply.

    `parts` are the view's, the texts of a reply with their `html`. `others` are the ids of messages
    at the same place in other branches.
    """

    view: MessageView
    parts: list[dict[str, Any]]
    run: Run | None
    drawing: Drawing | None
    others: list[UUID]
    feedback: list[Feedback]


@dataclass(frozen=True)
class SessionPage:
    """Some messages of one branch; `earlier` is the message to go on from, upwards."""

    messages: list[Shown]
    earlier: UUID | None


def read_session_page(session: ChatSession, until: UUID | None = None) -> SessionPage:
    """The last messages of the active branch, or of the one that `until` is on."""
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
    return Message.objects.filter(pk=message_id, session=session).exists()


def find_run(session: ChatSession, run_id: UUID) -> Run | None:
    """A run of the session with its reply."""
    return Run.objects.select_related("reply").filter(pk=run_id, session=session).first()
