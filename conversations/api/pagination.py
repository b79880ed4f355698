"""Pages by keyset: each begins where the one before ended, whatever was added meanwhile."""

from typing import Any

from django.core.exceptions import ValidationError
from rest_framework.exceptions import NotFound
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.views import APIView


class KeysetPagination(CursorPagination):
    """`?cursor=`, as `next` and `previous` of a page give it, and `?page_size=`."""

    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200

    def paginate_queryset(
        self, queryset: Any, request: Request, view: APIView | None = None
    ) -> list[Any] | None:
        """A cursor that was not made here may name what is no position at all."""
        try:
            return super().paginate_queryset(queryset, request, view)
        except (ValidationError, ValueError, OverflowError) as exc:
            raise NotFound from exc

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """As OpenAPI 3.1 has it."""
        page: dict[str, Any] = super().get_paginated_response_schema(schema)
        for name in ("next", "previous"):
            page["properties"][name] = {"type": ["string", "null"], "format": "uri"}
        page["required"] = list(page["properties"])
        return page


class ByActivity(KeysetPagination):
    """Newest activity first, as in the page's list."""

    ordering = ("-active_at", "-id")


class ByNumber(KeysetPagination):
    """From the first on."""

    ordering = ("number",)


class ByNumberBackwards(KeysetPagination):
    """From the last back."""

    ordering = ("-number",)


class ByAge(KeysetPagination):
    """Newest first."""

    ordering = ("-created_at", "-id")
