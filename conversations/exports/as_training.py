"""Examples for fine-tuning, in the chat format of OpenAI: one conversation a line."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from conversations.exports.source import Conversation, Record
from conversations.models import RunStatus

Turn = dict[str, Any]


def write_examples(conversations: Iterable[Conversation]) -> Iterator[str]:
    """The active branch of each, without questions that have no completed reply."""
    for conversation in conversations:
        turns = list(_turns(conversation))
        if turns:
            yield json.dumps({"messages": turns}, ensure_ascii=False) + "\n"


def _turns(conversation: Conversation) -> Iterator[Turn]:
    question: Record | None = None
    for message in conversation.messages:
        if not message["on_active_branch"]:
            continue
        if message["role"] == "user":
            question = message
        elif question is not None and message["run_status"] == RunStatus.COMPLETED:
            yield {"role": "user", "content": question["text"]}
            yield from _reply(message["parts"])
            question = None


def _reply(parts: list[Record]) -> Iterator[Turn]:
    """Texts and tool calls in order; a call and its result are two turns."""
    for part in parts:
        if part["type"] == "text":
            yield {"role": "assistant", "content": part["text"]}
        elif part["type"] == "tool":
            yield {"role": "assistant", "content": None, "tool_calls": [_call(part)]}
            yield {
                "role": "tool",
                "tool_call_id": part["tool_call_id"],
                "content": part.get("output") or "",
            }


def _call(part: Record) -> Record:
    function = {"name": part["name"], "arguments": part.get("arguments") or "{}"}
    return {"id": part["tool_call_id"], "type": "function", "function": function}
