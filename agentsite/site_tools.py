"""Tools that search, read and count a person's conversations, and archive them with approval.

The user is that of the run, never one that the model names.
"""

import json
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Literal

from agents import Tool, function_tool
from agents.tool_context import ToolContext
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from conversations import queries
from conversations.errors import AgentSiteError, ErrorCode
from conversations.sessions import lists, search
from conversations.sessions.search import Count, Found, Said
from realtime import dbpool
from realtime.work.run_context import RunContext

FOUND_MAX = 20
READ_CHARS = 12_000

Context = ToolContext[RunContext]
Period = Literal["today", "this week", "this month", "this year", "ever"]


@function_tool
async def search_conversations(context: Context, words: str = "", limit: int = 10) -> str:
    """Find the user's earlier conversations, newest first; this one is left out.

    Args:
        words: What all must occur in a title or in a message; empty for the newest conversations.
        limit: How many at most.
    """
    run = context.context
    found = await dbpool.read_first(_search, run, words, max(1, min(limit, FOUND_MAX)))
    told = ngettext("Found {count} conversation", "Found {count} conversations", len(found))
    run.summarise(context, told.format(count=len(found)))
    return _json({"conversations": [asdict(one) for one in found]})


def _search(run: RunContext, words: str, limit: int) -> list[Found]:
    user = queries.get_user(run.user_id)
    return search.search_sessions(user, words, limit=limit, apart_from=run.session_id)


@function_tool
async def read_conversation(context: Context, session_id: str) -> str:
    """Read one of the user's conversations, to sum it up or to answer from it.

    Args:
        session_id: As `search_conversations` gives it.
    """
    try:
        said = await dbpool.read_first(_read, context.context, session_id)
    except AgentSiteError as exc:
        return _explain(exc)
    context.context.summarise(context, _("Read “{title}”").format(title=said.title))
    return _json(asdict(said))


def _read(run: RunContext, session_id: str) -> Said:
    user = queries.get_user(run.user_id)
    return search.read_session(user, session_id, max_chars=READ_CHARS)


@function_tool
async def count_conversations(context: Context, period: Period) -> str:
    """Count the conversations the user had, this one too, and the messages they wrote in them.

    Args:
        period: A week begins on Monday.
    """
    start = period_start(period, timezone.localtime())
    counted = await dbpool.read_first(_count, context.context, start)
    number = counted.conversations
    told = ngettext("Counted {count} conversation", "Counted {count} conversations", number)
    context.context.summarise(context, told.format(count=number))
    return _json({"period": period, "since": start and start.isoformat(), **asdict(counted)})


def _count(run: RunContext, start: datetime | None) -> Count:
    return search.count_since(queries.get_user(run.user_id), start)


def period_start(period: Period, now: datetime) -> datetime | None:
    """Return the start of the period that contains `now`, in its time zone; None for `ever`.

    A week begins on Monday.
    """
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    starts: dict[Period, datetime | None] = {
        "today": day,
        "this week": day - timedelta(days=day.weekday()),
        "this month": day.replace(day=1),
        "this year": day.replace(month=1, day=1),
        "ever": None,
    }
    return starts[period]


@function_tool(needs_approval=True)
async def archive_conversations(context: Context, session_ids: list[str]) -> str:
    """Put conversations of the user away: they leave the list, and nothing of them is deleted.

    Args:
        session_ids: As `search_conversations` gives them.
    """
    try:
        titles = await dbpool.write_first(_archive, context.context, session_ids)
    except AgentSiteError as exc:
        return _explain(exc)
    told = ngettext("Archived {count} conversation", "Archived {count} conversations", len(titles))
    context.context.summarise(context, told.format(count=len(titles)))
    return _json({"archived": titles})


def _archive(run: RunContext, session_ids: list[str]) -> list[str]:
    user = queries.get_user(run.user_id)
    return lists.archive_sessions(user=user, session_ids=session_ids)


def _explain(exc: AgentSiteError) -> str:
    """Return an error for the model, which can retry with an id that exists."""
    if exc.code == ErrorCode.NOT_FOUND:
        return _json({"error": "There is no such conversation. Search for its id first."})
    raise exc


def _json(told: dict[str, Any]) -> str:
    return json.dumps(told, ensure_ascii=False)


SITE_TOOLS: list[Tool] = [
    search_conversations,
    read_conversation,
    count_conversations,
    archive_conversations,
]
