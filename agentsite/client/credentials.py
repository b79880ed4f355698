"""As whom a program comes: what its requests and its socket carry."""

from collections.abc import Awaitable, Callable
from typing import Protocol


class Credentials(Protocol):
    """Headers that say who calls."""

    def headers(self) -> dict[str, str]:
        """For requests and for the socket's handshake."""
        ...

    async def renew(self) -> bool:
        """After a refusal: whether there are other headers now."""
        ...


class Nobody:
    """Before any sign-in."""

    def headers(self) -> dict[str, str]:
        return {}

    async def renew(self) -> bool:
        return False


class ApiKey:
    """A key, which does what its scopes say."""

    def __init__(self, key: str) -> None:
        self._key = key

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"}

    async def renew(self) -> bool:
        return False


class Tokens:
    """An access token and what gets the next one: `refresh` returns it, or "" when that is over."""

    def __init__(self, access: str, refresh: Callable[[], Awaitable[str]]) -> None:
        self._access = access
        self._refresh = refresh

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._access}"}

    async def renew(self) -> bool:
        self._access = await self._refresh()
        return bool(self._access)


class Guest:
    """A visitor with a session cookie, which the HTTP session keeps; the origin is the site's."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def headers(self) -> dict[str, str]:
        return {"Origin": self._origin}

    async def renew(self) -> bool:
        return False
