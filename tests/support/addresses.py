"""Lists the addresses of the site."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from django.urls import URLPattern, URLResolver, get_resolver


class Route(NamedTuple):
    """A URL pattern with its whole address."""

    address: str
    pattern: URLPattern


def routes(prefix: str) -> list[Route]:
    """Return the routes whose address begins with `prefix`."""
    found = _below(get_resolver().url_patterns, "/")
    return [route for route in found if route.address.startswith(prefix)]


def _below(patterns: Iterable[Any], before: str) -> Iterator[Route]:
    for pattern in patterns:
        address = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _below(pattern.url_patterns, address)
        else:
            yield Route(address, pattern)
