"""Checks every answer of the API that tests receive against its OpenAPI declaration."""

import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any
from unittest import mock

from django.test import AsyncClient, Client

from tests.support.conformance import check_answer, operations_of
from tests.support.site import Answer, Site

Check = Callable[[bytes], None]

_ask, _ask_async, _ask_site = Client.request, AsyncClient.request, Site.request


@contextlib.contextmanager
def watched_answers() -> Iterator[None]:
    """Raise in the caller for an undeclared answer, of this process's API or of a site's."""
    with (
        mock.patch.object(Client, "request", _request),
        mock.patch.object(AsyncClient, "request", _request_async),
        mock.patch.object(Site, "request", _request_site),
    ):
        yield


def _request(client: Client, **asked: Any) -> Any:
    response = _ask(client, **asked)
    _look_at(response, asked["REQUEST_METHOD"], asked["PATH_INFO"])
    return response


async def _request_async(client: AsyncClient, **asked: Any) -> Any:
    response = await _ask_async(client, **asked)
    _look_at(response, asked["method"], asked["path"])
    return response


def _request_site(site: Site, method: str, path: str, **asked: Any) -> Answer:
    answer = _ask_site(site, method, path, **asked)
    kind = answer.headers.get("Content-Type", "")
    check_answer(method, path, answer.status, kind, answer.body)
    return answer


def _look_at(response: Any, method: str, path: str) -> None:
    def check(body: bytes) -> None:
        kind = response.headers.get("Content-Type", "")
        check_answer(method, path, response.status_code, kind, body)

    if not response.streaming:
        check(response.content)
    elif response.is_async and operations_of(path):
        response.streaming_content = _read_along(response.streaming_content, check)


async def _read_along(
    pieces: AsyncGenerator[bytes, None], check: Check
) -> AsyncGenerator[bytes, None]:
    """Yield the pieces unchanged; a caller that reads to the end has the whole checked."""
    body = bytearray()
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            body += piece
            yield piece
    check(bytes(body))
