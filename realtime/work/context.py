"""The part of a conversation that a model is given, within its token budget."""

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
    items_of,
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
"""Budgets in tokens by the start of a model's name. They are below each context window, so that the
reply and the outputs of its tools fit too; a larger input costs more and is no better.
"""

UNKNOWN = 8_000
"""The budget in tokens of other models: servers of open models often have smaller windows than the
model, and cut the input without an error.
"""


def get_budget(model: str) -> int:
    """Return how many tokens of a conversation a model may be given, by the start of its name.

    The longest start in `context_tokens` counts, else the longest in `KNOWN`, else `UNKNOWN`.
    Case is ignored, and so is a vendor's name before the last slash.
    """
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
"""Bounds for a text's tokens divided by their estimate; the rest is instructions and tools."""

CALL_FIELDS = ("call_id", "name", "arguments")
SUMMARY = "[The conversation so far, summarised:]\n{text}\n[It goes on:]\n\n"


@dataclass(frozen=True)
class ModelInput:
    """The input items of a run, and their tokens by our estimate.

    `share` is the part that the turns take of the budget, of the limit after a refusal, or of the
    number `context_messages`, whichever is most. It is 1 if a turn did not fit, and above 1 only if
    the newest turn exceeds the budget and there is no other. `instructions` are the user's own.
    """

    items: list[Item]
    estimate: int
    share: float = 0.0
    instructions: str = ""


def read_input(run: Run, agent: "Agent[Any]", made: Iterable[Item] = ()) -> ModelInput:
    """Read a run's input: its prompt, and the newest turns before it that fit its model's budget.

    At most `context_messages` turns are read. A summary or a note stands for turns that are left
    out. `made` are the items that the run itself has made before; they follow the prompt, beyond
    the budget. Reads the database; the prompt of `run` must be loaded.
    """
    limit = get_conf().context_messages
    path = read_path(run, run.prompt_id, limit)
    window = Window(run, get_budget(name_model(agent)))
    preface = preface_of(path.summary)
    window.reserve(preface)
    window.reserve(path.instructions)
    turns = window.fill(path.turns)
    if window.is_full and not path.summary:
        preface = preface_of("")
    items = [*model_items(turns, preface), *made]
    if not isinstance(agent.model, str | None):
        # Our own model classes settle the items at each call: see `realtime.providers.model_calls`.
        items = settle(without_thoughts(items))
    share = 1.0 if window.is_full else max(window.share, len(turns) / limit)
    return ModelInput(items, round(estimate_items(items)), share, path.instructions)


def preface_of(summary: str | None) -> str:
    """Return the text that stands for left-out turns: their summary or, if that is "", a note.

    None means that no turns are left out: the text is "".
    """
    if summary is None:
        return ""
    return SUMMARY.format(text=summary) if summary else LEFT_OUT


def measure_input(
    given: ModelInput | None,
    result: "RunResultBase | None",
    error_code: str,
    refused: int | None = None,
) -> ContextSize:
    """Return the tokens of a run's first input, to correct the estimates of later runs.

    `given` is that input; None if it was not read. `result` has the provider's count. With the
    `error_code` `context_too_long` the input counts as refused. `refused` is the estimate of the
    smallest input that the model has refused as too long: then it alone is returned, as the run may
    have gone on with less.
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
    """Selects the newest turns of a branch that fit `budget` tokens, for the model of `run`.

    Estimates are corrected by the provider's counts for earlier runs of the same agent and model.
    After an input was refused as too long, half of its estimate is the limit too. `is_full` is set
    once a turn did not fit.
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
        """The part that is taken of the budget or of the limit after a refusal, whichever is more.

        1 is all of it.
        """
        tokens = self._overhead + (self._factor or 1.0) * self._estimate
        return max(tokens / self._budget, self._estimate / self._limit)

    def reserve(self, text: str) -> None:
        """Count the estimated tokens of a text as taken; call it before `fill`."""
        self._estimate += estimate_text(text)

    def fill(self, turns: Iterable[Turn]) -> list[Turn]:
        """Return the newest of `turns` before the first that does not fit, oldest first.

        `turns` come newest first; the newest is always kept. Outputs of tools are cut to as many
        characters as half the budget has tokens. Turns before the first kept user's text are
        dropped, unless nothing else is left.
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
        """Take over what is known of an earlier run; the latest measurement counts."""
        if gauge is None or (gauge.agent, gauge.model) != self._source:
            return
        if gauge.refused is not None:
            self._limit = min(self._limit, gauge.refused / 2)
        if self._factor is None and gauge.measured and gauge.estimate:
            factor = gauge.measured / gauge.estimate
            self._factor = min(FACTOR_MAX, max(FACTOR_MIN, factor))
            self._overhead = max(0.0, gauge.measured - self._factor * gauge.estimate)


def _clip(turn: Turn, chars: int) -> Turn:
    """Return the turn with its tools' outputs cut to `chars` characters."""
    return replace(turn, items=[_clip_item(item, chars) for item in turn.items])


def _clip_item(item: Item, chars: int) -> Item:
    output = item.get("output")
    if not isinstance(output, str) or len(output) <= chars:
        return item
    return item | {"output": output[:chars] + CLIPPED}


def model_items(turns: Iterable[Turn], preface: str = "") -> list[Item]:
    """Return a run's input items: users' texts, and the items of the replies between them.

    `turns` are oldest first. `preface` is put before the first item's text, which must be a user's:
    some models refuse two messages of a user in a row.
    """
    items = mend(item for turn in turns for item in items_of(turn))
    if preface:
        items[0] = items[0] | {"content": preface + items[0]["content"]}
    return items


def stored_items(made: Iterable[Item], cut_text: str) -> list[Item]:
    """Return what later runs are given of a reply: its items in a form that every provider takes.

    Leaves out all ids but those of calls, items of the provider's own tools, and reasoning that
    only its provider can read. Plain reasoning is kept in a
    reply with tool calls, where some servers demand it. A tool call without an output, as after a
    stop, gets one: providers refuse a call without. `cut_text` is text that no finished item holds.
    """
    items = portable_items(made)
    if not any(item.get("type") == CALL for item in items):
        items = without_thoughts(items)
    return [*mend(items), *text_items(cut_text)]


def portable_items(made: Iterable[Any]) -> list[Item]:
    """Return the model's texts, calls, outputs and plain reasoning in `made` for any provider.

    All other items are left out, users' texts too. Outputs of calls become text.
    """
    return [kept for item in made if (kept := _portable(item)) is not None]


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
    """Keep reasoning that Chat Completions gave as `reasoning_content`, with its model's name."""
    model = (item.get("provider_data") or {}).get("model")
    text = clean_text("\n".join(part["text"] for part in item.get("summary") or ()))
    if not model or not text:
        return None
    summary = [{"type": "summary_text", "text": text}]
    return {"type": REASONING, "summary": summary, "provider_data": {"model": model}}


def _output(output: Any) -> str:
    """Return a tool's output as text, in which pictures and files are named."""
    return clean_text(output if isinstance(output, str) else describe_output(output))


def _text(content: str | list[Item]) -> str:
    """Return the text of a message."""
    if not isinstance(content, str):
        content = "".join(part.get("text") or part.get("refusal") or "" for part in content)
    return clean_text(content)
