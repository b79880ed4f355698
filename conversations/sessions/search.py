"""Full-text search: its index, queries for sessions and messages, and excerpts.

`SearchEntry` has a row for each title and each message with text, of which it has the first
100,000 characters. The index is an FTS5 table on SQLite, and a column with a GIN index on Postgres.
Streaming does not write to it: a reply's text reaches its message once, when its run ends. The
index also contains each entry's owner, so that the search of one person costs no more for a word
that everybody uses.

All words of a query must be in one title or one message, in any order; the last one may be the
beginning of a word. The index has no words of scripts that are written without spaces, or with
endings on every word, such as Korean: these are searched for inside the texts, in all entries of
one person, or in the newest entries of everybody.
"""

import atexit
import logging
import re
import string
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

from django.apps import AppConfig
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db import Error, connection, connections, transaction
from django.db.models import Max, QuerySet
from django.db.models.expressions import RawSQL

from conversations.models import ChatSession, Message, Role, SearchEntry
from conversations.queries import User, get_session, list_path, load_messages, sessions_of
from conversations.text import clean_text, without_marks

logger = logging.getLogger(__name__)

SQL_DIR = Path(__file__).parents[1] / "sql"
_NAME = re.compile(r"^CREATE (?:VIRTUAL TABLE|VIEW|TRIGGER) (\w+)", re.MULTILINE)

_dropped: dict[str, list[str]] = {}
"""The statements that create again what `drop_triggers` has dropped, by database alias."""


def install(sender: AppConfig, using: str, **kwargs: Any) -> None:
    """Create the parts of the index that are missing; a receiver of `post_migrate`.

    On Postgres, functions and triggers whose text has changed are replaced too. On SQLite, if
    anything was missing, the index is also brought up to date with what was written meanwhile.
    """
    connection = connections[using]
    if "conversations_searchentry" not in connection.introspection.table_names():
        return
    with transaction.atomic(using), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            _install_in_postgres(cursor)
        else:
            _install_in_sqlite(cursor)
    _dropped.pop(using, None)


def drop_triggers(sender: AppConfig, using: str, plan: list[Any], **kwargs: Any) -> None:
    """Drop the index's triggers and views on SQLite before a migration; receives `pre_migrate`.

    Does nothing if no migration is to be applied.

    On SQLite, changing a table creates it again, which drops its triggers, and fails if triggers
    of another table refer to it. There is no signal for a failed migration, so what was dropped is
    restored at the exit of the process; the next migration indexes what was written meanwhile.
    """
    connection = connections[using]
    if not plan or connection.vendor != "sqlite":
        return
    with transaction.atomic(using), connection.cursor() as cursor:
        cursor.execute(
            "SELECT name, type, sql FROM sqlite_master WHERE type IN ('trigger', 'view')"
            " AND name LIKE 'conversations_search%' ORDER BY type DESC"
        )
        present = cursor.fetchall()
        for name, kind, _ in present:
            cursor.execute(f"DROP {kind} {name}")
    _dropped[using] = [sql for *_, sql in present]
    atexit.register(put_back, using)


def put_back(using: str) -> None:
    """Create again what `drop_triggers` has dropped, unless `install` has run since.

    A fault of the database is only logged.
    """
    if not (statements := _dropped.pop(using, [])):
        return
    try:
        with transaction.atomic(using), connections[using].cursor() as cursor:
            for sql in statements:
                cursor.execute(sql)
    except Error as exc:
        # The next migration creates them.
        logger.error("restoring the triggers of the search index failed: %s", type(exc).__name__)


def _install_in_sqlite(cursor: Any) -> None:
    """Create what is missing, and then repair the index, which has missed writes since."""
    cursor.execute("SELECT name FROM sqlite_master WHERE name LIKE 'conversations_search%'")
    present = {name for (name,) in cursor.fetchall()}
    statements = [
        (match[0].startswith("CREATE TRIGGER"), sql)
        for sql in _read_statements("search_sqlite.sql")
        if (match := _NAME.search(sql)) and match[1] not in present
    ]
    repair = _read_statements("search_sqlite_repair.sql") if statements else []
    tables = [sql for is_trigger, sql in statements if not is_trigger]
    triggers = [sql for is_trigger, sql in statements if is_trigger]
    for sql in (*tables, *repair, *triggers):
        cursor.execute(sql)


def _read_statements(name: str) -> list[str]:
    """Return the statements of a file, which are separated by blank lines."""
    return (SQL_DIR / name).read_text().split("\n\n")


def _install_in_postgres(cursor: Any) -> None:
    """Create the index if it is missing, and its functions and triggers if their text changed."""
    cursor.execute("SELECT to_regclass('conversations_search_document') IS NULL")
    (is_new,) = cursor.fetchone()
    if is_new:
        cursor.execute((SQL_DIR / "search_postgres.sql").read_text())
    triggers = (SQL_DIR / "search_postgres_triggers.sql").read_text()
    version = sha256(triggers.encode()).hexdigest()
    cursor.execute("SELECT obj_description(to_regproc('conversations_search_message'), 'pg_proc')")
    if cursor.fetchone()[0] != version:
        cursor.execute(triggers)
        cursor.execute(f"COMMENT ON FUNCTION conversations_search_message IS '{version}'")
    if is_new:
        cursor.execute((SQL_DIR / "search_postgres_fill.sql").read_text())


NEWEST = 1_000
"""How many matches, the newest, a search in everybody's sessions considers."""

EVERYTHING = 1_000_000_000

READ = 50_000
"""How many entries, the newest, a search in everybody's sessions reads for a word that the index
does not have."""

RARE = 10_000
"""Up to how many matches, by Postgres' estimate, are all found and sorted; for more, entries are
read from the newest until there are enough."""

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
    """Return those of `sessions` with all `words` in the title or in one message.

    Without words, returns all of them; for words of punctuation alone, none. `owner` is the owner
    of `sessions`; with None, for those of everybody, only the `NEWEST` matches count.
    """
    if not words.strip():
        return sessions
    return sessions.filter(pk__in=_matches("session_id", words, owner))


def find_entries(
    owner: AbstractBaseUser | AnonymousUser | None, words: str, limit: int
) -> list[SearchEntry]:
    """Return the newest titles and messages with all `words`, at most `limit`, newest first.

    Their sessions are loaded. Without words, returns [].
    Searches the sessions of `owner`; with None, the `NEWEST` matches in those of everybody. Deleted
    sessions and withdrawn messages are left out.
    """
    entries = SearchEntry.objects.filter(pk__in=_matches("id", words, owner))
    alive = entries.filter(session__deleted_at=None).exclude(message__withdrawn=True)
    return list(alive.select_related("session").order_by("-pk")[:limit])


def find_messages(
    owner: AbstractBaseUser | AnonymousUser, words: str, session_ids: Iterable[UUID]
) -> dict[UUID, SearchEntry]:
    """Return the newest message with all `words` by session id, for the sessions with such a one.

    `owner` is the owner of these sessions. Without words, returns {}.
    """
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
    """Return the phrases of a query: each is one word, or words joined by punctuation.

    The words of a phrase must be adjacent in the text. At most `MAX_WORDS` phrases; words in
    scripts that the index does not have are left out, see `pieces_of`.
    """
    chunks = (chunk.translate(_BLANKS).split() for chunk in clean_text(words).split())
    phrases = ([word for word in chunk if _is_word(word)] for chunk in chunks)
    return [phrase for phrase in phrases if phrase][:MAX_WORDS]


def pieces_of(words: str) -> list[str]:
    """Return the words of a query in scripts that the index does not have.

    They are split where the script changes. The index has no words of scripts written without
    spaces, nor of Korean.
    """
    chunks = (word for word in clean_text(words).split() if _SPACELESS.search(word))
    return [piece for chunk in chunks for piece in _RUNS.findall(chunk)][:MAX_WORDS]


def _is_word(word: str) -> bool:
    return any(map(str.isalnum, word)) and not _SPACELESS.search(word)


def is_open(phrase: Phrase) -> bool:
    """Return whether the last word of a phrase may also match longer words that begin with it.

    It may if it has at least `PREFIX_MIN` characters; shorter ones would match too much. A search
    asks this only for its last phrase, which must not be empty.
    """
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
    """Return the condition for entries that contain `pieces`; without an owner, only new ones."""
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
    # With ORDER BY id, the planner would read all newer rows to find a rare word.
    order = "id" if owner_id is None and _estimate(indexed, query) > RARE else "id + 0"
    return _reading(f"document @@ {indexed}", order), query


def _estimate(condition: str, query: list[Any]) -> float:
    """Return how many entries Postgres expects to match."""
    sql = "EXPLAIN (FORMAT JSON) SELECT 1 FROM conversations_searchentry WHERE document @@ "
    with connection.cursor() as cursor:
        cursor.execute(sql + condition, query)
        rows: float = cursor.fetchone()[0][0]["Plan"]["Plan Rows"]
    return rows


def _tsquery_term(word: str) -> str:
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"


BEFORE = 30
"""Approximate number of characters before the first match."""

FAR = 20
"""If the last space is further back than this many characters, an excerpt begins within a word:
there are scripts without spaces."""

WORD = r"[^\W_]"


@dataclass(frozen=True)
class Piece:
    """A piece of an excerpt; `found` if it matches the search."""

    text: str
    found: bool = False


class _Fold(dict[int, str]):
    """Maps each character to one lower-case letter without accents, so that offsets stay valid."""

    def __missing__(self, code: int) -> str:
        plain = unicodedata.normalize("NFD", chr(code))[0].lower()
        self[code] = plain if len(plain) == 1 else chr(code)
        return self[code]


_fold = _Fold()


def cut_excerpt(text: str, words: str, length: int) -> list[Piece]:
    """Return about `length` characters of `text` around the first match of `words`, in pieces.

    The text becomes one line. Each match is a piece of its own, and so is "…" where the text is
    cut. Without a match, the excerpt is the beginning of the text. Marks of Markdown are left out,
    unless the words are found only with them.
    """
    pattern = _pattern_of(words)
    line, first = _find_first(without_marks(text), pattern)
    if pattern and not first:
        whole, first = _find_first(text, pattern)
        line = whole if first else line
    start = _word_before(line, max(0, first.start() - BEFORE)) if first else 0
    end = len(line) if start + length >= len(line) else line.rfind(" ", start, start + length)
    cut = line[start : end if end > start else start + length]
    pieces = list(_split(cut, pattern))
    return [*_dots(start > 0), *pieces, *_dots(start + len(cut) < len(line))]


def _find_first(text: str, pattern: re.Pattern[str] | None) -> tuple[str, re.Match[str] | None]:
    """Return the text as one line, and the first match in it."""
    line = " ".join(text.split())
    return line, pattern.search(line.translate(_fold)) if pattern else None


def _pattern_of(words: str) -> re.Pattern[str] | None:
    phrases = phrases_of(words)
    spelled = [r"[\W_]+".join(re.escape(word.translate(_fold)) for word in p) for p in phrases]
    if phrases and is_open(phrases[-1]):
        spelled[-1] += f"{WORD}*"
    longest_first = sorted(spelled, key=len, reverse=True)
    patterns = [f"(?<!{WORD})(?:{'|'.join(longest_first)})(?!{WORD})"] if phrases else []
    patterns += [re.escape(piece.translate(_fold)) for piece in pieces_of(words)]
    return re.compile("|".join(patterns)) if patterns else None


def _word_before(line: str, place: int) -> int:
    start = line.rfind(" ", 0, place) + 1
    return start if place - start <= FAR else place


def _split(cut: str, pattern: re.Pattern[str] | None) -> Iterator[Piece]:
    after = 0
    for match in pattern.finditer(cut.translate(_fold)) if pattern else ():
        if match.start() > after:
            yield Piece(cut[after : match.start()])
        yield Piece(cut[match.start() : match.end()], found=True)
        after = match.end()
    if cut[after:]:
        yield Piece(cut[after:])


def _dots(is_cut: bool) -> list[Piece]:
    return [Piece("…")] if is_cut else []


SCANNED = 500
"""Most matching titles and messages, the newest, that are read: a session may have many."""

EXCERPT = 160
"""Characters of an excerpt around the match."""


@dataclass(frozen=True)
class Found:
    """A session that a search has found, with an excerpt of its newest message that matches.

    `excerpt` is "" if only the title matches, or nothing was searched for. `active_at` is ISO 8601.
    """

    session_id: str
    title: str
    active_at: str
    archived: bool
    excerpt: str


@dataclass(frozen=True)
class Said:
    """A conversation as text; `shortened` if its beginning may have been left out.

    `messages` is the number of messages with text that were read, of which `text` may lack the
    first. `created_at`, of the session, is ISO 8601.
    """

    session_id: str
    title: str
    created_at: str
    messages: int
    shortened: bool
    text: str


@dataclass(frozen=True)
class Count:
    """How many messages a person has written in a period, and in how many conversations."""

    conversations: int
    messages: int


def search_sessions(user: User, text: str, *, limit: int, apart_from: UUID) -> list[Found]:
    """Return sessions with all words of `text` in the title or in one message.

    Archived ones too, but not the session `apart_from`. Of the `SCANNED` newest titles and messages
    that match, the `limit` sessions that come first are returned, latest activity first. With a
    `text` of spaces, returns the `limit` sessions with the latest activity.
    """
    if not text.strip():
        newest = sessions_of(user).exclude(pk=apart_from).order_by("-active_at", "-id")
        return [_found(session) for session in newest[:limit]]
    found: dict[UUID, Found] = {}
    for entry in find_entries(user, text, SCANNED):
        known = found.get(entry.session_id)
        if entry.session_id == apart_from or (known is None and len(found) >= limit):
            continue
        if known is None or not known.excerpt:
            excerpt = _excerpt(entry.text, text) if entry.message_id else ""
            found[entry.session_id] = _found(entry.session, excerpt)
    return sorted(found.values(), key=lambda one: one.active_at, reverse=True)


def _found(session: ChatSession, excerpt: str = "") -> Found:
    return Found(
        session_id=str(session.pk),
        title=session.title,
        active_at=session.active_at.isoformat(),
        archived=session.is_archived,
        excerpt=excerpt,
    )


def _excerpt(text: str, words: str) -> str:
    return "".join(piece.text for piece in cut_excerpt(text, words, EXCERPT))


def read_session(user: User, session_id: str, *, max_chars: int, limit: int = 200) -> Said:
    """Return the text of the last `limit` messages of a session's active branch, oldest first.

    Each has its role before it. Of that text, only the last `max_chars` characters, which must be
    at least 1. Raises `AgentSiteError(not_found)`.
    """
    session = get_session(user, session_id)
    ids = list_path(session.active_leaf_id, limit) if session.active_leaf_id else []
    lines = [f"{message.role}: {message.text}" for message in load_messages(ids) if message.text]
    text = "\n\n".join(lines)
    return Said(
        session_id=str(session.pk),
        title=session.title,
        created_at=session.created_at.isoformat(),
        messages=len(lines),
        shortened=len(text) > max_chars or len(ids) == limit,
        text=text[-max_chars:],
    )


def count_since(user: User, start: datetime | None) -> Count:
    """Count the messages that a person has written at or after `start`; None: all of them.

    Withdrawn messages and deleted sessions are not counted.
    """
    written = Message.objects.filter(session__in=sessions_of(user), role=Role.USER, withdrawn=False)
    if start is not None:
        written = written.filter(created_at__gte=start)
    return Count(
        conversations=written.values("session").distinct().count(), messages=written.count()
    )
