"""From what is stored to what the model is given, and back."""

from collections.abc import Iterable
from typing import Any

from conversations.lifecycle import partial_items
from conversations.queries import Turn

Item = dict[str, Any]

CANCELLED_OUTPUT = "The user stopped this before it had finished."


def model_input(turns: Iterable[Turn]) -> list[Item]:
    """The input items of a run: users' texts, and the items of the replies between them."""
    items: list[Item] = []
    for turn in turns:
        items += [{"role": "user", "content": turn.text}] if turn.text else turn.items
    return items


def stored_items(made: Iterable[Item], cut_text: str) -> list[Item]:
    """What later runs are given of a reply: its items in a form that every provider takes.

    Ids and reasoning belong to one provider's memory and are left out. A tool call that a stop
    left without its output gets one, since providers refuse a call without. `cut_text` is text
    that no finished item holds.
    """
    items = [kept for item in made if (kept := _portable(item)) is not None]
    return [*_mend(items), *partial_items(cut_text)]


def _portable(item: Item) -> Item | None:
    kind = item.get("type")
    if kind == "function_call":
        return {"type": kind, **{key: item[key] for key in ("call_id", "name", "arguments")}}
    if kind == "function_call_output":
        return {"type": kind, "call_id": item["call_id"], "output": item["output"]}
    if item.get("role") == "assistant":
        text = _text(item["content"])
        return {"role": "assistant", "content": text} if text else None
    return None


def _text(content: str | list[Item]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or part.get("refusal") or "" for part in content)


def _mend(items: list[Item]) -> list[Item]:
    """Every output after its call, every call with its output."""
    asked: set[str] = set()
    kept: list[Item] = []
    for item in items:
        if item.get("type") == "function_call":
            asked.add(item["call_id"])
        if item.get("type") != "function_call_output" or item["call_id"] in asked:
            kept.append(item)
    answered = {item["call_id"] for item in kept if item.get("type") == "function_call_output"}
    return [mended for item in kept for mended in _answer(item, answered)]


def _answer(item: Item, answered: set[str]) -> list[Item]:
    open_call = item.get("type") == "function_call" and item["call_id"] not in answered
    return [item, _output(item["call_id"])] if open_call else [item]


def _output(call_id: str) -> Item:
    return {"type": "function_call_output", "call_id": call_id, "output": CANCELLED_OUTPUT}
