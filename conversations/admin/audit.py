"""The audit log, to read."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from conversations import audit
from conversations.admin.readonly import ReadOnlyAdmin, as_id
from conversations.review_models import AuditEntry


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    """Newest first; nobody can change it here."""

    keyset = "at"
    list_display = ("at", "actor", "action", "session_shown", "detail_shown")
    list_display_links = None
    list_filter = ("action",)
    list_select_related = ("actor",)
    search_fields = ("session_id",)
    search_help_text = _("The id of a session")

    @admin.display(description=_("session"))
    def session_shown(self, entry: AuditEntry) -> Any:
        return entry.session_id or "–"

    @admin.display(description=_("detail"))
    def detail_shown(self, entry: AuditEntry) -> str:
        pairs = ", ".join(f"{name}: {value}" for name, value in entry.detail.items())
        return pairs or "–"

    def get_search_results(
        self, request: HttpRequest, queryset: Any, search_term: str
    ) -> tuple[Any, bool]:
        if (session_id := as_id(search_term)) is not None:
            return audit.entries_about(queryset, session_id), False
        return queryset if not search_term.strip() else queryset.none(), False
