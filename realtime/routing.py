"""Who may open a WebSocket, and at which address."""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import Error as DatabaseUnavailable
from django.http import parse_cookie
from django.http.request import split_domain_port, validate_host
from django.urls import re_path
from django.utils.http import is_same_domain
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.exceptions import AuthenticationFailed, InvalidToken

from conversations.models import Scope
from conversations.people.accounts import MARK, find_key
from conversations.people.sign_ins import SignIn, client_address, redeem_ticket, sign_in_by_key
from realtime import dbpool, protocol
from realtime.conf import serving_role, socket_path
from realtime.sockets.consumer import ChatConsumer

logger = logging.getLogger(__name__)

DEFAULT_PORTS = {"http": "80", "https": "443"}
LOCAL_HOSTS = [".localhost", "127.0.0.1", "[::1]"]


class HandshakeAuth:
    """ASGI wrapper: sets `scope["user"]`, `scope["sign_in"]`, or `scope["refused"]`, a close code.

    A browser sees a close code only of a socket that was accepted, so the consumer refuses.
    """

    def __init__(self, inner: Any) -> None:
        if serving_role() != "web":
            # The Agents SDK takes about two seconds to import: here, where the application is put
            # together, nobody waits yet. The first connection would hold up the whole event loop.
            import_module("realtime.work.run")
        self.inner = inner

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        headers = {name: value.decode("latin1") for name, value in scope["headers"]}
        scope = {**scope, "refused": None, **await _authenticate(scope, headers)}
        return await self.inner(scope, receive, send)


async def _authenticate(scope: dict[str, Any], headers: dict[bytes, str]) -> dict[str, Any]:
    credentials = _find_credentials(scope, headers)
    if credentials is None:
        # Whatever its origin: credentials are what it has to mend first.
        return {"refused": protocol.CLOSE_NOT_AUTHENTICATED}
    if not _is_encrypted(scope, headers) or not _may_open(scope, headers, credentials):
        return {"refused": protocol.CLOSE_ORIGIN}
    try:
        found = await credentials.use()
    except DatabaseUnavailable as exc:
        # Every client comes back while the database is away: no traceback for each.
        logger.error("a socket is sent away: %s", type(exc).__name__)
        return {"refused": protocol.CLOSE_UNAVAILABLE}
    if found is None:
        return {"refused": protocol.CLOSE_NOT_AUTHENTICATED}
    user, sign_in = found
    peer = (scope.get("client") or [""])[0]
    address = client_address(headers.get(b"x-forwarded-for", ""), peer)
    return {"user": user, "sign_in": sign_in, "address": address}


@dataclass(frozen=True)
class Credentials:
    """What a client came with: an `Authorization` header, a ticket, or a session's cookie."""

    kind: Literal["header", "ticket", "cookie"]
    text: str

    async def use(self) -> "Found":
        """Whose they are, if they hold; a ticket is used up."""
        if self.kind == "ticket":
            return await dbpool.write(redeem_ticket, self.text)
        find = _from_cookie if self.kind == "cookie" else _from_header
        return await dbpool.read(find, self.text)


def _find_credentials(scope: dict[str, Any], headers: dict[bytes, str]) -> Credentials | None:
    """Those that count: a cookie only where there is nothing else."""
    if header := headers.get(b"authorization"):
        return Credentials("header", header)
    query = parse_qs(scope.get("query_string", b"").decode("latin1"))
    if "token" in query:
        return Credentials("ticket", query["token"][0])
    cookies = headers.get(b"cookie", "")
    if parse_cookie(cookies).get(settings.SESSION_COOKIE_NAME):
        return Credentials("cookie", cookies)
    return None


def _is_encrypted(scope: dict[str, Any], headers: dict[bytes, str]) -> bool:
    """Whether nobody reads along; not asked where pages may be had by plain HTTP too."""
    return not settings.SECURE_SSL_REDIRECT or _scheme(scope, headers) == "https"


def _may_open(scope: dict[str, Any], headers: dict[bytes, str], by: Credentials) -> bool:
    """Whether the page that opens the socket, if it is one, may do so.

    A cookie comes by itself, also from a foreign page; whoever sends anything else has been given
    it, so that pages of `ALLOWED_ORIGINS` may, and programs, which name no origin.
    """
    origin = headers.get(b"origin")
    if origin is None:
        return by.kind != "cookie"
    allowed = getattr(settings, "ALLOWED_ORIGINS", []) if by.kind != "cookie" else []
    return matches_origin(origin, allowed) or is_own_origin(scope, headers, origin)


def is_own_origin(scope: dict[str, Any], headers: dict[bytes, str], origin: str | None) -> bool:
    """Whether a page of this site, or of one that the settings trust, opens the socket.

    Exact scheme, host and port: a cookie would also come with a foreign page's handshake.
    """
    if not origin:
        return False
    if matches_origin(origin, settings.CSRF_TRUSTED_ORIGINS):
        return True
    host = headers.get(b"host", "")
    domain, _ = split_domain_port(host)
    allowed = settings.ALLOWED_HOSTS or (LOCAL_HOSTS if settings.DEBUG else [])
    if not domain or not validate_host(domain, allowed):
        return False
    return _normal(origin) == _normal(f"{_scheme(scope, headers)}://{host}")


def matches_origin(origin: str, allowed: Iterable[str]) -> bool:
    """Whether a setting names the origin, `https://*.example.org` included, as Django reads it."""
    try:
        parts = urlsplit(origin)
        patterns = [urlsplit(name) for name in allowed if "*" in name]
    except ValueError:
        return False
    return origin in allowed or any(
        pattern.scheme == parts.scheme
        and is_same_domain(parts.netloc, pattern.netloc.removeprefix("*"))
        for pattern in patterns
    )


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


def _from_header(header: str) -> Found:
    kind, _, text = header.partition(" ")
    if kind.lower() == "bearer" and text.startswith(MARK):
        return _from_key(text.strip())
    return _from_token(header)


def _from_key(text: str) -> Found:
    """A key must be good for reading: a socket is sent what happens to its user."""
    key = find_key(text)
    if key is None or Scope.READ not in key.scopes:
        return None
    return key.owner, sign_in_by_key(key)


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


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    """Any other address: a refused handshake instead of a traceback in the log."""
    await receive()
    await send({"type": "websocket.close"})


websocket_urlpatterns = [
    re_path(rf"^{re.escape(socket_path().strip('/'))}/?$", ChatConsumer.as_asgi()),
    re_path(r"", refuse),  # type: ignore[arg-type]
]
