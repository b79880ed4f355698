"""Usage: the tokens and costs of runs, their running totals, and the limits of users."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.db.models import Model, QuerySet, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import (
    ACTIVE,
    Guest,
    Run,
    SessionUsage,
    SideCall,
    SiteUsage,
    UsageSource,
    UserUsage,
)
from conversations.shapes import UserId
from conversations.text import estimate_items, estimate_text

MILLION = 1_000_000
TOKEN_COLUMNS = ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens")
COST_PLACES = Decimal("0.000001")

COUNTERS = (
    *("runs", *TOKEN_COLUMNS, "estimated", "unknown"),
    *("priced", "unpriced", "cost_micros"),
)
"""Columns of `SessionUsage`; they only ever increase."""

SLOT = timedelta(minutes=10)
"""The precision of when a user's tokens were used: a day is at most 145 rows."""


@dataclass(frozen=True)
class TokenUsage:
    """Tokens of one or more model calls, with the source of the counts; None if not known.

    `cached_input_tokens` are a part of `input_tokens`, `reasoning_tokens` of `output_tokens`.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    source: UsageSource = UsageSource.UNKNOWN


UNKNOWN_USAGE = TokenUsage()
NO_USAGE = TokenUsage(0, 0, 0, 0, UsageSource.MEASURED)
"""The usage of a run that has called no model."""


def add_usage(one: TokenUsage, other: TokenUsage) -> TokenUsage:
    """Return the sum of two usages; a count that is None in one of them is that of the other.

    The source of the sum is the less exact one of the two: unknown, else estimated, else measured.
    """
    sources = {one.source, other.source}
    return TokenUsage(
        input_tokens=_add(one.input_tokens, other.input_tokens),
        output_tokens=_add(one.output_tokens, other.output_tokens),
        cached_input_tokens=_add(one.cached_input_tokens, other.cached_input_tokens),
        reasoning_tokens=_add(one.reasoning_tokens, other.reasoning_tokens),
        source=next(source for source in reversed(UsageSource) if source in sources),
    )


def subtract_usage(whole: TokenUsage, part: TokenUsage) -> TokenUsage:
    """Return `whole` minus `part`, with the source of `whole`; no count of either may be None."""
    left = {name: getattr(whole, name) - getattr(part, name) for name in TOKEN_COLUMNS}
    return TokenUsage(**left, source=whole.source)


def _add(one: int | None, other: int | None) -> int | None:
    return other if one is None else one + (other or 0)


def price(usage: TokenUsage, model: str) -> Decimal | None:
    """Return the cost by `settings.MODEL_PRICES`, rounded to millionths of the currency.

    None if the input tokens, the output tokens or the model's prices are not known; unknown cached
    tokens count as 0. Without any tokens the cost is 0 for every model. Prices are for a million
    tokens: `input`, `output` and, if it differs from `input`, `cached_input`.
    """
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    if not usage.input_tokens and not usage.output_tokens:
        return Decimal(0).quantize(COST_PLACES)
    prices = getattr(settings, "MODEL_PRICES", {}).get(model)
    if prices is None:
        return None
    cached_price = prices.get("cached_input")
    cached = min(usage.cached_input_tokens or 0, usage.input_tokens)
    cost = (
        (usage.input_tokens - cached) * Decimal(prices["input"])
        + cached * Decimal(prices["input"] if cached_price is None else cached_price)
        + usage.output_tokens * Decimal(prices["output"])
    ) / MILLION
    return cost.quantize(COST_PLACES)


def usage_of(run: Run) -> TokenUsage:
    """Return the usage in a run's row, which is written when it is suspended, given up or ended.

    A run that was not has unknown usage.
    """
    counts = {name: getattr(run, name) for name in TOKEN_COLUMNS}
    return TokenUsage(**counts, source=UsageSource(run.usage_source))


def estimate_orphan(run: Run, asked: Iterable[Any], parts: list[dict[str, Any]]) -> TokenUsage:
    """Estimate the usage of a run whose worker is gone, from its input `asked` and shown `parts`.

    The input is added to that in the run's row, which has the calls before the run was suspended or
    up to its checkpoint. The output is the larger of the estimate and the row's; cached input and
    reasoning become unknown. Without `parts`, returns the usage in the row alone.
    """
    before = usage_of(run)
    if not parts:
        return before
    given = math.ceil(estimate_items(asked))
    made = math.ceil(sum(estimate_text(_made_text(part)) for part in parts))
    return TokenUsage(
        input_tokens=given + (before.input_tokens or 0),
        output_tokens=max(made, before.output_tokens or 0),
        source=UsageSource.ESTIMATED,
    )


def price_orphan(run: Run, usage: TokenUsage, *, changed_agent: bool) -> Decimal | None:
    """Return the cost of `usage`, the whole usage of a lost run.

    If the run's row has a part of it, that part keeps the cost in the row, and only the rest is
    priced, by the run's model. None if the cost of either is not known. With `changed_agent`,
    another agent took over in the rest: then the result is None, because its model is not known.
    """
    before = usage_of(run)
    if before.input_tokens is None or usage.input_tokens is None:
        return None if changed_agent else price(usage, run.model)
    later = TokenUsage(
        usage.input_tokens - before.input_tokens,
        (usage.output_tokens or 0) - (before.output_tokens or 0),
    )
    cost = None if changed_agent else price(later, run.model)
    return sum_costs([run.cost, cost])


def _made_text(part: dict[str, Any]) -> str:
    return str(part.get("text") or part.get("arguments") or "")


def spent_columns(run: Run, usage: TokenUsage, cost: Decimal | None, model: str) -> dict[str, Any]:
    """Return the columns for a run's usage, its whole `cost`, and the `model` that answered last.

    With `model` "", `cost` is ignored, all usage is priced by the model that the run was claimed
    with, and the column `model` is not among the returned ones.
    """
    if not model:
        return usage_columns(usage, price(usage, run.model))
    return {"model": model[:200], **usage_columns(usage, cost)}


def sum_costs(costs: Iterable[Decimal | None]) -> Decimal | None:
    """Return the sum of the costs; None if one of them is None, 0 if there are none."""
    total = Decimal(0)
    for cost in costs:
        if cost is None:
            return None
        total += cost
    return total.quantize(COST_PLACES)


def usage_columns(usage: TokenUsage, cost: Decimal | None) -> dict[str, Any]:
    """Return the columns of a run or side call that store a usage and its cost, with values."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "usage_source": usage.source,
        "cost": cost,
    }


@dataclass(frozen=True)
class UsageTotals:
    """Usage of ended runs, and of the side calls for titles and summaries.

    `runs` counts the runs alone. `cost` is the sum of the known costs, None if none is known.
    `estimated`, `unknown` and `unpriced` count the runs and side calls whose tokens are estimated,
    whose tokens are unknown, and whose cost is not known.
    """

    runs: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    reasoning_tokens: int
    estimated: int
    unknown: int
    cost: Decimal | None
    unpriced: int
    currency: str


def count_new_tokens(run: Run, columns: Mapping[str, Any]) -> tuple[int, int]:
    """Return the tokens of a run that daily limits have not counted, and its new `counted_tokens`.

    `columns` are about to be written to the row of `run`, which the caller has locked or is about
    to add; where they have none of the counts, those of `run` hold. The tokens are 0 at least, and
    nothing is written here.
    """
    told = ("input_tokens", "output_tokens", "counted_tokens")
    given, made, counted = (columns.get(name, getattr(run, name)) for name in told)
    spent = max(0, (given or 0) + (made or 0) - counted)
    return spent, counted + spent


def add_to_totals(run: Run, spent: int) -> None:
    """Count the tokens `spent` towards the daily limits; add an ended run to its session.

    `conversations.runs.states` calls this once for each move but a requested cancel, after the row
    was written and with the session and the run locked. The rows of totals come last in the order
    of locks.
    """
    if run.is_ended:
        add_to_session(run.session_id, [run])
    if spent:
        _add_to_limits(run.owner_id, spent)


@transaction.atomic
def count_spent(run_id: UUID, tokens: int) -> None:
    """Count towards the daily limits that a run has used `tokens` in its epoch so far.

    `tokens` is the whole number each time; only the difference to what is counted is added, and
    nothing if that is not above 0. Locks the run and then the totals, which come last in the order
    of locks. Raises `Run.DoesNotExist`.
    """
    run = (
        Run.objects.select_for_update(no_key=True).only("owner_id", "counted_tokens").get(pk=run_id)
    )
    if (spent := tokens - run.counted_tokens) <= 0:
        return
    Run.objects.filter(pk=run_id).update(counted_tokens=tokens)
    _add_to_limits(run.owner_id, spent)


def _add_to_limits(user_id: UserId, tokens: int) -> None:
    slot = find_slot(timezone.now())
    _add_to_user(user_id, slot, tokens)
    _raise_counters(SiteUsage, {"slot": slot}, {"tokens": tokens})


def add_to_session(session_id: UUID, rows: Iterable[Run | SideCall]) -> None:
    """Add ended runs or side calls to the session's totals; pass each of them only once.

    The rows must be of this session, which is not checked. Without rows, does nothing.
    """
    if counters := sum_counters(rows):
        keys = {"session_id": SessionUsage._meta.pk.get_db_prep_value(session_id, connection)}
        _raise_counters(SessionUsage, keys, counters)


def move_user_totals(giver: UserId, taker: UserId) -> None:
    """Add the used tokens that daily limits count of the user `giver` to those of `taker`.

    Then deletes those of `giver`; call it in a transaction. Totals of sessions are not changed.
    """
    theirs = UserUsage.objects.filter(user_id=giver)  # type: ignore[misc]
    for slot, tokens in theirs.order_by("slot").values_list("slot", "tokens"):
        _add_to_user(taker, slot, tokens)
    theirs.delete()


@dataclass(frozen=True)
class RunUsage:
    """The tokens of an ended run, and its cost in `currency`; `cost` is None if it is not known.

    `currency` is always set: it is that of all costs of the site.
    """

    input_tokens: int
    output_tokens: int
    cost: Decimal | None
    currency: str


def read_run_usage(run_ids: Iterable[str | None]) -> dict[str, RunUsage]:
    """Return the usage of those of the runs that have ended with known tokens, by id.

    Both input and output must be known. None, "" and ids of no run are ignored.
    """
    ended = Run.objects.filter(pk__in=[pk for pk in run_ids if pk], input_tokens__isnull=False)
    rows = ended.exclude(status__in=ACTIVE).exclude(output_tokens=None)
    return {
        str(pk): RunUsage(given or 0, made or 0, cost, currency())
        for pk, given, made, cost in rows.values_list("pk", "input_tokens", "output_tokens", "cost")
    }


def sum_counters(rows: Iterable[Run | SideCall]) -> dict[str, int]:
    """Return the values of `SessionUsage` for these rows alone; empty if there are no rows."""
    total: Counter[str] = Counter()
    for row in rows:
        total["runs"] += isinstance(row, Run)
        for name in TOKEN_COLUMNS:
            total[name] += getattr(row, name) or 0
        total["estimated"] += row.usage_source == UsageSource.ESTIMATED
        total["unknown"] += row.usage_source == UsageSource.UNKNOWN
        total["priced"] += row.cost is not None
        total["unpriced"] += row.cost is None
        total["cost_micros"] += int((row.cost or Decimal(0)) * MILLION)
    return dict(total)


def read_session_totals(session_id: UUID) -> UsageTotals:
    """Return the totals of a session; reads one row, however long the session is.

    Replies in progress are not in them. All counts are 0 for an unknown session.
    """
    return _totals(SessionUsage.objects.filter(pk=session_id).first() or SessionUsage())


def read_user_totals(user_id: UserId | None) -> UsageTotals:
    """Return the totals of all sessions of a user, deleted ones too until they are purged.

    Reads one row a session. Replies in progress are not in them. All counts are 0 for None.
    """
    kept = SessionUsage.objects.filter(session__owner_id=user_id)  # type: ignore[misc]
    sums = {name: Coalesce(Sum(name), 0) for name in COUNTERS}
    return _totals(SessionUsage(**kept.aggregate(**sums)))


def _totals(row: SessionUsage) -> UsageTotals:
    known = Decimal(row.cost_micros).scaleb(-6).quantize(COST_PLACES)
    shown = {name: getattr(row, name) for name in COUNTERS if name not in ("priced", "cost_micros")}
    return UsageTotals(cost=known if row.priced else None, currency=currency(), **shown)


def count_tokens(usage: TokenUsage) -> int:
    """Return input and output tokens as limits count them; unknown counts are 0."""
    return (usage.input_tokens or 0) + (usage.output_tokens or 0)


def find_slot(moment: datetime) -> int:
    """Return the slot of `UserUsage` and `SiteUsage` that contains `moment`.

    Slots are `SLOT` long, and counted from the beginning of 1970 in UTC.
    """
    return int(moment.timestamp() // SLOT.total_seconds())


def _add_to_user(user_id: UserId, slot: int, tokens: int) -> None:
    user = UserUsage._meta.get_field("user").get_db_prep_value(user_id, connection)
    _raise_counters(UserUsage, {"user_id": user, "slot": slot}, {"tokens": tokens})


def _raise_counters(model: type[Model], keys: dict[str, Any], counters: dict[str, int]) -> None:
    """Add `counters` to the row with `keys`, which is created if it does not exist.

    One atomic statement, so that no concurrent addition is lost. Keys are values for the database.
    """
    table = connection.ops.quote_name(model._meta.db_table)
    columns = [*keys, *counters]
    added = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in counters)
    # The text is built of names of tables and columns only.
    sql = f"""
        INSERT INTO {table} ({", ".join(columns)}) VALUES ({", ".join(["%s"] * len(columns))})
        ON CONFLICT ({", ".join(keys)}) DO UPDATE SET {added}
    """  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(sql, [*keys.values(), *counters.values()])


def currency() -> str:
    """Return the code of the currency of all prices and costs: `COST_CURRENCY`, or "USD"."""
    return getattr(settings, "COST_CURRENCY", "USD")


DAY = timedelta(days=1)

# The statuses are literals, as in the condition of the index `runs_at_work`: SQLite uses a partial
# index only if the statement itself shows that the condition holds.
COUNT_AT_WORK = """
    SELECT COUNT(*) FROM (
        SELECT DISTINCT session_id FROM conversations_run
        WHERE owner_id = %s AND status IN ('queued', 'running') LIMIT %s
    ) AS at_work
"""

IS_GUEST = "SELECT COUNT(*) FROM conversations_guest WHERE user_id = %s"
# A slot counts until its last moment is a day ago, so that no period of 24 hours exceeds a limit.
USER_TOKENS = """
    SELECT COALESCE(SUM(tokens), 0) FROM conversations_userusage WHERE user_id = %s AND slot >= %s
"""
SITE_TOKENS = "SELECT COALESCE(SUM(tokens), 0) FROM conversations_siteusage WHERE slot >= %s"


@dataclass(frozen=True)
class ChatLimits:
    """Limits on chats; None: no limit, except as said for guests.

    `queue_max` limits the runs of one session that wait behind its first unfinished one. `runs`
    limits a user's sessions with a queued or running reply. The daily limits count the tokens of
    the last 24 hours, and up to one `SLOT` more: `tokens_a_day` for one user, `site_tokens_a_day`
    for all together. `guest_tokens_a_day` is a guest's limit in place of `tokens_a_day`; if it is
    None, guests have `tokens_a_day`.
    """

    queue_max: int = 10
    runs: int | None = None
    tokens_a_day: int | None = None
    guest_tokens_a_day: int | None = None
    site_tokens_a_day: int | None = None

    @property
    def has_budget(self) -> bool:
        """Whether any of the three daily limits of tokens is set."""
        daily = (self.tokens_a_day, self.guest_tokens_a_day, self.site_tokens_a_day)
        return any(limit is not None for limit in daily)


def check_user(user_id: UserId, limits: ChatLimits, *, starts: bool) -> None:
    """Check all of `limits` but `queue_max` for a user who posts a chat.

    `runs` is checked only if `starts`, which says that the chat's session has no unfinished run.
    Needs an open transaction. The user's row stays locked until it ends (SQLite has no such locks,
    and no other writer), so that two chats cannot both take the last place. The cost does not grow
    with the number of ended runs.
    Raises `AgentSiteError`: limit_runs, limit_tokens, limit_site, not_authenticated (no such user).
    """
    user: Any = get_user_model()._meta
    key = user.pk.get_db_prep_value(user_id, connection)
    table, column = map(connection.ops.quote_name, (user.db_table, user.pk.column))
    sql = f"SELECT 1 FROM {table} WHERE {column} = %s"  # noqa: S608
    with connection.cursor() as cursor:
        # SQLite has no locks of rows: there the transaction itself keeps other writers out.
        locks = " FOR NO KEY UPDATE" if connection.features.has_select_for_no_key_update else ""
        cursor.execute(sql + locks, [key])
        if cursor.fetchone() is None:
            raise AgentSiteError(ErrorCode.NOT_AUTHENTICATED)
    _check(user_id, limits, most_runs=limits.runs if starts else None)


@dataclass(frozen=True)
class Budget:
    """A user's tokens of the last 24 hours: those used, the limit, and how many are left.

    `limit` and `left` are None without a limit. What is left to the whole site is not considered.
    """

    used: int
    limit: int | None
    left: int | None


def read_budget(user_id: UserId | None, limits: ChatLimits) -> Budget:
    """Return what a user has used and may use yet, as `check_budget` counts it; 0 for None."""
    is_guest = Guest.objects.filter(pk=user_id).exists()  # type: ignore[misc]
    limit = limits.tokens_a_day
    if is_guest and limits.guest_tokens_a_day is not None:
        limit = limits.guest_tokens_a_day
    theirs = UserUsage.objects.filter(user_id=user_id)  # type: ignore[misc]
    slots = theirs.filter(slot__gte=find_slot(timezone.now() - DAY))
    used = slots.aggregate(sum=Coalesce(Sum("tokens"), 0))["sum"]
    return Budget(used, limit, None if limit is None else max(0, limit - used))


def check_budget(user_id: UserId, limits: ChatLimits) -> None:
    """Check that a model may be called for a user within the daily limits of tokens.

    Raises `AgentSiteError`: limit_tokens, limit_site, with the seconds to wait. Tokens of runs in
    other processes count as soon as each of their model calls has been stored.
    """
    _check(user_id, limits)


def _check(user_id: UserId, limits: ChatLimits, most_runs: int | None = None) -> None:
    """Check the limits that are set, by one statement; by none if none is set."""
    asked = _list_checks(user_id, limits, most_runs)
    if not asked:
        return
    sql = ", ".join(f"({sql})" for sql, _ in asked.values())
    params = [param for _, params in asked.values() for param in params]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {sql}", params)
        found = dict(zip(asked, cursor.fetchone(), strict=True))
    if most_runs is not None and found["runs"] >= most_runs:
        raise AgentSiteError(ErrorCode.LIMIT_RUNS)
    own, of_site = limits.tokens_a_day, limits.site_tokens_a_day
    if found.get("is_guest"):
        own = limits.guest_tokens_a_day
    if own is not None and found["user"] >= own:
        _refuse(UserUsage.objects.filter(user_id=user_id), own, ErrorCode.LIMIT_TOKENS)  # type: ignore[misc]
    if of_site is not None and found["site"] >= of_site:
        _refuse(SiteUsage.objects.all(), of_site, ErrorCode.LIMIT_SITE)


def _list_checks(
    user_id: UserId, limits: ChatLimits, most_runs: int | None
) -> dict[str, tuple[str, list[Any]]]:
    """Return the queries for the limits that are set, each of one value, and their parameters."""
    user = Run._meta.get_field("owner").get_db_prep_value(user_id, connection)
    since = find_slot(timezone.now() - DAY)
    asked: dict[str, tuple[str, list[Any]]] = {}
    if most_runs is not None:
        asked["runs"] = COUNT_AT_WORK, [user, most_runs]
    if limits.guest_tokens_a_day is not None:
        asked["is_guest"] = IS_GUEST, [user]
    if limits.tokens_a_day is not None or limits.guest_tokens_a_day is not None:
        asked["user"] = USER_TOKENS, [user, since]
    if limits.site_tokens_a_day is not None:
        asked["site"] = SITE_TOKENS, [since]
    return asked


def count_at_work(user_id: UserId, most: int) -> int:
    """Return the number of the user's sessions with a queued or running run, at most `most`.

    Those whose run awaits input count only if other runs wait behind it.
    """
    owner = Run._meta.get_field("owner").get_db_prep_value(user_id, connection)
    with connection.cursor() as cursor:
        cursor.execute(COUNT_AT_WORK, [owner, most])
        [count] = cursor.fetchone()
    return int(count)


def _refuse(usage: QuerySet[Any], limit: int, code: ErrorCode) -> None:
    """Raise that the tokens in `usage` have reached `limit`, unless they no longer do."""
    now = timezone.now()
    counted = usage.filter(slot__gte=find_slot(now - DAY)).order_by("slot")
    slots = list(counted.values_list("slot", "tokens"))
    used = sum(tokens for _, tokens in slots)
    if used < limit:
        return
    free_at = _find_free_slot(slots, used - limit, find_slot(now)) * SLOT.total_seconds()
    wait = datetime.fromtimestamp(free_at, UTC) + DAY - now
    raise AgentSiteError(code, retry_after=round(wait.total_seconds()))


def _find_free_slot(slots: Iterable[tuple[int, int]], excess: int, present: int) -> int:
    """Return the slot one day after whose beginning usage is below the limit again.

    `excess` is how far usage is above the limit; `slots` are (slot, tokens), oldest first.
    """
    for slot, tokens in slots:
        excess -= tokens
        if excess < 0:
            return slot + 1
    return present + 1
