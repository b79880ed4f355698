"""From the exception that ended a run to what people are told of it."""

import math
import time
from collections.abc import Iterator, Mapping
from email.utils import mktime_tz, parsedate_tz
from typing import Any

import agents
import httpx2
import openai

from conversations.errors import AgentSiteError, ErrorCode
from realtime.too_long import says_too_long

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
"""The first that fits; what fits none is ours."""

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
"""What servers say in an error's `code` or `type`, which tells more than its HTTP status."""

STATUS_TIMEOUTS = (408, 504)
STATUS_UNPAID = 402

ECHOES = ("input", "ctx", "request", "messages", "prompt")
"""In which servers repeat what they were sent, which says nothing of the error."""

MAX_WORDS_CHARS = 1_000
MAX_RETRY_AFTER_S = 86_400.0

RUN_LIMITS = (
    *(ErrorCode.LIMIT_TURNS, ErrorCode.LIMIT_TIME, ErrorCode.LIMIT_LENGTH),
    *(ErrorCode.LIMIT_TOKENS, ErrorCode.LIMIT_SITE),
)
"""The limits that end a reply which goes well."""


def run_error(exc: BaseException, *, has_text: bool) -> AgentSiteError:
    """What to tell people; `has_text` tells that they have seen a part of the reply."""
    if isinstance(exc, AgentSiteError):
        return exc
    code = next((code for kind, code in RUN_ERRORS if isinstance(exc, kind)), ErrorCode.INTERNAL)
    if isinstance(exc, openai.APIError):
        code = _provider_code(exc, code, has_text=has_text)
    return AgentSiteError(code, retry_after=_retry_after(exc))


def is_refusal(exc: BaseException) -> bool:
    """Whether the request was turned away, or not even delivered."""
    return isinstance(exc, openai.APIStatusError) or _is_unreachable(exc)


def _is_unreachable(exc: BaseException) -> bool:
    """The client takes every connection that was refused for one that took too long."""
    return isinstance(exc.__cause__, httpx2.ConnectTimeout | httpx2.ConnectError)


def words_of(exc: openai.APIError) -> str:
    """All that a server says of an error; the SDK's message has what is in one field alone."""
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
    """A stream that has told of its own failure, with the code `said` or none."""
    cut = ErrorCode.PROVIDER_CUT if has_text else ErrorCode.PROVIDER_UNAVAILABLE
    return AgentSiteError(PROVIDER_CODES.get(said, cut))


def _provider_code(exc: openai.APIError, code: ErrorCode, *, has_text: bool) -> ErrorCode:
    for said in (exc.code, exc.type):
        # Some servers give a number, against the SDK's own word.
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
    """Seconds, from `retry-after-ms` or either form of `retry-after`; None without a sound one."""
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
