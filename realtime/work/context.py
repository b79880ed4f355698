"""What a model is given of a conversation, within its budget of tokens."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from conversations.errors import ErrorCode
from conversations.models import Run
from conversations.runs.inputs import (
    CALL,
    OUTPUT,
    REASONING,
    Gauge,
    Item,
    Turn,
    mend,
    read_path,
    text_items,
)
from conversations.runs.lifecycle import ContextSize
from conversations.text import clean_text, estimate_items, estimate_text
from realtime.conf import get_conf, parse_budgets
from realtime.providers.call_items import CLIPPED, LEFT_OUT, settle, without_thoughts
from realtime.registry import name_model
from realtime.work.tools import describe_output

if TYPE_CHECKING:
    from agents import Agent
    from agents.result import RunResultBase


KNOWN = {
    "chatgpt-4o": 96_000,
    "claude-": 128_000,
    "deepseek-": 48_000,
    "gemini-": 128_000,
    "gpt-3.5": 12_000,
    "gpt-4": 6_000,
    "gpt-4-turbo": 96_000,
    "gpt-4.1": 128_000,
    "gpt-4.5": 96_000,
    "gpt-4o": 96_000,
    "gpt-5": 128_000,
    "grok-": 96_000,
    "mistral-large": 96_000,
    "o1": 96_000,
    "o3": 128_000,
    "o4": 128_000,
}
"""By the start of the name. Below each window, so that the reply and what its tools return fit
too; nor does all that fits make an answer better, but it makes it dearer."""

UNKNOWN = 8_000
"""Servers of open models often give less than the model could, and cut silently."""


def get_budget(model: str) -> int:
    """The budget of a model by its name, with or without its vendor's before a slash."""
    return _find(model.rpartition("/")[2].lower(), get_conf().context_tokens)


@lru_cache(maxsize=256)
def _find(model: str, configured: str) -> int:
    own = parse_budgets(configured)
    for table in (own, KNOWN):
        starts = [start for start in table if start and model.startswith(start)]
        if starts:
            return table[max(starts, key=len)]
        if "" in table:
            return table[""]
    return UNKNOWN


FACTOR_MIN, FACTOR_MAX = 0.5, 1.5
"""How far a text's tokens may be from their estimate; more than that is instructions and tools."""

OUTPUT_CHARS = 100_000
"""Of a tool's output; the run that called it has been given all of it."""

CALL_FIELDS = ("call_id", "name", "arguments")
SUMMARY = "[The conversation so far, summarised:]\n{text}\n[It goes on:]\n\n"


@dataclass(frozen=True)
class ModelInput:
    """The input items of a run, and their tokens as we estimate them.

    `share` is how much of what the model may be given they take, from 0 to 1.
    """

    items: list[Item]
    estimate: int
    share: float = 0.0


def read_input(run: Run, agent: "Agent[Any]") -> ModelInput:
    """What the model is given for `run`: the newest turns of its branch that fit the budget."""
    limit = get_conf().context_messages
    path = read_path(run, run.prompt_id, limit)
    window = Window(run, get_budget(name_model(agent)))
    preface = preface_of(path.summary)
    window.reserve(preface)
    turns = window.fill(path.turns)
    if window.is_full and not path.summary:
        preface = preface_of("")
    items = model_items(turns, preface)
    if not isinstance(agent.model, str | None):
        # Others are given theirs call by call: see `realtime.providers.model_calls`.
        items = settle(without_thoughts(items))
    share = 1.0 if window.is_full else max(window.share, len(turns) / limit)
    return ModelInput(items, round(estimate_items(items)), share)


def preface_of(summary: str | None) -> str:
    """What a model is told of the turns that it is not given; they are not the user's words."""
    if summary is None:
        return ""
    return SUMMARY.format(text=summary) if summary else LEFT_OUT


def measure_input(
    given: ModelInput | None,
    result: "RunResultBase | None",
    error_code: str,
    refused: int | None = None,
) -> ContextSize:
    """How heavy the first input of an ended run was.

    `refused` is the estimate of an input that was too long; the run may have gone on with less.
    """
    if refused is not None:
        return ContextSize(refused=refused)
    if given is None:
        return ContextSize()
    calls = result.context_wrapper.usage.request_usage_entries if result else []
    return ContextSize(
        estimate=given.estimate,
        measured=calls[0].input_tokens if calls else None,
        refused=given.estimate if error_code == ErrorCode.CONTEXT_TOO_LONG else None,
    )


class Window:
    """As many of a branch's newest turns as a model may be given for `run`.

    Our estimates become tokens as the provider counts them by what it counted for earlier runs of
    the same agent and model. After an input that was too long for it, half of that is the limit.
    """

    def __init__(self, run: Run, budget: int) -> None:
        self.is_full = False
        self._source = run.agent, run.model
        self._budget = budget
        self._limit = float("inf")
        self._factor: float | None = None
        self._overhead = 0.0
        self._estimate = 0.0

    @property
    def share(self) -> float:
        """How much of it is taken, from 0 to 1."""
        tokens = self._overhead + (self._factor or 1.0) * self._estimate
        return max(tokens / self._budget, self._estimate / self._limit)

    def reserve(self, text: str) -> None:
        """Keep room for a text."""
        self._estimate += estimate_text(text)

    def fill(self, turns: Iterable[Turn]) -> list[Turn]:
        """Those of `turns` that fit, oldest first; `turns` come newest first.

        The first of them is always there; what is kept begins with a user's text.
        """
        kept: list[Turn] = []
        for turn in turns:
            self._learn(turn.gauge)
            clipped = _clip(turn, self._budget // 2)
            weight = estimate_items(items_of(clipped))
            self._estimate += weight
            if kept and self.share > 1:
                self._estimate -= weight
                self.is_full = True
                break
            kept.append(clipped)
        while len(kept) > 1 and kept[-1].text is None:
            kept.pop()
        return kept[::-1]

    def _learn(self, gauge: Gauge | None) -> None:
        """Take in what is known of an earlier run; the latest measure counts."""
        if gauge is None or (gauge.agent, gauge.model) != self._source:
            return
        if gauge.refused is not None:
            self._limit = min(self._limit, gauge.refused / 2)
        if self._factor is None and gauge.measured and gauge.estimate:
            factor = gauge.measured / gauge.estimate
            self._factor = min(FACTOR_MAX, max(FACTOR_MIN, factor))
            self._overhead = max(0.0, gauge.measured - self._factor * gauge.estimate)


def _clip(turn: Turn, chars: int) -> Turn:
    """The turn with the outputs of its tools cut to so many characters."""
    return replace(turn, items=[_clip_item(item, chars) for item in turn.items])


def _clip_item(item: Item, chars: int) -> Item:
    output = item.get("output")
    if not isinstance(output, str) or len(output) <= chars:
        return item
    return item | {"output": output[:chars] + CLIPPED}


def model_items(turns: Iterable[Turn], preface: str = "") -> list[Item]:
    """The input items of a run: users' texts, and the items of the replies between them.

    The preface comes with the first text: some models refuse two messages of a user in a row.
    """
    items = mend(item for turn in turns for item in items_of(turn))
    if preface:
        items[0] = items[0] | {"content": preface + items[0]["content"]}
    return items


def items_of(turn: Turn) -> list[Item]:
    """The input items of one turn."""
    return turn.items if turn.text is None else [{"role": "user", "content": turn.text}]


def stored_items(made: Iterable[Item], cut_text: str) -> list[Item]:
    """What later runs are given of a reply: its items in a form that every provider takes.

    Ids, and reasoning that only its provider can read, are left out. What was thought in plain
    words is kept in a reply with tool calls, where some servers demand it. A tool call that a stop
    left without its output gets one, since providers refuse a call without. `cut_text` is text
    that no finished item holds.
    """
    items = [kept for item in made if (kept := _portable(item)) is not None]
    if not any(item.get("type") == CALL for item in items):
        items = without_thoughts(items)
    return [*mend(items), *text_items(cut_text)]


def _portable(item: Item) -> Item | None:
    kind = item.get("type")
    if kind == CALL:
        return {"type": kind, **{key: clean_text(item[key]) for key in CALL_FIELDS}}
    if kind == OUTPUT:
        return {
            "type": kind,
            "call_id": clean_text(item["call_id"]),
            "output": _output(item["output"]),
        }
    if kind == REASONING:
        return _thought(item)
    if item.get("role") == "assistant":
        text = _text(item["content"])
        return {"role": "assistant", "content": text} if text else None
    return None


def _thought(item: Item) -> Item | None:
    """What Chat Completions gave as `reasoning_content`, with the model whose it is."""
    model = (item.get("provider_data") or {}).get("model")
    text = clean_text("\n".join(part["text"] for part in item.get("summary") or ()))
    if not model or not text:
        return None
    summary = [{"type": "summary_text", "text": text}]
    return {"type": REASONING, "summary": summary, "provider_data": {"model": model}}


def _output(output: Any) -> str:
    """The text of a tool's output, in which pictures and files are named."""
    return clean_text(output if isinstance(output, str) else describe_output(output))


def _text(content: str | list[Item]) -> str:
    """The text of a message."""
    if not isinstance(content, str):
        content = "".join(part.get("text") or part.get("refusal") or "" for part in content)
    return clean_text(content)
