"""Conversations to read: Markdown and plain text."""

import json
from collections.abc import Iterable, Iterator

from conversations.exports.digest import Digest
from conversations.exports.source import Conversation, Record
from conversations.models import RunStatus
from conversations.text import visible

FENCE = "```"


def write_markdown(conversations: Iterable[Conversation]) -> Iterator[str]:
    """A heading for each conversation, message, tool and thought.

    All that anybody has said is a quotation: no text can pass for a heading, or hide one.
    """
    for conversation in conversations:
        digest = Digest(conversation)
        yield f"# {_one_line(conversation.session['title'])}\n\n"
        for message in digest.messages():
            yield f"## {heading(message)}\n\n"
            yield from (f"{_part_markdown(part)}\n\n" for part in message["parts"])
        yield f"---\n\nSHA-256: `{digest.value}`\n\n"


def write_text(conversations: Iterable[Conversation]) -> Iterator[str]:
    """The same without markup, and without characters that a terminal would obey."""
    for conversation in conversations:
        digest = Digest(conversation)
        yield f"{visible(_one_line(conversation.session['title']))}\n\n"
        for message in digest.messages():
            yield f"[{heading(message)}]\n"
            yield from (f"{_indent(visible(_part_text(part)))}\n" for part in message["parts"])
            yield "\n"
        yield f"SHA-256: {digest.value}\n\n"


def heading(message: Record) -> str:
    """Who, when, how it ended if not well, and whether people still see it."""
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
            return f"({_tool_name(part)}) {part.get('arguments') or ''} -> {_output(part)}"


def _tool_name(part: Record) -> str:
    return f"{part.get('name', part['type'])}: {part.get('status', '')}"


def _fenced(part: Record) -> str:
    """Longer than any fence inside."""
    body = f"{part.get('arguments') or ''}\n{_output(part)}".strip()
    fence = FENCE
    while fence in body:
        fence += "`"
    return f"{fence}\n{body}\n{fence}"


def _output(part: Record) -> str:
    output = part.get("output") or ""
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)


def _quote(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def _indent(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())


def _one_line(text: str) -> str:
    return " ".join(text.split())
