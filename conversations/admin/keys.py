"""API keys of all people: what staff see of them, and how they end them."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from conversations.admin.readonly import ReadOnlyAdmin
from conversations.api_keys import revoke_keys
from conversations.models import ApiKey
from conversations.text import clean_text


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    """Their hashes are shown to nobody."""

    list_display = (
        *("prefix", "owner", "name", "scopes_shown", "created_at", "last_used_at"),
        *("expires_at", "revoked_at"),
    )
    list_display_links = None
    list_select_related = ("owner",)
    search_fields = ("prefix",)
    search_help_text = _("The beginning of a key, or @ and a user's name.")
    fields = ("prefix", "owner", "name", "scopes", "created_at", "last_used_at", "expires_at")
    actions = ("revoke",)

    @admin.display(description=_("scopes"))
    def scopes_shown(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = clean_text(search_term.strip())
        if term.startswith("@"):
            name = ApiKey.owner.field.related_model.USERNAME_FIELD  # type: ignore[attr-defined]
            return queryset.filter(**{f"owner__{name}": term[1:].strip()}), False
        # Whoever finds a whole key somewhere looks for it as it is.
        prefix = "_".join(term.split("_")[:2])
        return queryset.filter(Q(prefix__startswith=prefix)), False

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("conversations.change_apikey")

    @admin.action(description=_("Revoke"), permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        ended = revoke_keys(staff=request.user, keys=queryset)
        messages.success(request, _("Revoked: %d") % ended)
