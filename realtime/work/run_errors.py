"""Exceptions that end or repeat a run, and the error codes that users see for them."""

import math
import random
import re
import time
from collections.abc import Iterator, Mapping
from email.utils import mktime_tz, parsedate_tz
from typing import Any

import agents
import httpx2
import openai
from agents import ModelRetrySettings, RetryDecision, RetryPolicyContext

from conversations.errors import AgentSiteError, ErrorCode
from realtime.conf import get_conf
from realtime.telemetry import metrics
from realtime.work.journal import Journal
from realtime.work.metering import UsageMeter

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
"""Rate limits, in similar words: the same input may be sent again later."""


def says_too_long(message: str) -> bool:
    """Return whether a server's message says, in words that are known, that the input is too long.

    A message about a rate limit does not.
    """
    return bool(_WORDS.search(message)) and not _OTHERWISE.search(message)


RUN_ERRORS: list[tuple[type[Exception], ErrorCode]] = [
    (agents.MaxTurnsExceeded, ErrorCode.LIMIT_TURNS),
    (agents.ToolTimeoutError, ErrorCode.LIMIT_TIME),
    (agents.InputGuardrailTripwireTriggered, ErrorCode.GUARDRAIL),
    (agents.OutputGuardrailTripwireTriggered, ErrorCode.GUARDRAIL),
    (agents.ModelRefusalError, ErrorCode.CONTENT_FILTERED),
    (agents.ModelBehaviorError, ErrorCode.PROVIDER_INVALID),
    (openai.RateLimitError, ErrorCode.PROVIDER_RATE_LIMITED),
    (openai.AuthenticationError, ErrorCode.PROVIDER_KEY),
    (openai.PermissionDeniedError, ErrorCode.PROVIDER_KEY),
    (openai.APITimeoutError, ErrorCode.PROVIDER_TIMEOUT),
    (openai.APIConnectionError, ErrorCode.PROVIDER_UNAVAILABLE),
    (openai.InternalServerError, ErrorCode.PROVIDER_UNAVAILABLE),
    (openai.APIStatusError, ErrorCode.PROVIDER_REFUSED),
    (openai.APIError, ErrorCode.PROVIDER_CUT),
]
"""The first match counts; an exception that matches none is an internal error."""

PROVIDER_CODES = {
    "content_filter": ErrorCode.CONTENT_FILTERED,
    "context_length_exceeded": ErrorCode.CONTEXT_TOO_LONG,
    "exceed_context_size_error": ErrorCode.CONTEXT_TOO_LONG,
    "insufficient_quota": ErrorCode.PROVIDER_QUOTA,
    "exceeded_current_quota_error": ErrorCode.PROVIDER_QUOTA,
    "billing_hard_limit_reached": ErrorCode.PROVIDER_QUOTA,
    "Arrearage": ErrorCode.PROVIDER_QUOTA,
    "402": ErrorCode.PROVIDER_QUOTA,
    "rate_limit_exceeded": ErrorCode.PROVIDER_RATE_LIMITED,
    "rate_limit_error": ErrorCode.PROVIDER_RATE_LIMITED,
    "429": ErrorCode.PROVIDER_RATE_LIMITED,
    "authentication_error": ErrorCode.PROVIDER_KEY,
    "invalid_api_key": ErrorCode.PROVIDER_KEY,
    "401": ErrorCode.PROVIDER_KEY,
    "403": ErrorCode.PROVIDER_KEY,
}
"""Values of an error's `code` or `type`: they tell more than its HTTP status."""

STATUS_TIMEOUTS = (408, 504)
STATUS_UNPAID = 402

ECHOES = ("input", "ctx", "request", "messages", "prompt")
"""Fields in which servers repeat the request: their text is not about the error."""

MAX_WORDS_CHARS = 1_000
MAX_RETRY_AFTER_S = 86_400.0

RUN_LIMITS = (
    *(ErrorCode.LIMIT_TURNS, ErrorCode.LIMIT_TIME, ErrorCode.LIMIT_LENGTH),
    *(ErrorCode.LIMIT_TOKENS, ErrorCode.LIMIT_SITE),
)
"""The limits that end a reply although nothing has failed."""


def run_error(exc: BaseException, *, has_text: bool) -> AgentSiteError:
    """Return the error that users see for an exception that ended a run.

    `has_text` is whether text of the reply was shown. An `AgentSiteError` is returned unchanged; an
    exception of no known type becomes `internal`. `retry_after` is that of the server's answer, by
    `parse_retry_after`.
    """
    if isinstance(exc, AgentSiteError):
        return exc
    code = next((code for kind, code in RUN_ERRORS if isinstance(exc, kind)), ErrorCode.INTERNAL)
    if isinstance(exc, openai.APIError):
        code = _provider_code(exc, code, has_text=has_text)
    return AgentSiteError(code, retry_after=_retry_after(exc))


def is_refusal(exc: BaseException) -> bool:
    """Return whether the model's server answered with an HTTP error, or was not reached."""
    return isinstance(exc, openai.APIStatusError) or _is_unreachable(exc)


def _is_unreachable(exc: BaseException) -> bool:
    """Return whether no connection was made; the client reports a refused one as a time-out."""
    return isinstance(exc.__cause__, httpx2.ConnectTimeout | httpx2.ConnectError)


def words_of(exc: openai.APIError) -> str:
    """Return the texts of a server's error, except in fields that repeat the request.

    They are joined by spaces; each is cut to `MAX_WORDS_CHARS`, and deeply nested ones are left
    out. The SDK's own message, which comes first and is not cut, has only one field of the error.
    """
    return " ".join([str(exc.message), *_strings(exc.body)])


def _strings(value: object, depth: int = 6) -> Iterator[str]:
    if isinstance(value, str):
        yield value[:MAX_WORDS_CHARS]
    elif depth and isinstance(value, list):
        for each in value:
            yield from _strings(each, depth - 1)
    elif depth and isinstance(value, dict):
        for name, each in value.items():
            if name not in ECHOES:
                yield from _strings(each, depth - 1)


def broken_stream(said: str, *, has_text: bool) -> AgentSiteError:
    """Return the error that users see for a stream in which the server reported a failure.

    `said` is the server's code, or "". If it is not known, `has_text`, whether text of the reply
    was shown, decides between `provider_cut` and `provider_unavailable`.
    """
    cut = ErrorCode.PROVIDER_CUT if has_text else ErrorCode.PROVIDER_UNAVAILABLE
    return AgentSiteError(PROVIDER_CODES.get(said, cut))


def _provider_code(exc: openai.APIError, code: ErrorCode, *, has_text: bool) -> ErrorCode:
    for said in (exc.code, exc.type):
        # Some servers send a number, although the SDK declares a string.
        if (known := PROVIDER_CODES.get(str(said))) is not None:
            return known
    if code != ErrorCode.PROVIDER_KEY and says_too_long(words_of(exc)):
        return ErrorCode.CONTEXT_TOO_LONG
    if code == ErrorCode.PROVIDER_REFUSED:
        return _refusal(exc)
    if isinstance(exc, openai.APIStatusError):
        return ErrorCode.PROVIDER_TIMEOUT if exc.status_code in STATUS_TIMEOUTS else code
    if has_text:
        return ErrorCode.PROVIDER_CUT
    if _is_unreachable(exc) or code == ErrorCode.PROVIDER_CUT:
        return ErrorCode.PROVIDER_UNAVAILABLE
    return code


def _refusal(exc: Any) -> ErrorCode:
    if exc.status_code in STATUS_TIMEOUTS:
        return ErrorCode.PROVIDER_TIMEOUT
    if exc.status_code == STATUS_UNPAID:
        return ErrorCode.PROVIDER_QUOTA
    is_too_long = exc.status_code == 413
    return ErrorCode.CONTEXT_TOO_LONG if is_too_long else ErrorCode.PROVIDER_REFUSED


def _retry_after(exc: BaseException) -> float | None:
    if not isinstance(exc, openai.APIStatusError):
        return None
    return parse_retry_after(exc.response.headers)


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait by `retry-after-ms`, else by `retry-after`, a number or a date.

    Limited to 0 to `MAX_RETRY_AFTER_S`; None if there is no such header, or it is invalid. Unless
    `headers` ignores case, the names must be in lower case.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
        return _bounded(seconds) if math.isfinite(seconds) else None
    date = parsedate_tz(headers.get("retry-after", ""))
    return None if date is None else _bounded(mktime_tz(date) - time.time())


def _bounded(seconds: float) -> float:
    return min(max(0.0, seconds), MAX_RETRY_AFTER_S)


RETRIED = (
    ErrorCode.PROVIDER_RATE_LIMITED,
    ErrorCode.PROVIDER_UNAVAILABLE,
    ErrorCode.PROVIDER_TIMEOUT,
)
FIRST_PAUSE_S = 0.5


def is_passing(exc: BaseException) -> bool:
    """Return whether the model's server refused a call, or was not reached, and may answer later.

    Not for a call that was cut off or timed out while it was answered: it may have to be paid for.
    """
    return is_refusal(exc) and run_error(exc, has_text=False).code in RETRIED


class Retries:
    """Decides for the SDK whether and when it repeats a model call; `count` says how often it did.

    The SDK waits in the run's own task, so a stop ends the pause at once.
    """

    def __init__(self, journal: Journal, meter: UsageMeter) -> None:
        self.count = 0
        self._journal = journal
        self._meter = meter

    @property
    def settings(self) -> ModelRetrySettings:
        """Settings with which the SDK asks this object; at most `provider_retries` a call.

        A call is repeated only before any part of the reply is shown, after an error in `RETRIED`,
        and if the pause is at most `retry_wait_max_s`.
        """

        # A function, not a method: the SDK deep-copies settings, with the object of a bound method.
        def decide(context: RetryPolicyContext) -> RetryDecision:
            return self._decide(context)

        return ModelRetrySettings(max_retries=get_conf().provider_retries, policy=decide)

    def _decide(self, context: RetryPolicyContext) -> RetryDecision:
        """Retry only before any part of the reply is shown: users would see it twice."""
        error = run_error(context.error, has_text=False)
        if self._journal.folder.parts or error.code not in RETRIED:
            return RetryDecision(retry=False)
        pause = _pause(context.attempt) if error.retry_after is None else error.retry_after
        if pause > get_conf().retry_wait_max_s:
            return RetryDecision(retry=False)
        self.count += 1
        metrics.MODEL_ERRORS.labels(error.code.value).inc()
        if is_refusal(context.error):
            self._meter.note_refusal()
        told = {"attempt": context.attempt, "wait_s": math.ceil(pause), "code": error.code.value}
        self._journal.append("run.retrying", told)
        return RetryDecision(retry=True, delay=pause)


def _pause(attempt: int) -> float:
    """Return seconds: doubled at each attempt, random so that clients do not retry together."""
    longest: float = FIRST_PAUSE_S * 2**attempt
    return longest * random.uniform(0.5, 1)  # noqa: S311  (no secret)
