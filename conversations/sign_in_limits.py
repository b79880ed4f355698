"""Limits on guessing passwords and on making accounts, for pages and tokens alike."""

import unicodedata
from datetime import timedelta

from django.http import HttpRequest

from conversations.attempts import address_of, count_attempt, forget_attempts
from conversations.errors import AgentSiteError, ErrorCode

PERIOD = timedelta(minutes=5)
TRIES_A_NAME = 20
"""Tries of one name from one address in a period."""

TRIES_AN_ADDRESS = 200
"""Higher: an office is one address."""

TRIES_EVERYWHERE = 200
"""Tries of one name from all addresses together, above which each address has few."""

GUESSED_TRIES, GUESSED_PERIOD = 5, timedelta(hours=1)
"""What each address has of a name that is being guessed from many."""

KEYS_AN_ADDRESS = 100
"""API keys that do not hold; apart from passwords, so that a forgotten program locks nobody out."""

SIGN_UPS_AN_ADDRESS = 100
MAILS_A_MAILBOX = 5


def limit_sign_in(request: HttpRequest, name: str) -> None:
    """Count a try to come in as `name`; raises `AgentSiteError(rate_limited)`.

    Every limit that refuses counts tries from the request's own address: what others try elsewhere
    must never refuse the owner of the name.
    """
    _count(_sign_in_as(name, request), TRIES_A_NAME)
    limit_address(request)
    if count_attempt(_guess(name), limit=TRIES_EVERYWHERE, period=PERIOD) is not None:
        _count(_guess(name, request), GUESSED_TRIES, GUESSED_PERIOD)


def limit_address(request: HttpRequest) -> None:
    """Count a try from this address; raises `AgentSiteError(rate_limited)`."""
    _count(f"sign in from {address_of(request)}", TRIES_AN_ADDRESS)


def limit_keys(address: str) -> None:
    """Count an API key that does not hold; raises `AgentSiteError(rate_limited)`."""
    _count(f"key from {address}", KEYS_AN_ADDRESS)


def allow_again(request: HttpRequest, name: str) -> None:
    """A correct password clears the tries of that name from that address."""
    forget_attempts(_sign_in_as(name, request))
    forget_attempts(_guess(name, request))


def limit_sign_up(request: HttpRequest) -> None:
    """Count a new account or guest; raises `AgentSiteError(rate_limited)`."""
    _count(f"sign up from {address_of(request)}", SIGN_UPS_AN_ADDRESS)


def limit_mail(request: HttpRequest, email: str) -> None:
    """Count a mail that anybody may have sent to `email`; raises `AgentSiteError(rate_limited)`."""
    _count(f"mail to {_plain(email)}", MAILS_A_MAILBOX)
    _count(f"mail from {address_of(request)}", SIGN_UPS_AN_ADDRESS)


def _sign_in_as(name: str, request: HttpRequest) -> str:
    return f"sign in as {_plain(name)} from {address_of(request)}"


def _guess(name: str, request: HttpRequest | None = None) -> str:
    """The key of all tries of a name, or of those from one address while it is being guessed."""
    guess = f"guess {_plain(name)}"
    return guess if request is None else f"{guess} from {address_of(request)}"


def _plain(name: str) -> str:
    """The same for all spellings that forms take for one."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def _count(what: str, limit: int, period: timedelta = PERIOD) -> None:
    if (wait := count_attempt(what, limit=limit, period=period)) is not None:
        raise AgentSiteError(ErrorCode.RATE_LIMITED, retry_after=wait)
