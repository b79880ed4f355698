"""Who opens a WebSocket: a page with a session cookie and the right origin, or a bearer token."""

import logging
from datetime import UTC, datetime
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import Error as DatabaseUnavailable
from django.http import HttpRequest, parse_cookie
from django.http.request import split_domain_port, validate_host
from django.http.response import HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.http import is_same_domain
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.exceptions import AuthenticationFailed, InvalidToken

from conversations.sign_ins import SignIn
from realtime import dbpool, protocol

logger = logging.getLogger(__name__)

DEFAULT_PORTS = {"http": "80", "https": "443"}
LOCAL_HOSTS = [".localhost", "127.0.0.1", "[::1]"]


class HandshakeAuth:
    """ASGI wrapper: sets `scope["user"]`, `scope["sign_in"]`, or `scope["refused"]`, a close code.

    A browser sees a close code only of a socket that was accepted, so the consumer refuses.
    """

    def __init__(self, inner: Any) -> None:
        if getattr(settings, "ROLE", "all") != "web":
            # The Agents SDK takes about two seconds to import: here, where the application is put
            # together, nobody waits yet. The first connection would hold up the whole event loop.
            import_module("realtime.runs")
        self.inner = inner

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        headers = {name: value.decode("latin1") for name, value in scope["headers"]}
        scope = {**scope, "refused": None, **await _authenticate(scope, headers)}
        return await self.inner(scope, receive, send)


async def _authenticate(scope: dict[str, Any], headers: dict[bytes, str]) -> dict[str, Any]:
    bearer = headers.get(b"authorization", "")
    origin = headers.get(b"origin")
    needs_origin = origin is not None or not bearer
    if needs_origin and not is_own_origin(scope, headers, origin):
        return {"refused": protocol.CLOSE_ORIGIN}
    find = _from_token if bearer else _from_cookie
    try:
        found = await dbpool.read(find, bearer or headers.get(b"cookie", ""))
    except DatabaseUnavailable as exc:
        # Every client comes back while the database is away: no traceback for each.
        logger.error("a socket is sent away: %s", type(exc).__name__)
        return {"refused": protocol.CLOSE_UNAVAILABLE}
    if found is None:
        return {"refused": protocol.CLOSE_NOT_AUTHENTICATED}
    user, sign_in = found
    return {"user": user, "sign_in": sign_in}


def is_own_origin(scope: dict[str, Any], headers: dict[bytes, str], origin: str | None) -> bool:
    """Whether a page of this site, or of one that the settings trust, opens the socket.

    Exact scheme, host and port: a cookie would also come with a foreign page's handshake.
    """
    if not origin:
        return False
    if _is_trusted(origin):
        return True
    host = headers.get(b"host", "")
    domain, _ = split_domain_port(host)
    allowed = settings.ALLOWED_HOSTS or (LOCAL_HOSTS if settings.DEBUG else [])
    if not domain or not validate_host(domain, allowed):
        return False
    return _normal(origin) == _normal(f"{_scheme(scope, headers)}://{host}")


def _is_trusted(origin: str) -> bool:
    """Whether `CSRF_TRUSTED_ORIGINS` names the origin, by Django's own reading of that setting."""
    csrf = CsrfViewMiddleware(_no_response)
    if origin in csrf.allowed_origins_exact:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    patterns = csrf.allowed_origin_subdomains.get(parts.scheme, ())
    return any(is_same_domain(parts.netloc, pattern) for pattern in patterns)


def _no_response(request: HttpRequest) -> HttpResponseBase:
    """Never called: the middleware is only asked how it reads the setting."""
    raise NotImplementedError


def _scheme(scope: dict[str, Any], headers: dict[bytes, str]) -> str:
    """As the browser knows it: a proxy that is trusted to say so may have taken TLS off."""
    if settings.SECURE_PROXY_SSL_HEADER:
        name, secure = settings.SECURE_PROXY_SSL_HEADER
        wire_name = name.removeprefix("HTTP_").replace("_", "-").lower().encode()
        return "https" if headers.get(wire_name) == secure else "http"
    return "https" if scope.get("scheme") == "wss" else "http"


def _normal(origin: str) -> tuple[str, str, str] | None:
    try:
        parts = urlsplit(origin)
        port = str(parts.port) if parts.port is not None else DEFAULT_PORTS.get(parts.scheme, "")
    except ValueError:
        return None
    return parts.scheme, (parts.hostname or "").lower(), port


Found = tuple[AbstractBaseUser, SignIn] | None


def _from_cookie(header: str) -> Found:
    # As pages do: Python's own parser gives up at a cookie that it does not like, whoever set it.
    key = parse_cookie(header).get(settings.SESSION_COOKIE_NAME)
    if not key:
        return None
    store = import_module(settings.SESSION_ENGINE).SessionStore(key)
    # `get_user` gives a session from before the secret key changed a new key. A handshake sends no
    # cookie, so that the browser would be left with a key that is gone; the next page does it.
    store.cycle_key = lambda: None
    user = get_user(SimpleNamespace(session=store))  # type: ignore[arg-type]
    if not isinstance(user, AbstractBaseUser) or not user.is_active:
        return None
    return user, SignIn(user.pk, user.get_session_auth_hash(), store.session_key, None)


def _from_token(header: str) -> Found:
    authentication = JWTAuthentication()
    try:
        raw = authentication.get_raw_token(header.encode("latin1", "replace"))
        if raw is None:
            return None
        token = authentication.get_validated_token(raw)
        user = authentication.get_user(token)
    except (InvalidToken, AuthenticationFailed):
        return None
    expires = datetime.fromtimestamp(token["exp"], UTC)
    return user, SignIn(user.pk, user.get_session_auth_hash(), None, expires)
