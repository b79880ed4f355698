"""The closed list of errors that clients can receive."""

from enum import StrEnum
from typing import NamedTuple

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


class ErrorCode(StrEnum):
    """The codes of errors in frames and in answers of the REST API; `ERRORS` describes each."""

    BAD_FRAME = "bad_frame"
    TOO_LARGE = "too_large"
    UNSUPPORTED_TYPE = "unsupported_type"
    NOT_FOUND = "not_found"
    NOT_AUTHENTICATED = "not_authenticated"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate_limited"
    BUSY = "busy"
    QUEUE_FULL = "queue_full"
    NOT_QUEUED = "not_queued"
    DUPLICATE_MISMATCH = "duplicate_mismatch"
    UNKNOWN_AGENT = "unknown_agent"
    TOO_MANY_SESSIONS = "too_many_sessions"
    LIMIT_RUNS = "limit_runs"
    LIMIT_TOKENS = "limit_tokens"
    LIMIT_SITE = "limit_site"
    LIMIT_TURNS = "limit_turns"
    LIMIT_TIME = "limit_time"
    LIMIT_LENGTH = "limit_length"
    GUARDRAIL = "guardrail"
    PROVIDER_RATE_LIMITED = "provider_rate_limited"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    PROVIDER_TIMEOUT = "provider_timeout"
    PROVIDER_KEY = "provider_key"
    PROVIDER_QUOTA = "provider_quota"
    PROVIDER_REFUSED = "provider_refused"
    PROVIDER_CUT = "provider_cut"
    PROVIDER_INVALID = "provider_invalid"
    CONTEXT_TOO_LONG = "context_too_long"
    CONTENT_FILTERED = "content_filtered"
    MODEL_NOT_READY = "model_not_ready"
    TOOLS_UNAVAILABLE = "tools_unavailable"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class ErrorInfo(NamedTuple):
    """What belongs to a code: HTTP status, whether a retry can help, and the text for people."""

    http_status: int
    retryable: bool
    text: str | Promise


ERRORS: dict[ErrorCode, ErrorInfo] = {
    ErrorCode.BAD_FRAME: ErrorInfo(400, False, _("That could not be understood.")),
    ErrorCode.TOO_LARGE: ErrorInfo(413, False, _("That message is too large.")),
    ErrorCode.UNSUPPORTED_TYPE: ErrorInfo(400, False, _("That is not supported here.")),
    ErrorCode.NOT_FOUND: ErrorInfo(404, False, _("That was not found.")),
    ErrorCode.NOT_AUTHENTICATED: ErrorInfo(401, False, _("Please sign in.")),
    ErrorCode.FORBIDDEN: ErrorInfo(403, False, _("That is not allowed.")),
    ErrorCode.RATE_LIMITED: ErrorInfo(429, True, _("Too many messages in a short time.")),
    ErrorCode.BUSY: ErrorInfo(409, True, _("A reply is still being written.")),
    ErrorCode.QUEUE_FULL: ErrorInfo(409, True, _("Too many messages are waiting already.")),
    ErrorCode.NOT_QUEUED: ErrorInfo(409, False, _("That message does not wait any more.")),
    ErrorCode.DUPLICATE_MISMATCH: ErrorInfo(
        409, False, _("A different message was already sent under this id.")
    ),
    ErrorCode.UNKNOWN_AGENT: ErrorInfo(400, False, _("That agent does not exist.")),
    ErrorCode.TOO_MANY_SESSIONS: ErrorInfo(
        409, False, _("This connection follows too many conversations.")
    ),
    ErrorCode.LIMIT_RUNS: ErrorInfo(
        429, True, _("Too many of your conversations are being replied to. Let one finish first.")
    ),
    ErrorCode.LIMIT_TOKENS: ErrorInfo(
        429, True, _("You have used all that a day allows. Try again later.")
    ),
    ErrorCode.LIMIT_SITE: ErrorInfo(
        429, True, _("This site has used all that it may use in a day. Try again later.")
    ),
    ErrorCode.LIMIT_TURNS: ErrorInfo(
        422, True, _("The agent took too many steps without finishing.")
    ),
    ErrorCode.LIMIT_TIME: ErrorInfo(
        422, True, _("This reply took too long and was ended. What you see is saved.")
    ),
    ErrorCode.LIMIT_LENGTH: ErrorInfo(
        422, True, _("This reply was cut at the longest length. What you see is saved.")
    ),
    ErrorCode.GUARDRAIL: ErrorInfo(422, False, _("The agent's rules do not allow this.")),
    ErrorCode.PROVIDER_RATE_LIMITED: ErrorInfo(
        503, True, _("The model is receiving too many requests at the moment.")
    ),
    ErrorCode.PROVIDER_UNAVAILABLE: ErrorInfo(
        503, True, _("The model cannot be reached at the moment.")
    ),
    ErrorCode.PROVIDER_TIMEOUT: ErrorInfo(504, True, _("The model did not answer in time.")),
    ErrorCode.PROVIDER_KEY: ErrorInfo(
        502,
        False,
        _("The model's server refused this site's key. Whoever runs the site must renew it."),
    ),
    ErrorCode.PROVIDER_QUOTA: ErrorInfo(
        502,
        False,
        _("This site's account with the model's provider is used up. Tell whoever runs the site."),
    ),
    ErrorCode.PROVIDER_REFUSED: ErrorInfo(502, False, _("The model refused the request.")),
    ErrorCode.PROVIDER_CUT: ErrorInfo(
        502, True, _("The connection to the model broke off in the middle of the reply.")
    ),
    ErrorCode.PROVIDER_INVALID: ErrorInfo(
        502, True, _("The model answered in a way that cannot be used.")
    ),
    ErrorCode.CONTEXT_TOO_LONG: ErrorInfo(
        422, False, _("This conversation is too long for the model.")
    ),
    ErrorCode.CONTENT_FILTERED: ErrorInfo(
        422, False, _("The model's content filter stopped the reply.")
    ),
    ErrorCode.MODEL_NOT_READY: ErrorInfo(
        503, True, _("The model on this machine could not be made ready.")
    ),
    ErrorCode.TOOLS_UNAVAILABLE: ErrorInfo(
        503, True, _("A service that this agent works with cannot be reached at the moment.")
    ),
    ErrorCode.UNAVAILABLE: ErrorInfo(
        503, True, _("The service cannot save anything at the moment. Nothing was sent.")
    ),
    ErrorCode.INTERNAL: ErrorInfo(500, True, _("Something went wrong on our side.")),
}


class AgentSiteError(Exception):
    """An error with a code, whose text in `ERRORS` is safe to show to clients.

    `retry_after` is the number of seconds after which a retry can succeed; None if not known.
    """

    def __init__(self, code: ErrorCode, *, retry_after: float | None = None) -> None:
        super().__init__(code.value)
        self.code = code
        self.retry_after = retry_after

    @property
    def info(self) -> ErrorInfo:
        return ERRORS[self.code]
