"""Asking the model's server again, for as long as nothing has been shown."""

import math
import random

from agents import ModelRetrySettings, RetryDecision, RetryPolicyContext

from conversations.errors import ErrorCode
from realtime.conf import get_conf
from realtime.journal import Journal
from realtime.run_errors import is_refusal, run_error
from realtime.usage import UsageMeter

RETRIED = (
    ErrorCode.PROVIDER_RATE_LIMITED,
    ErrorCode.PROVIDER_UNAVAILABLE,
    ErrorCode.PROVIDER_TIMEOUT,
)
FIRST_PAUSE_S = 0.5


class Retries:
    """The SDK asks whether and when; a stop during the pause ends it at once."""

    def __init__(self, journal: Journal, meter: UsageMeter) -> None:
        self.count = 0
        self._journal = journal
        self._meter = meter

    @property
    def settings(self) -> ModelRetrySettings:
        """For the SDK's model settings."""

        # A function: the SDK copies settings deeply, and would copy what a method is bound to.
        def decide(context: RetryPolicyContext) -> RetryDecision:
            return self._decide(context)

        return ModelRetrySettings(max_retries=get_conf().provider_retries, policy=decide)

    def _decide(self, context: RetryPolicyContext) -> RetryDecision:
        """After an answer has begun, or a tool, people would see it twice."""
        error = run_error(context.error, has_text=False)
        if self._journal.folder.parts or error.code not in RETRIED:
            return RetryDecision(retry=False)
        pause = _pause(context.attempt) if error.retry_after is None else error.retry_after
        if pause > get_conf().retry_wait_max_s:
            return RetryDecision(retry=False)
        self.count += 1
        if is_refusal(context.error):
            self._meter.note_refusal()
        told = {"attempt": context.attempt, "wait_s": math.ceil(pause), "code": error.code.value}
        self._journal.append("run.retrying", told)
        return RetryDecision(retry=True, delay=pause)


def _pause(attempt: int) -> float:
    """Twice as long each time, and never the same for all who have been refused together."""
    longest: float = FIRST_PAUSE_S * 2**attempt
    return longest * random.uniform(0.5, 1)  # noqa: S311  (no secret)
