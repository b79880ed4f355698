"""Limits on guessing passwords and on making accounts, for pages and tokens alike."""

import unicodedata
from datetime import timedelta

from django.http import HttpRequest

from conversations.attempts import address_of, count_attempt, forget_attempts
from conversations.errors import AgentSiteError, ErrorCode

PERIOD = timedelta(minutes=5)
TRIES_A_NAME = 20
TRIES_AN_ADDRESS = 200
"""Higher: an office is one address."""

SIGN_UPS_AN_ADDRESS = 100
MAILS_A_MAILBOX = 5


def limit_sign_in(request: HttpRequest, name: str) -> None:
    """Count a try to come in as `name`; raises `AgentSiteError(rate_limited)`."""
    _count(_sign_in_as(name), TRIES_A_NAME)
    limit_address(request)


def limit_address(request: HttpRequest) -> None:
    """Count a try from this address; raises `AgentSiteError(rate_limited)`."""
    _count(f"sign in from {address_of(request)}", TRIES_AN_ADDRESS)


def allow_again(name: str) -> None:
    """Whoever knew the password is not held up by who did not."""
    forget_attempts(_sign_in_as(name))


def limit_sign_up(request: HttpRequest) -> None:
    """Count a new account or guest; raises `AgentSiteError(rate_limited)`."""
    _count(f"sign up from {address_of(request)}", SIGN_UPS_AN_ADDRESS)


def limit_mail(request: HttpRequest, email: str) -> None:
    """Count a mail that anybody may have sent to `email`; raises `AgentSiteError(rate_limited)`."""
    _count(f"mail to {_plain(email)}", MAILS_A_MAILBOX)
    _count(f"mail from {address_of(request)}", SIGN_UPS_AN_ADDRESS)


def _sign_in_as(name: str) -> str:
    return f"sign in as {_plain(name)}"


def _plain(name: str) -> str:
    """The same for all spellings that forms take for one."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def _count(what: str, limit: int) -> None:
    if (wait := count_attempt(what, limit=limit, period=PERIOD)) is not None:
        raise AgentSiteError(ErrorCode.RATE_LIMITED, retry_after=wait)
