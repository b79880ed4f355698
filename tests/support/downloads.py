"""Reads streamed answers whole, in the process of the tests."""

from typing import Any

from django.http import HttpResponse
from django.test import AsyncClient


class Answered:
    """An answer and its whole body; `error` is that of a refusal."""

    def __init__(self, response: HttpResponse, body: bytes) -> None:
        self.status_code = response.status_code
        self.headers = response.headers
        self.body = body

    @property
    def text(self) -> str:
        return self.body.decode()


async def download(
    client: AsyncClient, address: str, *, form: dict[str, str] | None = None, **options: Any
) -> Answered:
    """GET an address that answers with a stream or with an error; POST with a `form`."""
    asked = client.get(address, **options) if form is None else client.post(address, form)
    response: Any = await asked
    if not response.streaming:
        return Answered(response, response.content)
    return Answered(response, b"".join([piece async for piece in response]))
