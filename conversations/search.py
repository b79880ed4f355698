"""Sessions and messages by the words in them.

`conversations.search_index` keeps the index. All words must be in one title or in one message, in
any order; the last one may be the beginning of a word.
"""

import string
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.db.models import Max, QuerySet
from django.db.models.expressions import RawSQL

from conversations.models import ChatSession, SearchEntry
from conversations.text import clean_text

NEWEST = 1_000
"""So many matches, the newest, are looked at where they may be anybody's."""

EVERYTHING = 1_000_000_000

RARE = 10_000
"""Up to so many matches, by Postgres' own estimate, are sorted rather than met along the way."""

MAX_WORDS = 20
PREFIX_MIN = 4

_BLANKS = str.maketrans(dict.fromkeys(string.punctuation, " "))

Phrase = list[str]


def containing(
    sessions: QuerySet[ChatSession], words: str, *, owner: AbstractBaseUser | AnonymousUser | None
) -> QuerySet[ChatSession]:
    """Those of `sessions` with `words` in the title or in a message; all of them without words.

    `owner` is whose sessions they are; None for anybody's, of whose matches only the `NEWEST`
    count.
    """
    if not words.strip():
        return sessions
    return sessions.filter(pk__in=_matches("session_id", words, owner))


def find_entries(
    owner: AbstractBaseUser | AnonymousUser | None, words: str, limit: int
) -> list[SearchEntry]:
    """The newest titles and messages with `words`, with their sessions.

    What was deleted or taken back is out.
    """
    entries = SearchEntry.objects.filter(pk__in=_matches("id", words, owner))
    alive = entries.filter(session__deleted_at=None).exclude(message__withdrawn=True)
    return list(alive.select_related("session").order_by("-pk")[:limit])


def find_messages(
    owner: AbstractBaseUser | AnonymousUser, words: str, session_ids: Iterable[UUID]
) -> dict[UUID, SearchEntry]:
    """The newest message with `words` in each of these sessions, where there is one."""
    said = SearchEntry.objects.filter(session__in=list(session_ids), message__isnull=False)
    found = said.filter(pk__in=_matches("id", words, owner)).exclude(message__withdrawn=True)
    newest = found.values("session").annotate(newest=Max("pk")).values_list("newest", flat=True)
    return {entry.session_id: entry for entry in SearchEntry.objects.filter(pk__in=list(newest))}


def _matches(column: str, words: str, owner: Any) -> Any:
    phrases = phrases_of(words)
    if not phrases:
        return []
    by_vendor = _in_postgres if connection.vendor == "postgresql" else _in_sqlite
    sql, query = by_vendor(phrases, None if owner is None else owner.pk)
    newest = NEWEST if owner is None else EVERYTHING
    return RawSQL(sql.format(column=column), [*query, newest])  # noqa: S611 (no text in the SQL)


def phrases_of(words: str) -> list[Phrase]:
    """The words of a query; those that punctuation joins must stand beside each other."""
    chunks = (chunk.translate(_BLANKS).split() for chunk in clean_text(words).split())
    phrases = ([word for word in chunk if any(map(str.isalnum, word))] for chunk in chunks)
    return [phrase for phrase in phrases if phrase][:MAX_WORDS]


def is_open(phrase: Phrase) -> bool:
    """Whether the last word of a query may go on: a few letters would match too much."""
    return len(phrase[-1]) >= PREFIX_MIN


def _in_sqlite(phrases: Sequence[Phrase], owner_id: Any) -> tuple[str, list[Any]]:
    sql = """
        SELECT {column} FROM conversations_searchentry WHERE id IN (
            SELECT rowid FROM conversations_searchindex
            WHERE conversations_searchindex MATCH %s ORDER BY rowid DESC LIMIT %s
        )
    """
    terms = [_fts5_term(" ".join(phrase)) for phrase in phrases]
    terms[-1] += "*" if is_open(phrases[-1]) else ""
    query = f"text : ({' AND '.join(terms)})"
    if owner_id is not None:
        key = SearchEntry._meta.get_field("owner").get_db_prep_value(owner_id, connection)
        query = f"owner_id : {_fts5_term(str(key))} AND {query}"
    return sql, [query]


def _fts5_term(words: str) -> str:
    return '"' + words.replace('"', '""') + '"'


def _in_postgres(phrases: Sequence[Phrase], owner_id: Any) -> tuple[str, list[Any]]:
    terms = [" <-> ".join(map(_tsquery_term, phrase)) for phrase in phrases]
    terms[-1] += ":*" if is_open(phrases[-1]) else ""
    query, condition = [" & ".join(terms)], "to_tsquery('simple', %s)"
    if owner_id is not None:
        query, condition = [*query, f"' {owner_id}'"], f"({condition} && %s::tsquery)"
    # Left to itself, the planner goes through all newer rows to meet a word that is seldom there.
    order = "id" if owner_id is None and _estimate(condition, query) > RARE else "id + 0"
    sql = f"""
        SELECT {{column}} FROM conversations_searchentry
        WHERE document @@ {condition} ORDER BY {order} DESC LIMIT %s
    """  # noqa: S608 (placeholders alone)
    return sql, query


def _estimate(condition: str, query: list[Any]) -> float:
    """How many entries Postgres expects to match."""
    sql = "EXPLAIN (FORMAT JSON) SELECT 1 FROM conversations_searchentry WHERE document @@ "
    with connection.cursor() as cursor:
        cursor.execute(sql + condition, query)
        rows: float = cursor.fetchone()[0][0]["Plan"]["Plan Rows"]
    return rows


def _tsquery_term(word: str) -> str:
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"
