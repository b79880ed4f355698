"""How much of a conversation each model is given, in tokens of input."""

from functools import lru_cache

from realtime.conf import get_conf, parse_budgets

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
