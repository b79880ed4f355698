"""Examples for fine-tuning, in the chat format of OpenAI: one conversation a line."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from conversations.exports.source import Conversation, Record, read_items
from conversations.items import CALL, OUTPUT, items_of_parts, mend, whole_json
from conversations.models import RunStatus, Verdict

Turn = dict[str, Any]
Pair = tuple[Record, Record]
"""A question and its completed reply."""

PAIRS_A_BATCH = 50
"""Whose items are read together."""


def write_examples(conversations: Iterable[Conversation]) -> Iterator[str]:
    """The active branch of each, questions whose replies came to an answer alone."""
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
            # A model that is taught anything else learns to stop in the middle.
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
    """With weight 0, which is "not to be learnt", where a reader has found the reply bad."""
    is_bad = any(verdict["value"] == Verdict.DOWN for verdict in reply["feedback"])
    for turn in turns:
        yield {**turn, "weight": 0} if is_bad and turn["role"] == "assistant" else turn


def _reply(items: Iterable[Record]) -> Iterator[Turn]:
    """A turn for each text with the calls that were made after it, and for each output."""
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
