"""Rows to look at, newest first, page by page without ever counting them."""

import base64
import json
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db import DataError
from django.db.models import Model, Q
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString


class KeysetChangeList(ChangeList):
    """Pages that begin behind the last row of the page before, by the admin's `keyset` columns.

    The place in the address is made of that row's values, so that the last page of a million rows
    costs what the first one does.
    """

    model_admin: "ReadOnlyAdmin"
    result_list: Any
    next_page: str | None = None
    is_first: bool = True

    def get_results(self, request: HttpRequest) -> None:
        try:
            found = self._read(request)
        except (ValidationError, ValueError, OverflowError, DataError) as exc:
            # Somebody has changed the address: there is no such place, or no such value.
            raise IncorrectLookupParameters(exc) from exc
        self.result_list = self.model_admin.complete(found[: self.list_per_page])
        if len(found) > self.list_per_page:
            last = found[self.list_per_page - 1]
            self.next_page = _write_place(getattr(last, self.model_admin.keyset), last.pk)
        self.result_count = len(self.result_list)
        self.full_result_count = None
        self.show_full_result_count = False
        self.show_admin_actions = bool(self.result_list)
        self.can_show_all = False
        self.multi_page = False
        self.paginator = Paginator(self.result_list, self.list_per_page)

    def _read(self, request: HttpRequest) -> list[Any]:
        """One row more than there are on a page."""
        column = self.model_admin.keyset
        rows = self.queryset.order_by(f"-{column}", "-pk")
        if place := _read_place(request.GET.get(PAGE_VAR, "")):
            moment, pk = place
            at_moment = Q(**{column: moment, "pk__lt": pk})
            rows = rows.filter(Q(**{f"{column}__lte": moment}))
            rows = rows.filter(Q(**{f"{column}__lt": moment}) | at_moment)
            self.is_first = False
        return list(rows[: self.list_per_page + 1])

    @property
    def next_address(self) -> str:
        return self.get_query_string({PAGE_VAR: self.next_page})

    @property
    def first_address(self) -> str:
        return self.get_query_string(remove=[PAGE_VAR])


def _write_place(moment: datetime, pk: Any) -> str:
    place = json.dumps([moment.isoformat(), str(pk)])
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def _read_place(text: str) -> tuple[datetime, str] | None:
    """None for a place that was not made here."""
    try:
        padded = text + "=" * (-len(text) % 4)
        moment, pk = json.loads(base64.urlsafe_b64decode(padded))
        found = datetime.fromisoformat(moment)
    except (ValueError, TypeError):
        return None
    return (found, str(pk)) if found.tzinfo else None


class ReadOnlyAdmin(admin.ModelAdmin):
    """Nothing is added, changed or deleted here; `keyset` is the column of time."""

    keyset = "created_at"
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    sortable_by = ()
    actions: Any = None
    change_list_template = "admin/conversations/change_list.html"

    class Media:
        css = {"all": ("conversations/review.css",)}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return KeysetChangeList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Only what `list_filter` names: by any other column, hidden text is guessed by letters."""
        filters = self.get_list_filter(request)
        names = [getattr(chosen, "parameter_name", chosen) for chosen in filters]
        return lookup.split("__")[0] in names and super().lookup_allowed(lookup, value, request)

    def complete(self, rows: list[Any]) -> list[Any]:
        """`rows` with whatever the columns need, loaded for all of them at once."""
        return rows

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def as_id(text: str) -> UUID | None:
    """The id that somebody looks for, if it is one."""
    try:
        return UUID(text.strip())
    except ValueError:
        return None


def with_word(word: object, kind: str, detail: str = "") -> SafeString:
    """A status as a word in its colour, with its detail below."""
    marked = format_html('<span class="status status-{}">{}</span>', kind, word)
    return format_html('{}<br><span class="quiet">{}</span>', marked, detail) if detail else marked
