"""Computes the figures of a period in the database, and renders the page that plots them.

Days are days in UTC. Percentiles come from counts of times that are rounded up: to 10 ms below 1 s,
to 100 ms below 10 s, and to 1 s above.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.db.models import CharField, Count, F, FloatField, Func, Q, QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.translation import gettext as _

from conversations.models import ChatSession, Feedback, Run, RunStatus, SideCall, Verdict
from conversations.review.drawing import Plot, Series, plot_bars, plot_lines


class Seconds(Func):
    """The seconds from the second argument to the first, as a float."""

    output_field = FloatField()
    arity = 2

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template, joiner = "((julianday(%(expressions)s)) * 86400.0)", ") - julianday("
        return self.as_sql(compiler, connection, template=template, arg_joiner=joiner, **context)

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template, joiner = "extract(epoch FROM (%(expressions)s))", " - "
        return self.as_sql(compiler, connection, template=template, arg_joiner=joiner, **context)


class Day(Func):
    """The UTC day of a moment as `2026-01-31`.

    Django's own function for it calls Python once per row on SQLite.
    """

    output_field = CharField()
    template = "substr(%(expressions)s, 1, 10)"

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "to_char(%(expressions)s AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
        return self.as_sql(compiler, connection, template=template, **context)


class RoundedUp(Func):
    """Seconds as milliseconds, rounded up to few distinct values; negative values become 0.

    The result is the next higher multiple of 10 ms below 1 s, of 100 ms below 10 s, else of 1 s;
    an exact multiple is raised too.
    """

    output_field = FloatField()
    arity = 1

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> Any:  # type: ignore[override]
        seconds, params = compiler.compile(self.source_expressions[0])
        whole = "floor({})" if connection.vendor == "postgresql" else "CAST({} AS int)"
        ten, hundred, thousand = (
            f"({whole.format(f'{seconds} * {1000 / step}')} + 1) * {step}"
            for step in (10, 100, 1000)
        )
        sql = (
            f"CASE WHEN {seconds} <= 0 THEN 0 WHEN {seconds} < 1 THEN {ten}"
            f" WHEN {seconds} < 10 THEN {hundred} ELSE {thousand} END"
        )
        return sql, [*params] * 6


@dataclass
class DayFigures:
    """The figures of what began on one day: sessions, replies, ratings, titles and summaries.

    `failed` replies are among `replies`. `tokens` are input and output of replies, titles and
    summaries whose counts are known; `cost`, of the same, is None if nothing had a price.
    `first_token` and `stop` map a rounded time in milliseconds, to the first token or from the
    request to stop until stopped, to the number of replies that took it. `errors` counts replies by
    error code, `good` and `bad` count ratings.
    """

    sessions: int = 0
    replies: int = 0
    failed: int = 0
    tokens: int = 0
    cost: Decimal | None = None
    first_token: Counter[float] = field(default_factory=Counter)
    stop: Counter[float] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    good: int = 0
    bad: int = 0


@dataclass
class ErrorShare:
    """The figures of one agent, or of titles or summaries, with one model in the whole period.

    For titles and summaries `agent` is their name for people, and `replies` and `failed` are 0.
    `failed` replies are among `replies`. `cost` is None if nothing had a price.
    """

    agent: str
    model: str
    replies: int = 0
    failed: int = 0
    tokens: int = 0
    cost: Decimal | None = None


@dataclass(frozen=True)
class Figures:
    """The figures of all days of a period in order, including days without activity.

    `days` maps UTC days such as `2026-01-31` to their figures. `shares` has the agents with the
    most replies first, then titles and summaries.
    """

    days: dict[str, DayFigures]
    shares: list[ErrorShare]

    def column(self, name: str) -> list[Any]:
        """Return the attribute `name` of each day's `DayFigures`, in order."""
        return [getattr(day, name) for day in self.days.values()]

    @property
    def errors(self) -> list[tuple[str, int]]:
        """The number of occurrences of each error code, the most frequent first."""
        return sum((day.errors for day in self.days.values()), Counter()).most_common()


def percentile(counts: Counter[float], share: float) -> float | None:
    """Return the smallest counted time that `share` (0 to 1) of the times do not exceed.

    Returns None if nothing was counted.
    """
    left = share * counts.total()
    for value in sorted(counts):
        left -= counts[value]
        if left <= 1e-9:
            return value
    return None


def read_figures(days: int, now: datetime | None = None) -> Figures:
    """Compute the figures of `days` UTC days, of which the day of `now` is the last.

    `now` is by default the present time. All of its day counts; if it is in the past, `shares`
    count later days too.
    """
    today = (now or timezone.now()).astimezone(UTC).date()
    first = today - timedelta(days=days - 1)
    start = datetime.combine(first, time(), tzinfo=UTC)
    found = {(first + timedelta(days=n)).isoformat(): DayFigures() for n in range(days)}
    runs = Run.objects.filter(created_at__gte=start)
    figures = Figures(found, [])
    _count_sessions(found, start)
    _count_runs(figures, runs)
    _count_side_calls(figures, start)
    _count_times(found, "first_token", _read_times(runs, "created_at", "first_token_at"))
    stopped = runs.filter(status=RunStatus.CANCELLED)
    _count_times(found, "stop", _read_times(stopped, "cancel_requested_at", "stopped_at"))
    _count_errors(found, runs)
    _count_feedback(found, start)
    return figures


def _count_sessions(days: dict[str, DayFigures], start: datetime) -> None:
    sessions = ChatSession.objects.filter(created_at__gte=start).annotate(day=Day("created_at"))
    for day, count in sessions.order_by().values_list("day").annotate(Count("pk")):
        if day in days:
            days[day].sessions = count


def _count_runs(figures: Figures, runs: QuerySet[Run]) -> None:
    shares: dict[tuple[str, str], ErrorShare] = {}
    rows = runs.annotate(day=Day("created_at")).order_by().values("day", "agent", "model")
    for row in rows.annotate(
        replies=Count("pk"),
        failed=Count("pk", filter=Q(status=RunStatus.FAILED)),
        tokens=Sum(F("input_tokens") + F("output_tokens")),
        sum=Sum("cost"),
    ):
        key = row["agent"], row["model"]
        share = shares.setdefault(key, ErrorShare(*key))
        for target in (share, figures.days.get(row["day"])):
            if target is not None:
                target.replies += row["replies"]
                target.failed += row["failed"]
                _add(target, row)
    figures.shares.extend(sorted(shares.values(), key=lambda share: -share.replies))


def _count_side_calls(figures: Figures, start: datetime) -> None:
    """Add the tokens and cost of titles and summaries, with the purpose in place of an agent."""
    shares: dict[tuple[str, str], ErrorShare] = {}
    calls = SideCall.objects.filter(created_at__gte=start).annotate(day=Day("created_at"))
    for row in (
        calls.order_by()
        .values("day", "purpose", "model")
        .annotate(tokens=Sum(F("input_tokens") + F("output_tokens")), sum=Sum("cost"))
    ):
        key = str(SideCall.Purpose(row["purpose"]).label), row["model"]
        share = shares.setdefault(key, ErrorShare(*key))
        for target in (share, figures.days.get(row["day"])):
            if target is not None:
                _add(target, row)
    figures.shares.extend(shares[key] for key in sorted(shares))


def _add(target: DayFigures | ErrorShare, row: Any) -> None:
    target.tokens += row["tokens"] or 0
    if row["sum"] is not None:
        target.cost = (target.cost or Decimal(0)) + row["sum"]


def _read_times(runs: QuerySet[Run], start: str, end: str) -> Iterable[tuple[str, float, int]]:
    rows = runs.filter(**{f"{start}__isnull": False, f"{end}__isnull": False})
    rows = rows.annotate(day=Day("created_at"), ms=RoundedUp(Seconds(end, start))).order_by()
    return rows.values_list("day", "ms").annotate(Count("pk"))


def _count_times(
    days: dict[str, DayFigures], name: str, rows: Iterable[tuple[str, float, int]]
) -> None:
    for day, ms, count in rows:
        if day in days:
            getattr(days[day], name)[float(ms)] += count


def _count_errors(days: dict[str, DayFigures], runs: QuerySet[Run]) -> None:
    rows = runs.exclude(error_code="").annotate(day=Day("created_at")).order_by()
    for day, code, count in rows.values_list("day", "error_code").annotate(Count("pk")):
        if day in days:
            days[day].errors[code] += count


def _count_feedback(days: dict[str, DayFigures], start: datetime) -> None:
    given = Feedback.objects.filter(created_at__gte=start).annotate(day=Day("created_at"))
    for day, value, count in given.values_list("day", "value").annotate(Count("pk")):
        if day in days:
            setattr(days[day], "good" if value == Verdict.UP else "bad", count)


SEE = "conversations.see_figures"
PERIODS = (7, 30, 90)


def figures_view(request: HttpRequest, site: AdminSite) -> HttpResponse:
    """Render the page of figures for the last `?days=`, one of `PERIODS`, else 30.

    Raises `PermissionDenied` for users without the permission `SEE`.
    """
    if not request.user.has_perm(SEE):
        raise PermissionDenied
    asked = request.GET.get("days", "")
    days = int(asked) if asked in map(str, PERIODS) else 30
    figures = read_figures(days)
    context = {
        **site.each_context(request),
        "title": _("Figures"),
        "days": days,
        "periods": PERIODS,
        "plots": list_plots(figures),
        "figures": figures,
    }
    return TemplateResponse(request, "admin/conversations/figures.html", context)


def list_plots(figures: Figures) -> list[Plot]:
    """Return the plots of the page of figures, in its order, with texts in the current language."""
    days = list(figures.days)

    def bars(title: str, unit: str, *series: Series) -> Plot:
        return plot_bars(title, unit, days, series)

    sessions, tokens = figures.column("sessions"), figures.column("tokens")
    costs = [None if cost is None else float(cost) for cost in figures.column("cost")]
    replies, failed = figures.column("replies"), figures.column("failed")
    well = [all_ - bad for all_, bad in zip(replies, failed, strict=True)]
    return [
        bars(_("Sessions begun"), _("sessions a day"), Series("calm", _("sessions"), sessions)),
        bars(
            _("Replies"),
            _("replies a day"),
            Series("calm", _("not failed"), well),
            Series("bad", _("failed"), failed),
        ),
        bars(_("Tokens"), _("tokens a day, in and out"), Series("calm", _("tokens"), tokens)),
        bars(
            _("Cost"),
            _("a day, in the currency of the price list"),
            Series("calm", _("cost"), costs),
        ),
        _times(_("Wait for the first token"), figures, "first_token"),
        _times(_("From asking to stop until stopped"), figures, "stop"),
        bars(
            _("Feedback"),
            _("verdicts a day"),
            Series("good", _("good"), figures.column("good")),
            Series("bad", _("bad"), figures.column("bad")),
        ),
    ]


def _times(title: str, figures: Figures, name: str) -> Plot:
    counts = figures.column(name)
    series = [
        Series("calm", _("half of them within"), [percentile(day, 0.5) for day in counts]),
        Series("warn", _("95 of 100 within"), [percentile(day, 0.95) for day in counts]),
    ]
    return plot_lines(title, _("milliseconds"), list(figures.days), series)
