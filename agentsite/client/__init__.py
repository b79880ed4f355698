"""The Python client of this site; docs/client.md shows how to use it.

It needs only aiohttp and nothing else of the site: the folder may be copied elsewhere.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any, TypedDict
from urllib.parse import parse_qsl, urlsplit

from agentsite.client.chat import Chat
from agentsite.client.http import (
    ApiKey,
    ClientError,
    Guest,
    Http,
    Nobody,
    NotSignedInError,
    RefusedError,
    ReplyError,
    Tokens,
    UnreachableError,
)
from agentsite.client.reply import Answer, Reply


@contextlib.contextmanager
def draft_of(file: Path) -> Iterator[IO[bytes]]:
    """Open a temporary binary file beside `file`, which it replaces at the end of the block.

    If the block raises, or `file` cannot be replaced, the temporary file is deleted and `file`
    stays as it is. Raises `OSError` then, and if the temporary file cannot be created.
    """
    with NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as draft:
        temporary = Path(draft.name)
        try:
            yield draft
            draft.close()
            temporary.replace(file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


PATIENCE_S = 120.0
PIECE_BYTES = 64 * 1024

FORMATS = ("json", "jsonl", "openai", "markdown", "html", "csv", "text")
"""The export formats; docs/protocol.md#downloads describes them."""


class Session(TypedDict):
    """A session in a list; times are in ISO 8601, the last two None if that has not happened.

    `run_status` is that of the run that is written or awaits input, else `queued`; None if no run
    is unfinished. `rev` rises with each change of the session other than streamed text.
    """

    id: str
    title: str
    agent: str
    rev: int
    message_count: int
    run_status: str | None
    pinned: bool
    created_at: str
    active_at: str
    archived_at: str | None
    deleted_at: str | None


class Client:
    """A client of one site for one user, to be used with `async with`.

    `url` is the site's address, such as `https://chat.example.org`; an invalid one raises
    `ValueError`. With `key`, an API key, the client can do what the key's scopes allow: opening a
    chat needs `read`, sending messages `write`, deciding approvals `approve`. `patience_s` is for
    how many seconds a chat tries to connect while a reply or an answer is awaited.

    Requests raise `RefusedError` with a code of the protocol, its subclass `NotSignedInError`, or
    `UnreachableError`.
    """

    def __init__(self, url: str, *, key: str = "", patience_s: float = PATIENCE_S) -> None:
        self._http = Http(url)
        self._patience_s = patience_s
        if key:
            self._http.credentials = ApiKey(key)

    async def __aenter__(self) -> "Client":
        await self._http.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._http.close()

    async def sign_in(self, username: str, password: str) -> None:
        """Sign in with a user name and a password, in place of any credentials used before.

        Access is renewed automatically for as long as the site allows. Raises `NotSignedInError`
        for a wrong name or password, another `RefusedError` such as `rate_limited`, and
        `UnreachableError`; then the credentials stay as they were.
        """
        login = {"username": username, "password": password}
        try:
            tokens = await self._http.post("/api/token/", login, credentials=Nobody())
        except NotSignedInError:
            raise NotSignedInError("That name and password are not known here.") from None
        self._http.credentials = Tokens(tokens["access"], self._refresher(tokens["refresh"]))

    def _refresher(self, refresh: str) -> Any:
        async def renew() -> str:
            try:
                answer = await self._http.post(
                    "/api/token/refresh/", {"refresh": refresh}, credentials=Nobody()
                )
            except NotSignedInError:
                return ""
            return str(answer["access"])

        return renew

    async def sign_in_as_guest(self) -> None:
        """Sign in as a new guest, whose conversations the site stores.

        A second call keeps the guest. Nobody can sign in as this guest again once the client is
        closed. Raises `NotSignedInError` if the site has no guests, another `RefusedError` such as
        `rate_limited`, and `UnreachableError`.
        """
        self._http.credentials = Guest(self._http.origin)
        async with self._http.answer("GET", "/accounts/login/") as page:
            token = page.cookies["csrftoken"].value
        try:
            await self._http.post("/accounts/guest/", {}, headers={"X-CSRFToken": token})
        except NotSignedInError:
            raise NotSignedInError(
                "There are no guests on this site: sign in with a name."
            ) from None

    def chat(self, session_id: str = "", *, agent: str = "") -> Chat:
        """Return a chat in the conversation `session_id`, to be entered with `async with`.

        Without a `session_id`, the first message begins a new conversation. `agent` is the name of
        the agent that answers each message; by default that of the conversation or, in a new one,
        the site's first. Neither is checked before a message is sent.
        """
        return Chat(self._http, session_id, agent=agent, patience_s=self._patience_s)

    async def list_sessions(self, **filters: str) -> AsyncIterator[Session]:
        """Yield the user's sessions, the most recently active first, by one request per page.

        Filters: `search`, `state` (`current`, `archived`, `all`, `deleted`), `agent`, `status`,
        `active_after`, `active_before`, `created_after`, `created_before`. Raises `RefusedError`
        for others, and for invalid values.
        """
        query: dict[str, str] | None = filters
        while query is not None:
            page = await self._http.get("/api/sessions/", **query)
            for session in page["results"]:
                yield session
            # Take only the query of `next`: our credentials must not go to another address.
            query = dict(parse_qsl(urlsplit(page["next"]).query)) if page["next"] else None

    async def get_session(self, session_id: str) -> dict[str, Any]:
        """Return a `Session` with its latest `messages`, its active `run` or None, and its `queue`.

        The messages are those of the active branch, oldest first, 200 at most.
        A message has `message_id`, `number`, `role`, `text`, `parts`, `created_at`, `run_status`
        and the other fields that `GET /api/schema/` describes. Raises `RefusedError` with
        `not_found` for a session that the user does not have.
        """
        session: dict[str, Any] = await self._http.get(f"/api/sessions/{session_id}/")
        return session

    async def download(
        self, export_format: str, session_id: str = "", **filters: str
    ) -> AsyncIterator[bytes]:
        """Yield the chunks of an export: of one session, or of all that match the filters.

        `export_format` is one of `FORMATS`; the filters are those of `list_sessions`, and not for
        use with a `session_id`. If the connection breaks, raises `UnreachableError`; the chunks
        until then are not a whole export.
        """
        path = f"/api/sessions/{session_id}/transcript/" if session_id else "/api/export/"
        query = {"export_format": export_format, **filters}
        async with self._http.answer("GET", path, params=query) as response:
            async for piece in response.content.iter_chunked(PIECE_BYTES):
                yield piece

    async def export(
        self, file: Path, export_format: str, session_id: str = "", **filters: str
    ) -> int:
        """Write an export, as `download` yields it, to `file` and return its size in bytes.

        The file is written completely or not at all; one that exists is replaced. Raises `OSError`
        if it cannot be written.
        """
        with draft_of(file) as draft:
            async for piece in self.download(export_format, session_id, **filters):
                draft.write(piece)
            return draft.tell()


__all__ = [
    "FORMATS",
    "Answer",
    "Chat",
    "Client",
    "ClientError",
    "NotSignedInError",
    "RefusedError",
    "Reply",
    "ReplyError",
    "Session",
    "UnreachableError",
]
