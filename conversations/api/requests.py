"""Authenticates, authorizes, throttles and parses REST requests."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Any, cast

from django.contrib.auth.base_user import AbstractBaseUser
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed, ParseError, UnsupportedMediaType
from rest_framework.parsers import JSONParser
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from conversations.apps import requests_per_minute
from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import ApiKey, Scope
from conversations.people.accounts import MARK, find_key
from conversations.people.sign_ins import (
    SignIn,
    address_of,
    count_in_cache,
    limit_keys,
    sign_in_by_key,
)


class ApiKeyAuthentication(BaseAuthentication):
    """Authenticates by `Authorization: Bearer agk_...`; leaves other kinds of tokens to others."""

    def authenticate(self, request: Request) -> tuple[Any, ApiKey] | None:
        """Return the owner and the key; None without a token, and for other kinds of tokens.

        An invalid key counts against the caller's address and raises `AuthenticationFailed`, or
        `AgentSiteError(rate_limited)` after too many of them.
        """
        kind, _, text = get_authorization_header(request).decode("latin1").partition(" ")
        if kind.lower() != "bearer" or not text.startswith(MARK):
            return None
        key = find_key(text.strip())
        if key is None:
            limit_keys(address_of(request))
            raise AuthenticationFailed
        return key.owner, key

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class HasScope(BasePermission):
    """Allows an API key what its scopes cover: `read` for reading, `write` for changes.

    A view requires another scope by `scope`, or for changes only by `write_scope`. `scope = ""`
    denies every key. Requests without an API key are always allowed here.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        if not isinstance(request.auth, ApiKey):
            return True
        change = getattr(view, "write_scope", Scope.WRITE)
        by_method = Scope.READ if request.method in SAFE_METHODS else change
        return getattr(view, "scope", by_method) in request.auth.scopes


class RequestThrottle(BaseThrottle):
    """Limits requests per minute of a user, or of an address if nobody is signed in.

    Minutes are those of the clock, and refused requests count too. Processes that share a cache
    count together; while the cache is unavailable, nothing is limited.
    """

    def allow_request(self, request: Request, view: Any) -> bool:
        user = request.user
        who = f"user {user.pk}" if user and user.is_authenticated else self.get_ident(request)
        limit = requests_per_minute()
        self._wait = count_in_cache(f"requests of {who}", limit=limit, seconds=60)
        return self._wait is None

    def wait(self) -> float | None:
        return self._wait

    def get_ident(self, request: Request) -> str:
        return address_of(request)


def sign_in_of(request: Request) -> SignIn:
    """Return the sign-in by which the request was authenticated; somebody must be signed in."""
    if isinstance(request.auth, ApiKey):
        return sign_in_by_key(request.auth)
    user, token = cast(AbstractBaseUser, request.user), cast(Any, request.auth)
    hashed = user.get_session_auth_hash()
    if token is None:
        return SignIn(user.pk, hashed, request.session.session_key, None)
    return SignIn(user.pk, hashed, None, datetime.fromtimestamp(token["exp"], UTC))


BODY_MAX_BYTES = 262_144


class BoundedJSONParser(JSONParser):
    """Parses JSON objects up to `BODY_MAX_BYTES`.

    Raises `AgentSiteError(too_large)` if the `Content-Length` is larger, `UnsupportedMediaType` for
    an encoded body, and `ParseError` for what is no JSON, is nested too deeply or is not an object.
    """

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        sent = parser_context["request"].META if parser_context else {}
        if int(sent.get("CONTENT_LENGTH") or 0) > BODY_MAX_BYTES:
            raise AgentSiteError(ErrorCode.TOO_LARGE)
        if (encoding := sent.get("HTTP_CONTENT_ENCODING", "identity")) != "identity":
            raise UnsupportedMediaType(encoding)
        try:
            data = super().parse(stream, media_type, parser_context)
        except RecursionError as exc:
            raise ParseError from exc
        if not isinstance(data, dict):
            raise ParseError
        return data
