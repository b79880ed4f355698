"""How servers say that an input is too long for their model: each has its own words."""

import re

_WORDS = re.compile(
    r"""
    context[ _-]?(length|window|size|limit|exceed) | maximum\ context | context\ the\ overflows
    | (prompt|input|message|sequence|string|request|inputs)s?\b[^.\n]{0,40}?\btoo\ (long|large)
    | too\ (long|large)\ (prompt|input)
    | (prompt|input|sequence)s?\b[^.\n]{0,60}?\b(exceed|longer\ than|larger\ than|overflow)
    | (exceed|surpass)\w*\b[^.\n]{0,40}?\b(token\ limit|number\ of\ tokens|max\ message\ tokens)
    | max(imum)?[ _-](prompt|input|model|model_prompt)[ _-](length|tokens?|size)
    | range\ of\ input\ length
    | too\ many\ (input\ |prompt\ |total\ )?(tokens|text\ bytes)\b(?!\ per)
    | reduce\ the\ (length|size)\ of
    | must\ have\ less\ than\ \d+\ tokens
    | `?inputs`?\ tokens\ \+ | tokens_limit_reached
    | supports?\ (only\ )?up\ to\ \d+\ (input\ )?tokens
    | (prompt|输入|文本|内容|上下文|tokens?)[^。\n]{0,12}?(超长|过长|太长|超出|超过)
    """,
    re.VERBOSE | re.IGNORECASE,
)

_OTHERWISE = re.compile(
    r"per (min|minute|hour|day|second)\b|\b[TR]P[MD]\b|rate limit", re.IGNORECASE
)
"""Limits over a time, in much the same words; the input may be sent again as it is."""


def says_too_long(message: str) -> bool:
    """Whether a server's words mean that the input is too long, however often it is sent."""
    return bool(_WORDS.search(message)) and not _OTHERWISE.search(message)
