"""What the real services refuse with 400, and a careless history would send."""

from collections.abc import Iterable
from typing import Any

Item = dict[str, Any]

ID_PREFIXES = {"message": "msg", "function_call": "fc", "reasoning": "rs"}


def refusal(api: str, body: dict[str, Any]) -> str:
    """Why `body` cannot be answered; empty if it can."""
    if not body.get("stream"):
        return "this stand-in only streams"
    if api == "chat":
        return _refuse_messages(body.get("messages") or [])
    items = body.get("input") or []
    return "" if items and isinstance(items, str) else _refuse_items(items)


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
    """A reasoning item belongs to the output item that follows it."""
    for item, after in zip(items, [*items[1:], {"role": "user"}], strict=True):
        if item.get("type") == "reasoning" and after.get("role") == "user":
            return f"reasoning without the item it belongs to: {item.get('id')}"
    return ""
