"""A site of this kind, used from a program; docs/client.md shows how.

Needs aiohttp and nothing else of the site: the folder may be copied to where it is used.
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
    """To be written to; takes its name, and the place of what has it, at the end of the block."""
    with NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as draft:
        try:
            yield draft
        except BaseException:
            Path(draft.name).unlink()
            raise
    Path(draft.name).replace(file)


PATIENCE_S = 120.0
PIECE_BYTES = 64 * 1024

FORMATS = ("json", "jsonl", "openai", "markdown", "html", "csv", "text")
"""What a transcript can be had in; docs/protocol.md#downloads tells them apart."""


class Session(TypedDict):
    """A line of the list of sessions; times are in ISO 8601, `run_status` is null when at rest."""

    id: str
    title: str
    agent: str
    rev: int
    message_count: int
    run_status: str | None
    created_at: str
    active_at: str
    archived_at: str | None
    deleted_at: str | None


class Client:
    """One site as one user, within `async with`.

    `url` is the site's address, such as `https://chat.example.org`; a wrong one is a `ValueError`.
    With `key`, an API key, as much can be done as its scopes say; `read` is needed for a chat. A
    chat waits for `patience_s` seconds for a connection that broke off.

    Whatever is asked of the site raises `RefusedError` with a code of the protocol, or its kind
    `NotSignedInError`, or `UnreachableError`.
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
        """As a user with a password; access is renewed by itself for as long as the site allows."""
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
        """As somebody without an account, where the site allows that; what is said is kept."""
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
        """A conversation, new or to be gone on with, to be entered by `async with`.

        `agent` is one of the site's, by its name.
        """
        return Chat(self._http, session_id, agent=agent, patience_s=self._patience_s)

    async def list_sessions(self, **filters: str) -> AsyncIterator[Session]:
        """The user's sessions, newest activity first.

        Filters: `search`, `state` (`current`, `archived`, `all`, `deleted`), `agent`, `status`,
        `active_after`, `active_before`, `created_after`, `created_before`.
        """
        query: dict[str, str] | None = filters
        while query is not None:
            page = await self._http.get("/api/sessions/", **query)
            for session in page["results"]:
                yield session
            # Its query alone: an address that the answer names is not to get our headers.
            query = dict(parse_qsl(urlsplit(page["next"]).query)) if page["next"] else None

    async def get_session(self, session_id: str) -> dict[str, Any]:
        """A `Session` with its latest `messages`, its `run` at work or None, and its `queue`.

        A message has `message_id`, `number`, `role`, `text`, `parts`, `created_at`, `run_status`
        and what else `GET /api/schema/` tells of it.
        """
        session: dict[str, Any] = await self._http.get(f"/api/sessions/{session_id}/")
        return session

    async def download(
        self, export_format: str, session_id: str = "", **filters: str
    ) -> AsyncIterator[bytes]:
        """A transcript, piece by piece: of one session, or of all that match the filters.

        `export_format` is one of `FORMATS`, the filters are those of `list_sessions`. When the
        connection breaks, `UnreachableError` is raised, and what had come is not all.
        """
        path = f"/api/sessions/{session_id}/transcript/" if session_id else "/api/export/"
        query = {"export_format": export_format, **filters}
        async with self._http.answer("GET", path, params=query) as response:
            async for piece in response.content.iter_chunked(PIECE_BYTES):
                yield piece

    async def export(
        self, file: Path, export_format: str, session_id: str = "", **filters: str
    ) -> int:
        """The same as a file, which is there whole or not at all; its size in bytes.

        Raises `OSError` where it cannot be written.
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
