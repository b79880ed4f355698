"""The WebSocket's URL, and authentication of its handshake."""

import asyncio
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
from realtime.process import Process, refuse_busy
from realtime.sockets.consumer import ChatConsumer

logger = logging.getLogger(__name__)

DEFAULT_PORTS = {"http": "80", "https": "443"}
LOCAL_HOSTS = [".localhost", "127.0.0.1", "[::1]"]


class HandshakeAuth:
    """ASGI middleware that authenticates a handshake.

    Sets `scope["user"]`, `scope["sign_in"]` and `scope["address"]` ("" if unknown), with
    `scope["refused"]` None; or only a close code in `scope["refused"]`, and in `scope["busy"]` the
    error to send before, if too many sockets wait to be opened. It refuses nothing itself: a
    browser sees a close code only after `accept`, so the consumer accepts first and closes then.
    """

    def __init__(self, inner: Any) -> None:
        if serving_role() != "web":
            # Importing the Agents SDK takes about two seconds and blocks the event loop. Do it
            # here, while the application is built, and not at the first connection.
            import_module("realtime.work.run")
        self.inner = inner

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> Any:
        scope = {**scope, "refused": None, "busy": None, **await _authenticate(scope)}
        return await self.inner(scope, receive, send)


async def _authenticate(scope: dict[str, Any]) -> dict[str, Any]:
    headers = {name: value.decode("latin1") for name, value in scope["headers"]}
    credentials = _find_credentials(scope, headers)
    if credentials is None:
        # Check this before the origin: a client without credentials has to get some first.
        return {"refused": protocol.CLOSE_NOT_AUTHENTICATED}
    if not _is_encrypted(scope, headers) or not _may_open(scope, headers, credentials):
        return {"refused": protocol.CLOSE_ORIGIN}
    peer = (scope.get("client") or [""])[0]
    address = client_address(headers.get(b"x-forwarded-for", ""), peer)
    if not await _enter(address):
        return {"refused": protocol.CLOSE_UNAVAILABLE, "busy": refuse_busy("socket")}
    try:
        found = await credentials.use()
    except DatabaseUnavailable as exc:
        # All clients reconnect while the database is away: log no traceback for each.
        logger.error("authenticating a socket failed: %s", type(exc).__name__)
        return {"refused": protocol.CLOSE_UNAVAILABLE}
    if found is None:
        return {"refused": protocol.CLOSE_NOT_AUTHENTICATED}
    user, sign_in = found
    return {"user": user, "sign_in": sign_in, "address": address}


async def _enter(address: str) -> bool:
    """Wait for the turn of a handshake from `address`; return False if too many wait already.

    The first one, before which this process has no services, does not wait.
    """
    process = Process.current
    if process is None or process.loop is not asyncio.get_running_loop():
        return True
    return await process.handshakes.enter(address)


@dataclass(frozen=True)
class Credentials:
    """What a client authenticates with: an `Authorization` header, a ticket or a cookie.

    `text` is the value of that header, the ticket, or the whole `Cookie` header.
    """

    kind: Literal["header", "ticket", "cookie"]
    text: str

    async def use(self) -> "Found":
        """Return the user and the sign-in; None if the credentials are not valid.

        Those of an inactive user and an API key without the scope `read` are not valid. A ticket is
        redeemed: it is valid only once. Raises database errors.
        """
        if self.kind == "ticket":
            return await dbpool.write_soon(redeem_ticket, self.text)
        find = _from_cookie if self.kind == "cookie" else _from_header
        return await dbpool.read_soon(find, self.text)


def _find_credentials(scope: dict[str, Any], headers: dict[bytes, str]) -> Credentials | None:
    """Find the client's credentials; a cookie is used only if there is nothing else."""
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
    """Return whether the connection uses TLS; always true if the site also serves plain HTTP."""
    return not settings.SECURE_SSL_REDIRECT or _scheme(scope, headers) == "https"


def _may_open(scope: dict[str, Any], headers: dict[bytes, str], by: Credentials) -> bool:
    """Return whether the origin that opens the socket, if any, is allowed to.

    Browsers send cookies also from foreign pages, so with a cookie only the site's own origins are
    allowed. A header or a ticket was given to the client, so with one of these, pages of
    `ALLOWED_ORIGINS` and programs (which send no origin) are allowed too.
    """
    origin = headers.get(b"origin")
    if origin is None:
        return by.kind != "cookie"
    allowed = getattr(settings, "ALLOWED_ORIGINS", []) if by.kind != "cookie" else []
    return matches_origin(origin, allowed) or is_own_origin(scope, headers, origin)


def is_own_origin(scope: dict[str, Any], headers: dict[bytes, str], origin: str | None) -> bool:
    """Return whether `origin` is this site or one of `CSRF_TRUSTED_ORIGINS`; False for None or "".

    This site is the scheme of the connection with the `Host` header, which `ALLOWED_HOSTS` must
    have. Scheme, host and port must be equal, where a missing port is the scheme's default: the
    cookie also comes with a foreign page's handshake.
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
    """Return whether `allowed` has exactly this origin, or a pattern for it.

    The pattern `https://*.example.org` allows all subdomains and, as in Django, the domain itself.
    False if the origin or a pattern is a malformed URL. `allowed` must not be an iterator.
    """
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
    """Return the scheme that the browser uses; a trusted proxy may have removed TLS."""
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
    # Django's parser, as for pages: Python's own stops at the first malformed cookie.
    key = parse_cookie(header).get(settings.SESSION_COOKIE_NAME)
    if not key:
        return None
    store = import_module(settings.SESSION_ENGINE).SessionStore(key)
    # `get_user` gives a session signed with an old secret key a new key. A handshake cannot set the
    # cookie, so the browser would keep a key that is gone; the next page load does it.
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
    """Authenticate by an API key with the scope `read`: a socket shows the user's sessions."""
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
    """Refuse any handshake, without `accept`: an ASGI application for unknown paths.

    Without it Channels logs a traceback.
    """
    await receive()
    await send({"type": "websocket.close"})


websocket_urlpatterns = [
    re_path(rf"^{re.escape(socket_path().strip('/'))}/?$", ChatConsumer.as_asgi()),
    re_path(r"", refuse),  # type: ignore[arg-type]
]
