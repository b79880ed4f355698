"""Writes conversations as JSON, CSV, training examples, Markdown, plain text or HTML."""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from conversations.exports.source import (
    TIMING_FIELDS,
    USAGE_FIELDS,
    Conversation,
    Record,
    read_items,
)
from conversations.models import RunStatus, Verdict
from conversations.runs.inputs import CALL, OUTPUT, items_of_parts, mend, whole_json
from conversations.sessions.rendering import read_html, show_parts
from conversations.shapes import view_of_fields
from conversations.text import visible


def canonical(record: Record) -> str:
    """Return the canonical JSON of a record: sorted keys, no spaces, no escapes beyond ASCII."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(record: Record) -> str:
    """Return the SHA-256 of a record's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical(record).encode()).hexdigest()


class Digest:
    """Computes the SHA-256 of a conversation while its messages are read.

    The session's header and each message are hashed as canonical JSON and a newline.
    """

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._sum = hashlib.sha256()
        self._add(conversation.session)

    def _add(self, record: Record) -> None:
        self._sum.update(canonical(record).encode() + b"\n")

    def messages(self) -> Iterator[Record]:
        """Yield the conversation's messages, each after adding it to the sum; iterate only once."""
        for message in self._conversation.messages:
            self._add(message)
            yield message

    @property
    def value(self) -> str:
        """The SHA-256 of the header and the messages yielded so far, in hexadecimal."""
        return self._sum.hexdigest()


ONE = "agentsite.transcript"
MANY = "agentsite.transcripts"
VERSION = 1


def write_one(conversations: Iterable[Conversation]) -> Iterator[str]:
    """Write the one conversation in `conversations` as a JSON object that ends with its SHA-256.

    With several, the result is not JSON.
    """
    for conversation in conversations:
        yield f"{{{_head(ONE)}, {_pair('session', conversation.session)}, "
        yield from _messages(conversation)
        yield "}\n"


def write_many(conversations: Iterable[Conversation]) -> Iterator[str]:
    """Write all conversations as one JSON object, each with its SHA-256."""
    yield f'{{{_head(MANY)}, "sessions": ['
    separator = "\n"
    for conversation in conversations:
        yield f"{separator}{{{_pair('session', conversation.session)}, "
        yield from _messages(conversation)
        yield "}"
        separator = ",\n"
    yield "\n]}\n"


def write_lines(conversations: Iterable[Conversation]) -> Iterator[str]:
    """Write a line of JSON per message, with its session's header and the message's own SHA-256.

    Sessions without messages have no line.
    """
    for conversation in conversations:
        for message in conversation.messages:
            line = {"session": conversation.session, **message, "sha256": digest_of(message)}
            yield json.dumps(line, ensure_ascii=False) + "\n"


def _head(name: str) -> str:
    exported_at = timezone.now().isoformat()
    return ", ".join(
        (_pair("format", name), _pair("version", VERSION), _pair("exported_at", exported_at))
    )


def _messages(conversation: Conversation) -> Iterator[str]:
    digest = Digest(conversation)
    yield '"messages": ['
    separator = "\n"
    for message in digest.messages():
        yield separator + json.dumps(message, ensure_ascii=False)
        separator = ",\n"
    yield f"\n], {_pair('sha256', digest.value)}"


def _pair(name: str, value: object) -> str:
    return f'"{name}": {json.dumps(value, ensure_ascii=False)}'


OF_MESSAGE = (
    *("number", "message_id", "parent_message_id", "role", "created_at", "on_active_branch"),
    *("run_status", "reason", "error_code", "agent", "model"),
)
OF_SESSION = ("owner_id", "owner", "archived_at", "deleted_at", "currency")
OF_REVIEW = ("labels", "note", "assignee", "reviewed_by", "reviewed_at")
COLUMNS = (
    *("session_id", "title", *OF_MESSAGE, "text", "tools", "feedback"),
    *USAGE_FIELDS,
    *("cost", "retries"),
    *(f"run_{name}" for name in TIMING_FIELDS),
    "sha256",
    *("tool_calls", "feedback_comments", *OF_SESSION, *OF_REVIEW),
)
"""The columns of a CSV export.

Add new ones at the end: programs may rely on the positions of the others. Only exports by staff
fill the columns of a review.
"""

BYTE_ORDER_MARK = "\ufeff"
"""Without it, Excel assumes another encoding."""

DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n", "\x00", "＝", "＋", "－", "＠")


def write_rows(conversations: Iterable[Conversation]) -> Iterator[str]:
    """Write CSV with the `COLUMNS`: a header row, then a row per message.

    A session without messages has one row. Cells are made safe by `safe_cell`.
    """
    yield BYTE_ORDER_MARK + _line(COLUMNS)
    for conversation in conversations:
        message = None
        for message in conversation.messages:
            yield _line(map(safe_cell, _cells(conversation.session, message)))
        if message is None:
            yield _line(map(safe_cell, _cells(conversation.session, {"parts": [], "feedback": []})))


def safe_cell(value: object) -> str:
    """Return `value` as the text of a cell that no spreadsheet evaluates as a formula.

    None becomes "". A text that begins, after spaces, with one of `DANGEROUS` gets an apostrophe in
    front, and NUL is replaced.
    """
    text = "" if value is None else str(value)
    kept = text.replace("\x00", "\ufffd")
    return f"'{kept}" if text.lstrip(" ").startswith(DANGEROUS) else kept


def _cells(session: Record, message: Record) -> Iterator[object]:
    yield from (session["id"], session["title"])
    yield from (message.get(name) for name in OF_MESSAGE)
    yield message.get("text")
    tools = [part for part in message["parts"] if part["type"] == "tool"]
    yield " ".join(f"{tool['name']}({tool['status']})" for tool in tools)
    yield " ".join(verdict["value"] for verdict in message["feedback"])
    yield from (message.get("usage", {}).get(name) for name in USAGE_FIELDS)
    yield from (message.get("cost"), message.get("retries"))
    yield from (message.get("timings", {}).get(name) for name in TIMING_FIELDS)
    yield digest_of(message)
    yield json.dumps(tools, ensure_ascii=False) if tools else None
    yield "\n".join(verdict["comment"] for verdict in message["feedback"])
    yield from (session.get(name) for name in OF_SESSION)
    review = session.get("review") or {}
    yield ", ".join(review.get("labels", ()))
    yield from (review.get(name) for name in OF_REVIEW[1:])


def _line(cells: Iterable[object]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue()


Turn = dict[str, Any]
Pair = tuple[Record, Record]
"""A message of a person and its completed reply."""

PAIRS_A_BATCH = 50
"""Pairs whose items are read in one query."""


def write_examples(conversations: Iterable[Conversation]) -> Iterator[str]:
    """Write a training example per conversation, as a line of JSON with chat messages.

    It contains the completed replies of the active branch that end with an answer, with their tool
    calls, each after the message it replies to. The agent's instructions are not in it. Replies
    that somebody rated bad have weight 0. A conversation without such replies is left out.
    """
    for conversation in conversations:
        turns = list(_turns(conversation))
        if turns:
            yield json.dumps({"messages": turns}, ensure_ascii=False) + "\n"


def _turns(conversation: Conversation) -> Iterator[Turn]:
    pairs = _pairs(conversation.messages)
    while batch := list(islice(pairs, PAIRS_A_BATCH)):
        items = read_items(reply["run_id"] for _, reply in batch)
        for question, reply in batch:
            said = list(_reply(items[reply["run_id"]] or items_of_parts(reply["parts"])))
            # Leave out replies that do not end with an answer: a model trained on them would learn
            # to stop in the middle.
            if said and said[-1]["role"] == "assistant" and "tool_calls" not in said[-1]:
                yield {"role": "user", "content": question["text"]}
                yield from _weighed(said, reply)


def _pairs(messages: Iterable[Record]) -> Iterator[Pair]:
    question: Record | None = None
    for message in messages:
        if not message["on_active_branch"]:
            continue
        if message["role"] == "user":
            question = message
        elif question is not None and message["run_status"] == RunStatus.COMPLETED:
            yield question, message
            question = None


def _weighed(turns: list[Turn], reply: Record) -> Iterator[Turn]:
    """Yield `turns`; those of a reply rated bad get weight 0, which excludes them from training."""
    is_bad = any(verdict["value"] == Verdict.DOWN for verdict in reply["feedback"])
    for turn in turns:
        yield {**turn, "weight": 0} if is_bad and turn["role"] == "assistant" else turn


def _reply(items: Iterable[Record]) -> Iterator[Turn]:
    """Yield an assistant turn for each text and the calls after it, and a tool turn per output."""
    said: Turn | None = None
    for item in mend(items):
        kind = item.get("type")
        if kind == CALL:
            said = said or {"role": "assistant", "content": None}
            said.setdefault("tool_calls", []).append(_call(item))
            continue
        if said is not None and (kind == OUTPUT or "tool_calls" in said):
            yield said
            said = None
        if kind == OUTPUT:
            yield {
                "role": "tool",
                "tool_call_id": item["call_id"],
                "content": _output(item["output"]),
            }
        elif item.get("role") == "assistant" and (text := _text(item["content"])):
            said = _joined(said, text)
    if said is not None:
        yield said


def _joined(said: Turn | None, text: str) -> Turn:
    before = said["content"] + "\n\n" if said else ""
    return {"role": "assistant", "content": before + text}


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or part.get("refusal") or "" for part in content)


def _output(output: Any) -> str:
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)


def _call(item: Record) -> Record:
    function = {"name": item["name"], "arguments": whole_json(item["arguments"])}
    return {"id": item["call_id"], "type": "function", "function": function}


FENCE = "```"


def write_markdown(conversations: Iterable[Conversation]) -> Iterator[str]:
    """Write Markdown: a heading for each conversation, message, and part that is not text.

    The content of messages is quoted, so that it can neither pass for a heading nor hide one. Each
    conversation ends with its SHA-256.
    """
    for conversation in conversations:
        digest = Digest(conversation)
        yield f"# {_one_line(conversation.session['title'])}\n\n"
        for message in digest.messages():
            yield f"## {heading(message)}\n\n"
            yield from (f"{_part_markdown(part)}\n\n" for part in message["parts"])
        yield f"---\n\nSHA-256: `{digest.value}`\n\n"


def write_text(conversations: Iterable[Conversation]) -> Iterator[str]:
    """Write plain text, in which a title and messages are as `visible` shows them.

    Each conversation ends with its SHA-256.
    """
    for conversation in conversations:
        digest = Digest(conversation)
        yield f"{visible(_one_line(conversation.session['title']))}\n\n"
        for message in digest.messages():
            yield f"[{heading(message)}]\n"
            yield from (f"{_indent(visible(_part_text(part)))}\n" for part in message["parts"])
            yield "\n"
        yield f"SHA-256: {digest.value}\n\n"


def heading(message: Record) -> str:
    """Return a line in English with a message's author, for a reply its agent, and time.

    Notes follow if the message is not on the active branch, or if its run has not completed.
    """
    who = "User" if message["role"] == "user" else message["agent"] or "Assistant"
    notes = [] if message["on_active_branch"] else ["left branch"]
    if message["run_status"] not in (None, RunStatus.COMPLETED):
        cause = message["error_code"] or message["reason"]
        notes.append(f"{message['run_status']}{f': {cause}' if cause else ''}")
    return " · ".join((_one_line(who), message["created_at"], *notes))


def _part_markdown(part: Record) -> str:
    match part["type"]:
        case "text":
            return _quote(part["text"])
        case "reasoning":
            return f"### Reasoning\n\n{_quote(part['text'])}"
        case _:
            return f"### {_one_line(_tool_name(part))}\n\n{_quote(_fenced(part))}"


def _part_text(part: Record) -> str:
    match part["type"]:
        case "text":
            return str(part["text"])
        case "reasoning":
            return f"(reasoning) {part['text']}"
        case _:
            return f"({_tool_name(part)}) {part.get('arguments') or ''} -> {_output_text(part)}"


def _tool_name(part: Record) -> str:
    return f"{part.get('name', part['type'])}: {part.get('status', '')}"


def _fenced(part: Record) -> str:
    """Put the arguments and output in a code block whose fence is longer than any fence inside."""
    body = f"{part.get('arguments') or ''}\n{_output_text(part)}".strip()
    fence = FENCE
    while fence in body:
        fence += "`"
    return f"{fence}\n{body}\n{fence}"


def _output_text(part: Record) -> str:
    output = part.get("output") or ""
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)


def _quote(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def _indent(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())


def _one_line(text: str) -> str:
    return " ".join(text.split())


MESSAGES_A_BATCH = 50
"""Messages whose HTML is read in one query and held in memory."""

HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="referrer" content="no-referrer">
<title>Conversations</title>
<style>
:root { color-scheme: light dark; --muted: light-dark(#57615f, #a6b0b2);
  --line: light-dark(#dfe3e2, #353b41); --bubble: light-dark(#eaf0ef, #2c3237); }
body { max-width: 46rem; margin: 0 auto; padding: 2rem 1rem; overflow-wrap: anywhere;
  background: light-dark(#ffffff, #17191c); color: light-dark(#1a1f1e, #e8ecec);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
section + section { margin-top: 3rem; padding-top: 2rem; border-top: 1px solid var(--line); }
h1 { margin: 0 0 1.5rem; font-size: 1.5rem; line-height: 1.25; }
article { margin: 1.5rem 0; }
article > h2 { margin: 0 0 0.25rem; color: var(--muted); font-size: 0.8rem; font-weight: 600; }
.user > h2 { text-align: end; }
.said { width: fit-content; max-width: min(85%, 36rem); margin-inline-start: auto;
  padding: 0.5rem 1rem; border-radius: 16px; background: var(--bubble); }
.said, pre { white-space: pre-wrap; }
pre { padding: 0.75rem 1rem; border: 1px solid var(--line); border-radius: 8px; }
code, pre { font: 0.9em/1.5 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.left { opacity: 0.75; }
details { color: var(--muted); font-size: 0.95rem; }
blockquote { margin-inline: 0; padding-inline-start: 1rem;
  border-inline-start: 3px solid var(--line); }
table { display: block; border-collapse: collapse; overflow-x: auto; }
td, th { padding: 0.5rem 1rem 0.5rem 0; border-bottom: 1px solid var(--line); text-align: start; }
footer { color: var(--muted); font-size: 0.8rem; }
a { color: light-dark(#0b6b69, #6fd0c8); }
</style>
</head>
<body>
"""


def write_page(conversations: Iterable[Conversation]) -> Iterator[str]:
    """Write all conversations as one HTML page that loads nothing and runs no script.

    Each conversation ends with its SHA-256.
    """
    yield HEAD
    for conversation in conversations:
        digest = Digest(conversation)
        yield format_html("<section>\n<h1>{}</h1>\n", conversation.session["title"])
        messages = digest.messages()
        while batch := list(islice(messages, MESSAGES_A_BATCH)):
            yield from _articles(batch)
        yield format_html("<footer>SHA-256: <code>{}</code></footer>\n</section>\n", digest.value)
    yield "</body>\n</html>\n"


def _articles(messages: list[Record]) -> Iterator[SafeString]:
    views = [view_of_fields(message) for message in messages]
    html = read_html(views)
    for message, view in zip(messages, views, strict=True):
        yield _article(message, show_parts(view, html))


def _article(message: Record, parts: list[Record]) -> SafeString:
    kind = message["role"] if message["on_active_branch"] else f"{message['role']} left"
    body = mark_safe("\n".join(map(_user_part, parts)))  # noqa: S308 (escaped below)
    if message["role"] == "assistant":
        body = mark_safe("\n".join(map(_part, parts)))  # noqa: S308 (the same)
    created_at = datetime.fromisoformat(message["created_at"]).astimezone(UTC)
    title = heading(message | {"created_at": f"{created_at:%Y-%m-%d %H:%M} UTC"})
    return format_html('<article class="{}">\n<h2>{}</h2>\n{}\n</article>\n', kind, title, body)


def _user_part(part: Record) -> SafeString:
    return format_html('<div class="said">{}</div>', part.get("text", ""))


def _part(part: Record) -> SafeString:
    if part["type"] == "text":
        html: SafeString = part["html"]
        return html
    if part["type"] == "reasoning":
        return format_html("<details><summary>Reasoning</summary>{}</details>", part["text"])
    return format_html(
        "<details><summary>{}: {}</summary><pre>{}</pre><pre>{}</pre></details>",
        part.get("name", part["type"]),
        part.get("status", ""),
        part.get("arguments") or "",
        part.get("output") or "",
    )
