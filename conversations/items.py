"""What the model sees of a reply: items that every provider takes, calls and outputs in pairs."""

import json
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any

Item = dict[str, Any]

CALL = "function_call"
OUTPUT = "function_call_output"
REASONING = "reasoning"

STOPPED_OUTPUT = "The user stopped this before it had finished."
LOST_OUTPUT = "The server stopped before this had finished."


def mend(items: Iterable[Item], missing: str = STOPPED_OUTPUT) -> list[Item]:
    """Every call followed by its output, under an id that occurs once; `missing` where it has none.

    Calls that stand together were made together: their outputs come after the last of them.
    Outputs without a call are left out.
    """
    items = list(items)
    outputs = _outputs(items)
    mended: list[Item] = []
    answers: list[Item] = []
    taken: set[str] = set()
    for item in items:
        if item.get("type") != CALL:
            mended += answers
            answers = []
        if item.get("type") == CALL:
            waiting = outputs[item["call_id"]]
            answer = waiting.popleft() if waiting else {"type": OUTPUT, "output": missing}
            call_id = _fresh(item["call_id"], taken)
            mended.append(item | {"call_id": call_id})
            answers.append(answer | {"call_id": call_id})
        elif item.get("type") != OUTPUT:
            mended.append(item)
    return mended + answers


def _outputs(items: list[Item]) -> dict[str, deque[Item]]:
    """By id, in order: some servers give the same one to a call in every turn."""
    outputs: dict[str, deque[Item]] = defaultdict(deque)
    for item in items:
        if item.get("type") == OUTPUT:
            outputs[item["call_id"]].append(item)
    return outputs


def _fresh(call_id: str, taken: set[str]) -> str:
    number, fresh = 1, call_id or "call"
    while fresh in taken:
        number += 1
        fresh = f"{call_id or 'call'}_{number}"
    taken.add(fresh)
    return fresh


def text_items(text: str) -> list[Item]:
    """The model's own text, if there is any."""
    return [{"role": "assistant", "content": text}] if text else []


def items_of_parts(parts: Iterable[dict[str, Any]]) -> list[Item]:
    """What the model is told of a reply whose own items were lost with its worker."""
    items: list[Item] = []
    for part in parts:
        if part["type"] == "text":
            items += text_items(part["text"])
        elif part["type"] == "tool":
            items += _pair(part)
    return mend(items, LOST_OUTPUT)


def _pair(part: dict[str, Any]) -> list[Item]:
    call_id = part["tool_call_id"]
    arguments = whole_json(part.get("arguments") or "")
    call = {"type": CALL, "call_id": call_id, "name": part["name"], "arguments": arguments}
    output = part.get("output")
    return [call, {"type": OUTPUT, "call_id": call_id, "output": output}] if output else [call]


def whole_json(arguments: str) -> str:
    """`arguments`, or an empty object for what is no JSON, such as the beginning of long ones.

    Models refuse it.
    """
    try:
        json.loads(arguments)
    except ValueError:
        return "{}"
    return arguments
