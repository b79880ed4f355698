"""Brings the input items of a model call into a form that the strictest known servers accept.

Some servers refuse two messages of one role in a row, a call without its output or without the
reasoning before it, calls if no tools are declared, empty texts, and invalid names or arguments of
tools. Without this a conversation that holds one of these would be refused for ever.
"""

import json
import re
from collections.abc import Iterable, Iterator
from hashlib import sha256

from conversations.runs.inputs import CALL, OUTPUT, REASONING, Item, mend
from conversations.text import estimate_items

LEFT_OUT = "[The beginning of this conversation is left out.]\n\n"
CLIPPED = "\n[the rest was left out]"
NOT_ANSWERED = "[This was not answered.]"
NO_OUTPUT = "[no output]"
NO_TEXT = "[no text]"
THOUGHTS = "[not kept]"

ID_CHARS = 36
"""Characters of a call's id: OpenAI accepts 40, and `mend` may add a number."""

CLIP_MIN = 200
"""Characters of a tool's output that are always kept."""

PLAIN_OUTPUT_CHARS = 2_000

_NO_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_OF_SERVERS = (None, "__fake_id__")
"""Ids of messages that may be joined: the SDK's placeholder for Chat Completions, and none."""


def settle(items: Iterable[Item]) -> list[Item]:
    """Return `items` with alternating roles, complete pairs, and valid texts, names and arguments.

    Unless it is empty, the result starts with a user's text. Before a later one that does not
    follow a text of the model comes a note that the one before was not answered. Successive texts
    of the model are joined unless a server gave them ids; empty ones are dropped, and so is
    reasoning before a user's text. Settling settled items changes nothing.
    """
    settled: list[Item] = []
    for item in mend(map(_sound, items)):
        is_user = item.get("role") == "user"
        if not settled and not is_user:
            settled.append({"role": "user", "content": LEFT_OUT.strip()})
        if is_user:
            _drop_thoughts(settled)
            if settled and settled[-1].get("role") != "assistant":
                settled.append({"role": "assistant", "content": NOT_ANSWERED})
        if _joins(settled, item):
            _drop_thoughts(settled)
            settled[-1] = _join(settled[-1], item)
        elif item.get("role") != "assistant" or text_of(item).strip():
            settled.append(item)
    return settled


def text_of(item: Item) -> str:
    """Return the text of a message or of a tool's output, in the SDK's form or in ours.

    "" if it has none; refusals count as text.
    """
    content = item.get("output") if item.get("type") == OUTPUT else item.get("content")
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or part.get("refusal") or "" for part in content or ())


def _sound(item: Item) -> Item:
    """Return one item with valid fields."""
    if item.get("type") == CALL:
        name = _NO_NAME.sub("_", item["name"])[:64] or "tool"
        arguments = item["arguments"] if _is_object(item["arguments"]) else "{}"
        changes = {"call_id": _short(item["call_id"]), "name": name, "arguments": arguments}
        return item if changes.items() <= item.items() else item | changes
    if item.get("type") == OUTPUT:
        output = item["output"]
        is_blank = not output or (isinstance(output, str) and not output.strip())
        output = NO_OUTPUT if is_blank else output
        return item | {"call_id": _short(item["call_id"]), "output": output}
    if item.get("role") == "user" and not (item["content"] and text_of(item).strip()):
        return item if isinstance(item["content"], list) else item | {"content": NO_TEXT}
    return item


def _is_object(arguments: str) -> bool:
    try:
        return isinstance(json.loads(arguments), dict)
    except ValueError:
        return False


def _short(call_id: str) -> str:
    return call_id if len(call_id) <= ID_CHARS else sha256(call_id.encode()).hexdigest()[:32]


def _drop_thoughts(settled: list[Item]) -> None:
    """Drop reasoning at the end: nothing follows that it belongs to."""
    while settled and settled[-1].get("type") == REASONING:
        settled.pop()


def _joins(settled: list[Item], item: Item) -> bool:
    """Return whether the item and the one before it are texts of the model without real ids."""
    before = next((old for old in reversed(settled) if old.get("type") != REASONING), {})
    both = (before, item)
    return all(one.get("role") == "assistant" and one.get("id") in _OF_SERVERS for one in both)


def _join(before: Item, item: Item) -> Item:
    texts = [text for text in map(text_of, (before, item)) if text.strip()]
    return {"role": item["role"], "content": "\n\n".join(texts)}


def flatten(items: list[Item]) -> list[Item]:
    """Return `items` without calls and with outputs as texts, for a model without tools.

    Outputs before the last user's text are texts of the model; later ones are texts of the user,
    joined to one right before. Each is cut to `PLAIN_OUTPUT_CHARS`. Reasoning is left out.
    """
    after = _last_text(items) + 1
    told = [*_in_words(items[:after], "assistant")]
    for item in _in_words(items[after:], "user"):
        if told and item.get("role") == told[-1].get("role") == "user":
            told[-1] = _join(told[-1], item)
        else:
            told.append(item)
    return told


def flatten_earlier(items: list[Item]) -> list[Item]:
    """Return `items` as `flatten` does, but the last user's text and those after it unchanged."""
    last = _last_text(items)
    return [*_in_words(items[:last], "assistant"), *items[last:]]


def _last_text(items: list[Item]) -> int:
    return max((n for n, item in enumerate(items) if item.get("role") == "user"), default=0)


def _in_words(items: list[Item], role: str) -> Iterator[Item]:
    names = {item["call_id"]: item["name"] for item in items if item.get("type") == CALL}
    for item in items:
        if item.get("type") == OUTPUT:
            said = text_of(item)[:PLAIN_OUTPUT_CHARS]
            yield {"role": role, "content": f"[{names.get(item['call_id'], 'tool')}: {said}]"}
        elif item.get("type") not in (CALL, REASONING):
            yield item


def halve(items: list[Item]) -> list[Item] | None:
    """Return the newest turns that have at most half of the estimated tokens, but at least one.

    A turn begins with a user's text. A note says that the beginning is left out. Of a single turn,
    its tools' outputs are cut to half their length instead, but not below `CLIP_MIN` characters.
    None if nothing can go.
    """
    limit = estimate_items(items) / 2
    starts = [number for number, item in enumerate(items) if item.get("role") == "user"][1:]
    for start in starts:
        if start == starts[-1] or estimate_items(items[start:]) <= limit:
            return [_left_out(items[start]), *items[start + 1 :]]
    clipped = [_clip_half(item) for item in items]
    return clipped if clipped != items else None


def last_alone(items: list[Item]) -> list[Item] | None:
    """Return the last turn, with a note that those before are left out; None if there are none."""
    last = _last_text(items)
    return [_left_out(items[last]), *items[last + 1 :]] if last else None


def _left_out(item: Item) -> Item:
    text = text_of(item)
    return {"role": "user", "content": text if text.startswith(LEFT_OUT) else LEFT_OUT + text}


def _clip_half(item: Item) -> Item:
    if item.get("type") != OUTPUT:
        return item
    text = text_of(item).removesuffix(CLIPPED)
    if isinstance(item["output"], str) and len(text) <= CLIP_MIN:
        return item
    return item | {"output": text[: max(CLIP_MIN, len(text) // 2)] + CLIPPED}


def with_thoughts(items: Iterable[Item], model: str) -> list[Item]:
    """Return `items` with reasoning before each group of calls that has none.

    Some servers demand it. What is added is a placeholder, as if by `model`.
    """
    thought = {
        "type": REASONING,
        "summary": [{"type": "summary_text", "text": THOUGHTS}],
        "provider_data": {"model": model},
    }
    done: list[Item] = []
    has_thoughts = False
    for item in items:
        kind = item.get("type")
        if kind == REASONING:
            has_thoughts = True
        elif kind == CALL and not has_thoughts:
            done.append(thought)
            has_thoughts = True
        elif kind == OUTPUT or item.get("role") == "user":
            has_thoughts = False
        done.append(item)
    return done


def without_thoughts(items: Iterable[Item]) -> list[Item]:
    """Return `items` without reasoning."""
    return [item for item in items if item.get("type") != REASONING]


def as_message(item: Item) -> Item:
    """Return an assistant's text in the form that the SDK joins with calls after it.

    Any other item is returned unchanged.
    """
    if item.get("role") != "assistant" or item.get("type") == "message":
        return item
    part = {"type": "output_text", "text": text_of(item), "annotations": []}
    return {"type": "message", "id": "", "role": "assistant", "content": [part]}
