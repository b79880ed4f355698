"""Keeps a WebSocket open, and reconnects after each loss."""

import asyncio
import contextlib
import json
import random
from typing import Any, NoReturn, Protocol

import aiohttp

from agentsite.client.http import (
    NETWORK_ERRORS,
    Http,
    NotSignedInError,
    RefusedError,
    UnreachableError,
    describe,
)

Frame = dict[str, Any]

PATH = "/ws/agent/"

NOT_SIGNED_IN = 4001
SIGN_IN_ENDED = 4401
ORIGIN = 4403
TOO_FAST = 4429
RESTART = 4012
TOO_BIG = 1009
BROKEN = 1006

FIRST_FRAME_S = 15.0
BASE_S = 1.0
CAP_S = 30.0
STABLE_S = 10.0
"""A connection that lasted this many seconds resets the pauses between attempts."""

JITTER = random.SystemRandom()


class Listener(Protocol):
    """Receives the events of a connection, which waits for its methods before it reads on."""

    @property
    def is_waiting(self) -> bool:
        """Whether somebody waits for something that needs the connection."""
        ...

    async def on_open(self) -> None:
        """Handle a new socket, which can be sent on; send what the server has not answered."""
        ...

    async def on_frame(self, frame: Frame) -> None:
        """Handle a received frame; for `connected`, `on_open` is called before."""
        ...

    def on_lost(self, retry_s: float) -> None:
        """Handle the loss of the socket, or an attempt that failed.

        The next attempt is in `retry_s` seconds, or at the next `Connection.wake`. Not called if a
        new socket is opened at once, because the credentials were renewed.
        """
        ...


class Connection:
    """A connection that `run` keeps open until it is cancelled or has no prospect of success.

    After a loss it tries without limit while `listener` waits for nothing, else for `patience_s`
    seconds. A socket that breaks within `STABLE_S` seconds, without an answer or a piece of a
    reply, does not extend that time.
    """

    def __init__(self, http: Http, listener: Listener, *, patience_s: float) -> None:
        self._http = http
        self._listener = listener
        self._patience_s = patience_s
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._attempts = 0
        self._opened_at: float | None = None
        self._alive_at = 0.0
        self._is_renewed = False
        self._frame_max_bytes = 0
        self._has_brought = False
        self._busy_s: float | None = None
        self._fault = ""
        self._awake = asyncio.Event()

    async def send(self, frame: Frame) -> None:
        """Send a frame now, or drop it if there is no connection.

        A frame may be lost in sending too: `on_open`, called for each new connection, must send
        again what has no answer. Raises `RefusedError` for a frame larger than the site accepts;
        one that is dropped is not measured.
        """
        if self._socket is None or self._socket.closed or self._opened_at is None:
            return
        text = _encode(frame)
        if len(text) > self._frame_max_bytes:
            limit = self._frame_max_bytes // 1024
            raise RefusedError(
                "too_large", f"The message is too long: this site takes {limit} KB at most."
            )
        # If sending fails, receiving fails too, and `run` reconnects.
        with contextlib.suppress(*NETWORK_ERRORS):
            await self._socket.send_str(text.decode())

    def wake(self) -> None:
        """End the pause before the next attempt, if there is one, and restart the time of patience.

        Call it when somebody begins to wait; it does nothing while there is a socket.
        """
        if self._socket is None:
            self._alive_at = _now()
            self._awake.set()

    async def drop(self) -> None:
        """Close the socket, if there is one, so that `run` opens a new one after its pause."""
        if self._socket is not None:
            await self._socket.close()

    async def run(self) -> NoReturn:
        """Open a socket, and another one after each loss; never return.

        Raises `RefusedError` or its subclass `NotSignedInError` if the site refuses for good, and
        `UnreachableError` once the time of patience is over; what else a frame that is no frame of
        this protocol causes, such as `ValueError` and `KeyError`, is raised too.
        """
        self._alive_at = _now()
        while True:
            code = await self._converse()
            if code == ORIGIN:
                raise RefusedError("forbidden", f"{self._http.url} is not that site's own address.")
            if code == TOO_BIG:
                raise RefusedError("too_large", "The message is too long for the way to the site.")
            if code in (NOT_SIGNED_IN, SIGN_IN_ENDED) and await self._renew():
                continue
            await self._pause(self._pause_after(code))

    async def _renew(self) -> bool:
        """Renew the credentials; return whether to reconnect at once.

        Raises `NotSignedInError` if they cannot be renewed.
        """
        try:
            if not self._is_renewed and await self._http.credentials.renew():
                self._is_renewed = True
                return True
        except UnreachableError as exc:
            self._fault = str(exc)
            return False
        raise NotSignedInError

    def _pause_after(self, code: int) -> float:
        """Return a random pause in seconds, up to a limit that doubles with each attempt.

        It is random so that clients do not reconnect all at once. A site that is busy says when.
        """
        busy_s, self._busy_s = self._busy_s, None
        if busy_s is not None:
            return busy_s * JITTER.uniform(1, 1.5)
        if code == TOO_FAST:
            return CAP_S * JITTER.uniform(0.5, 1)
        if code == RESTART:
            return BASE_S * JITTER.random()
        self._attempts += 1
        return JITTER.random() * min(CAP_S, BASE_S * 2.0 ** (self._attempts - 1))

    async def _pause(self, seconds: float) -> None:
        away_s = _now() + seconds - self._alive_at
        if self._listener.is_waiting and away_s > self._patience_s:
            raise UnreachableError(self._fault or f"{self._http.url} cannot be reached")
        self._listener.on_lost(seconds)
        self._awake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._awake.wait()

    async def _converse(self) -> int:
        """Use one socket from its handshake to its end; return its close code."""
        try:
            async with self._http.socket(PATH) as self._socket:
                return await self._listen(self._socket)
        except NETWORK_ERRORS as exc:
            self._fault = f"{self._http.url} cannot be reached: {describe(exc)}"
            return BROKEN
        finally:
            self._socket = None
            self._note_end()

    def _note_end(self) -> None:
        if self._opened_at is None:
            return
        is_stable = _now() - self._opened_at > STABLE_S
        if is_stable:
            self._attempts = 0
        if is_stable or self._has_brought or not self._listener.is_waiting:
            self._alive_at = _now()
        self._opened_at, self._has_brought = None, False

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse) -> int:
        silence_s, leave_at = FIRST_FRAME_S, float("inf")
        while True:
            limit = min(silence_s, leave_at - _now())
            try:
                message = await socket.receive(timeout=max(limit, 0.01))
            except TimeoutError:
                return RESTART if _now() >= leave_at else BROKEN
            if message.type is not aiohttp.WSMsgType.TEXT:
                return socket.close_code or BROKEN
            frame = json.loads(message.data)
            if self._opened_at is None and frame["type"] == "error":
                self._busy_s = frame["metadata"].get("retry_after")
                continue
            match frame["metadata"].get("event"):
                case "connected":
                    silence_s = 2 * frame["metadata"]["heartbeat_s"]
                    self._frame_max_bytes = frame["metadata"]["limits"]["frame_max_bytes"]
                    self._opened_at = _now()
                    self._is_renewed, self._fault = False, ""
                    await self._listener.on_open()
                case "draining":
                    # The server works on until then. By that time another process may accept the
                    # connection.
                    leave_at = _now() + frame["metadata"]["reconnect_after_ms"] / 1_000
                case None | "accepted" | "snapshot":
                    self._has_brought |= frame["type"] not in ("ping", "pong")
            await self._listener.on_frame(frame)


def _encode(frame: Frame) -> bytes:
    """Encode a frame as the server counts its size; lone surrogates are escaped."""
    try:
        return json.dumps(frame, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(frame).encode()


def _now() -> float:
    return asyncio.get_running_loop().time()
