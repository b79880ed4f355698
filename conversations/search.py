"""Sessions and messages by the words in them.

`conversations.search_index` keeps the index. All words must be in one title or in one message, in
any order; the last one may be the beginning of a word. The index knows no words in scripts that are
written without spaces, or with endings on every word, as Korean is: those are looked for inside the
texts, of one person's all, of everybody's the newest.
"""

import re
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

READ = 50_000
"""So many entries, the newest, are read for a word in such a script where they are anybody's."""

RARE = 10_000
"""Up to so many matches, by Postgres' own estimate, are sorted rather than met along the way."""

MAX_WORDS = 20
PREFIX_MIN = 4

_BLANKS = str.maketrans(dict.fromkeys(string.punctuation, " "))

_SIGNS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"  # Korean
    "\u3005-\u3007\u3040-\u312f\u31f0-\u31ff\uff66-\uff9f"  # Japanese, Bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese
)
_SPACELESS = re.compile(f"[{_SIGNS}]")
_RUNS = re.compile(f"[{_SIGNS}]+|[^\\W_{_SIGNS}]+")

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
    phrases, pieces = phrases_of(words), pieces_of(words)
    if not (phrases or pieces):
        return []
    owner_id = None if owner is None else owner.pk
    by_vendor = _in_postgres if connection.vendor == "postgresql" else _in_sqlite
    sql, query = by_vendor(phrases, pieces, owner_id)
    newest = NEWEST if owner is None else EVERYTHING
    return RawSQL(sql.format(column=column), [*query, newest])  # noqa: S611 (no text in the SQL)


def phrases_of(words: str) -> list[Phrase]:
    """The words of a query; those that punctuation joins must stand beside each other."""
    chunks = (chunk.translate(_BLANKS).split() for chunk in clean_text(words).split())
    phrases = ([word for word in chunk if _is_word(word)] for chunk in chunks)
    return [phrase for phrase in phrases if phrase][:MAX_WORDS]


def pieces_of(words: str) -> list[str]:
    """What a query has of scripts without spaces, and what is written together with these."""
    chunks = (word for word in clean_text(words).split() if _SPACELESS.search(word))
    return [piece for chunk in chunks for piece in _RUNS.findall(chunk)][:MAX_WORDS]


def _is_word(word: str) -> bool:
    return any(map(str.isalnum, word)) and not _SPACELESS.search(word)


def is_open(phrase: Phrase) -> bool:
    """Whether the last word of a query may go on: a few letters would match too much."""
    return len(phrase[-1]) >= PREFIX_MIN


def _in_sqlite(
    phrases: Sequence[Phrase], pieces: Sequence[str], owner_id: Any
) -> tuple[str, list[Any]]:
    terms = [_fts5_term(" ".join(phrase)) for phrase in phrases]
    if phrases:
        terms[-1] += "*" if is_open(phrases[-1]) else ""
        terms = [f"text : ({' AND '.join(terms)})"]
    if owner_id is not None:
        key = SearchEntry._meta.get_field("owner").get_db_prep_value(owner_id, connection)
        terms.insert(0, f"owner_id : {_fts5_term(str(key))}")
    sql = """
        SELECT {column} FROM conversations_searchentry WHERE id IN (
            SELECT rowid FROM conversations_searchindex
            WHERE conversations_searchindex MATCH %s ORDER BY rowid DESC LIMIT %s
        )
    """
    if not pieces:
        return sql, [" AND ".join(terms)]
    condition, patterns = _holding(pieces, "LIKE", owner_id)
    if terms:
        condition += """ AND id IN (
            SELECT rowid FROM conversations_searchindex WHERE conversations_searchindex MATCH %s
        )"""
        patterns.append(" AND ".join(terms))
    return _reading(condition, "id"), patterns


def _holding(pieces: Sequence[str], like: str, owner_id: Any) -> tuple[str, list[Any]]:
    """The condition for entries with these in their texts; without an owner, for the newest."""
    conditions = [f"text {like} %s"] * len(pieces)
    if owner_id is None:
        newest = "SELECT MAX(id) FROM conversations_searchentry"
        conditions.insert(0, f"id > ({newest}) - {READ}")
    return " AND ".join(conditions), [f"%{piece}%" for piece in pieces]


def _reading(condition: str, order: str) -> str:
    return f"""
        SELECT {{column}} FROM conversations_searchentry
        WHERE {condition} ORDER BY {order} DESC LIMIT %s
    """  # noqa: S608 (placeholders alone)


def _fts5_term(words: str) -> str:
    return '"' + words.replace('"', '""') + '"'


def _in_postgres(
    phrases: Sequence[Phrase], pieces: Sequence[str], owner_id: Any
) -> tuple[str, list[Any]]:
    query: list[Any] = []
    marks: list[str] = []
    if phrases:
        terms = [" <-> ".join(map(_tsquery_term, phrase)) for phrase in phrases]
        terms[-1] += ":*" if is_open(phrases[-1]) else ""
        query, marks = [" & ".join(terms)], ["to_tsquery('simple', %s)"]
    if owner_id is not None:
        query, marks = [*query, f"' {owner_id}'"], [*marks, "%s::tsquery"]
    indexed = f"({' && '.join(marks)})"
    if pieces:
        condition, patterns = _holding(pieces, "ILIKE", owner_id)
        if marks:
            condition += f" AND document @@ {indexed}"
        return _reading(condition, "id + 0" if marks else "id"), patterns + query
    # Left to itself, the planner goes through all newer rows to meet a word that is seldom there.
    order = "id" if owner_id is None and _estimate(indexed, query) > RARE else "id + 0"
    return _reading(f"document @@ {indexed}", order), query


def _estimate(condition: str, query: list[Any]) -> float:
    """How many entries Postgres expects to match."""
    sql = "EXPLAIN (FORMAT JSON) SELECT 1 FROM conversations_searchentry WHERE document @@ "
    with connection.cursor() as cursor:
        cursor.execute(sql + condition, query)
        rows: float = cursor.fetchone()[0][0]["Plan"]["Plan Rows"]
    return rows


def _tsquery_term(word: str) -> str:
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"
