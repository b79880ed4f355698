"""Checks that make real services answer 400, for histories that break the API's rules.

These are the rules of all known servers combined: no real server is as strict.
"""

import itertools
import json
import re
from collections.abc import Iterable
from typing import Any

Item = dict[str, Any]

ID_PREFIXES = {"message": "msg", "function_call": "fc", "reasoning": "rs"}
TOOL_NAME = re.compile("[a-zA-Z0-9_-]{1,64}")
CALL_ID_CHARS = 40


def refusal(api: str, body: dict[str, Any], *, needs_reasoning: bool = False) -> str:
    """Return why `body` must be refused; empty if it is valid.

    With `needs_reasoning`, a message with tool calls must carry the reasoning before them.
    """
    if not body.get("stream"):
        return "this stand-in only streams"
    if api == "chat":
        messages = body.get("messages") or []
        why = _refuse_messages(messages) or _refuse_roles(messages) or _refuse_contents(messages)
        why = why or _refuse_calls(messages, body.get("tools"))
        return why or (_refuse_thoughtless(messages) if needs_reasoning else "")
    items = body.get("input") or []
    return "" if items and isinstance(items, str) else _refuse_items(items)


def _refuse_roles(messages: list[Item]) -> str:
    """Users and assistants must alternate; calls and outputs stand between, before an answer."""
    roles = [m["role"] for m in messages if m["role"] not in ("system", "developer")]
    if not roles or roles[0] != "user":
        return "the first message must be a user's"
    if roles[-1] == "assistant":
        return "the last message must be a user's or a tool's"
    for before, role in itertools.pairwise(roles):
        if (before, role) in (("user", "user"), ("assistant", "assistant"), ("tool", "user")):
            return f"roles must alternate, not {before} and {role}"
    return ""


def _refuse_contents(messages: list[Item]) -> str:
    for number, message in enumerate(messages):
        content = message.get("content")
        texts = (
            [content] if isinstance(content, str) else [p.get("text", "") for p in content or []]
        )
        if content is None and message.get("tool_calls"):
            continue
        if not texts or not all(text.strip() for text in texts):
            return f"content of message {number} must not be empty"
    return ""


def _refuse_calls(messages: list[Item], tools: object) -> str:
    for call in (call for message in messages for call in message.get("tool_calls") or []):
        if not tools:
            return "tools must be defined where there are tool calls"
        if not TOOL_NAME.fullmatch(call["function"]["name"]):
            return f"no name of a tool: {call['function']['name']}"
        if not 0 < len(call["id"]) <= CALL_ID_CHARS:
            return f"id is empty or too long: {call['id']}"
        if not _is_object(call["function"]["arguments"]):
            return f"arguments are no JSON object: {call['function']['arguments']}"
    return ""


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _refuse_thoughtless(messages: list[Item]) -> str:
    for number, message in enumerate(messages):
        if message.get("tool_calls") and not message.get("reasoning_content"):
            return f"reasoning_content is missing in tool call message {number}"
    return ""


def _refuse_messages(messages: list[Item]) -> str:
    """A message with tool calls must be followed at once by the output of each, and only there."""
    if not messages:
        return "messages is empty"
    waiting: set[str] = set()
    for message in messages:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                return f"tool output without its call: {message['tool_call_id']}"
            waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            break
        waiting = {call["id"] for call in message.get("tool_calls") or []}
    return f"tool call without its output: {', '.join(sorted(waiting))}" if waiting else ""


def _refuse_items(items: list[Item]) -> str:
    if not items:
        return "input is empty"
    return _refuse_ids(items) or _refuse_pairs(items) or _refuse_reasoning(items)


def _refuse_ids(items: list[Item]) -> str:
    seen: set[str] = set()
    for item in items:
        item_id, prefix = item.get("id"), ID_PREFIXES.get(item.get("type", "message"))
        if item_id is None or prefix is None:
            continue
        if not item_id.startswith(prefix):
            return f"id must begin with {prefix}: {item_id}"
        if item_id in seen:
            return f"id occurs twice: {item_id}"
        seen.add(item_id)
    return ""


def _refuse_pairs(items: list[Item]) -> str:
    calls = _call_ids(items, "function_call")
    outputs = _call_ids(items, "function_call_output")
    if missing := [call_id for call_id in calls if call_id not in outputs]:
        return f"tool call without its output: {', '.join(missing)}"
    if orphans := [call_id for call_id in outputs if call_id not in calls]:
        return f"tool output without its call: {', '.join(orphans)}"
    return ""


def _call_ids(items: Iterable[Item], kind: str) -> list[str]:
    return [item["call_id"] for item in items if item.get("type") == kind]


def _refuse_reasoning(items: list[Item]) -> str:
    """A reasoning item must be followed by the output item that it belongs to."""
    for item, after in zip(items, [*items[1:], {"role": "user"}], strict=True):
        if item.get("type") == "reasoning" and after.get("role") == "user":
            return f"reasoning without the item it belongs to: {item.get('id')}"
    return ""
