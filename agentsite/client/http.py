"""HTTP requests to one site, their credentials, and the client's exceptions."""

import contextlib
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp


class Credentials(Protocol):
    """What authenticates requests: headers, which may have to be renewed."""

    def headers(self) -> dict[str, str]:
        """Return the headers of requests and of the socket's handshake."""
        ...

    async def renew(self) -> bool:
        """Renew the credentials after a refusal; return whether the request can be sent again.

        Raises `ClientError` if the site could not be asked.
        """
        ...


class Nobody:
    """No credentials."""

    def headers(self) -> dict[str, str]:
        return {}

    async def renew(self) -> bool:
        return False


class ApiKey:
    """An API key."""

    def __init__(self, key: str) -> None:
        self._key = key

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"}

    async def renew(self) -> bool:
        return False


class Tokens:
    """An access token; `refresh` returns the next one, or "" if there is none any more."""

    def __init__(self, access: str, refresh: Callable[[], Awaitable[str]]) -> None:
        self._access = access
        self._refresh = refresh

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._access}"}

    async def renew(self) -> bool:
        self._access = await self._refresh()
        return bool(self._access)


class Guest:
    """A guest, whose session cookie the HTTP session stores; the site checks the `origin`."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def headers(self) -> dict[str, str]:
        return {"Origin": self._origin}

    async def renew(self) -> bool:
        return False


class ClientError(Exception):
    """The base of what the client raises when the site refuses, fails or is not reached.

    Its text can be shown to people. A bad `url` raises `ValueError`, a file `OSError`.
    """


class UnreachableError(ClientError):
    """The site does not answer, something else does, or a connection was not restored in time."""


class RefusedError(ClientError):
    """The site refused a request; `code` is one of docs/protocol.md#error-codes, `text` its text.

    `retryable` says whether a retry can succeed, `retry_after` in how many seconds; None if the
    site did not say.
    """

    def __init__(
        self,
        code: str,
        text: str,
        *,
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.retryable = retryable
        self.retry_after = retry_after


class NotSignedInError(RefusedError):
    """The credentials are missing, wrong or expired; the code is `not_authenticated`."""

    def __init__(self, text: str = "Please sign in.") -> None:
        super().__init__("not_authenticated", text)


class ReplyError(RefusedError):
    """A reply ended with an error; the reply's `text` is what was written until then."""


def refusal(
    code: str, text: str, *, retryable: bool = False, retry_after: float | None = None
) -> RefusedError:
    """Return the exception for an error of the site; for `not_authenticated`, `NotSignedInError`.

    That one is never retryable.
    """
    if code == "not_authenticated":
        return NotSignedInError(text)
    return RefusedError(code, text, retryable=retryable, retry_after=retry_after)


CONNECT_S = 10.0
READ_S = 60.0
"""Seconds without data in the middle of an answer after which it has failed."""

CLOSE_S = 1.0
FRAME_BYTES = 16 * 1024 * 1024
"""The largest frame accepted: a snapshot of a long reply is one frame."""

REDIRECTS = 300
UNAUTHORIZED = 401

NETWORK_ERRORS = (aiohttp.ClientError, OSError, TimeoutError)


class Http:
    """Sends requests to the site at `url`, with `credentials`; raises `ValueError` for a bad `url`.

    If a request is refused for its credentials, they are renewed and it is sent once more. Proxies
    of the environment are used. Call `open` before the first request, and `close` after the last.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url} is not an address such as https://chat.example.org")
        self.url = url.rstrip("/")
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.credentials: Credentials = Nobody()
        bypassed = proxy_bypass(parts.hostname)
        self._proxy = None if bypassed else getproxies().get(parts.scheme)
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Create the HTTP session; call this on the running event loop."""
        self._session = aiohttp.ClientSession(
            # By default, aiohttp keeps no cookies of hosts that are IP addresses.
            cookie_jar=aiohttp.CookieJar(unsafe=True),
            timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_S, sock_read=READ_S),
            proxy=self._proxy,
        )

    async def close(self) -> None:
        """Close all connections; do nothing if `open` was not called."""
        if self._session is not None:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session is not None, "enter the client with `async with` first"
        return self._session

    async def get(self, path: str, **params: Any) -> Any:
        """GET `path` with the query `params`; return the parsed JSON.

        Raises `RefusedError`, and `UnreachableError`, also for an answer of another type.
        """
        async with self.answer("GET", path, params=params) as response:
            return await response.json()

    async def post(self, path: str, data: dict[str, Any], **options: Any) -> Any:
        """POST `data` as JSON to `path`; return the parsed JSON of the answer.

        `options` are those of `answer`. Raises `RefusedError`, and `UnreachableError`, also for an
        answer of another type.
        """
        async with self.answer("POST", path, json=data, **options) as response:
            return await response.json()

    @contextlib.asynccontextmanager
    async def answer(
        self, method: str, path: str, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request to `path` and yield the answer, which must be read within the block.

        Raises `RefusedError` for an error of the site, and `UnreachableError` for a redirect, an
        error in another form and a network error, also one within the block. `options` are
        aiohttp's; `credentials` among them replace those of the client, and are not renewed.
        """
        try:
            async with await self._send(method, path, options) as response:
                if response.status >= REDIRECTS:
                    raise await _refusal(response)
                yield response
        except NETWORK_ERRORS as exc:
            raise UnreachableError(f"{self.url} cannot be reached: {describe(exc)}") from exc

    async def _send(
        self, method: str, path: str, options: dict[str, Any]
    ) -> aiohttp.ClientResponse:
        response = await self._send_once(method, path, **options)
        if response.status == UNAUTHORIZED and options.get("credentials") is None:
            await response.read()
            if await self.credentials.renew():
                return await self._send_once(method, path, **options)
        return response

    async def _send_once(
        self,
        method: str,
        path: str,
        *,
        credentials: Credentials | None = None,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> aiohttp.ClientResponse:
        return await self.session.request(
            method,
            self.url + path,
            headers={**(credentials or self.credentials).headers(), **(headers or {})},
            # A redirect would turn a POST into a GET, or send the credentials to another site.
            allow_redirects=False,
            **options,
        )

    def socket(self, path: str) -> Any:
        """Return a connection to the WebSocket at `path`, to be opened with `async with`.

        It has the headers of the present credentials, which are not renewed. Opening it raises what
        aiohttp raises: one of `NETWORK_ERRORS`.
        """
        return self.session.ws_connect(
            self.url + path,
            headers=self.credentials.headers(),
            timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
            max_msg_size=FRAME_BYTES,
        )


async def _refusal(response: aiohttp.ClientResponse) -> ClientError:
    if location := response.headers.get("Location"):
        return UnreachableError(f"{response.url} leads to {location}: is that the site's address?")
    try:
        error = (await response.json())["error"]
        code, text, retryable = error["code"], error["text"], error["retryable"]
    except (aiohttp.ContentTypeError, ValueError, LookupError, TypeError):
        return UnreachableError(
            f"{response.url} is answered by {response.status} {response.reason}"
        )
    wait = response.headers.get("Retry-After", "")
    after = float(wait) if wait.isdigit() else None
    return refusal(code, text, retryable=retryable, retry_after=after)


def describe(exc: BaseException) -> str:
    """Describe an exception, one of `NETWORK_ERRORS`, in a few words, without a capital or dot."""
    if isinstance(exc, aiohttp.ContentTypeError):
        return "something else than this chat answers there"
    if isinstance(exc, aiohttp.WSServerHandshakeError):
        return f"no WebSocket is opened there, the answer is {exc.status}"
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        fault = exc.certificate_error
        return f"its certificate is not accepted: {getattr(fault, 'verify_message', fault)}"
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    broken = isinstance(exc, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError)
    if broken or getattr(exc, "errno", None) in (errno.ECONNRESET, errno.EPIPE):
        return "the connection broke off"
    if isinstance(exc, OSError) and exc.errno and exc.errno > 0:
        return os.strerror(exc.errno).lower()
    return str(exc) or type(exc).__name__
