"""Tool calls that needed approval: what was asked, and who decided."""

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from conversations import audit
from conversations.admin.readonly import ReadOnlyAdmin, as_id
from conversations.models import Approval
from conversations.review_models import AuditAction

CONTENT = ("description", "exact_arguments", "message")


@admin.register(Approval)
class ApprovalAdmin(ReadOnlyAdmin):
    """What was asked for is shown to those who may read transcripts."""

    list_display = ("tool", "run", "decision", "decided_by", "decided_at", "created_at")
    list_filter = ("decision", "tool", "created_at")
    list_select_related = ("run", "decided_by")
    search_fields = ("tool",)
    search_help_text = _("A tool, or the id of a request or of a reply.")
    fields = (
        *("id", "run", "tool", "description", "exact_arguments", "decision", "decided_by"),
        *("decided_at", "message", "expires_at", "created_at"),
    )

    @admin.display(description=_("arguments"))
    def exact_arguments(self, approval: Approval) -> SafeString:
        return format_html("<pre>{}</pre>", approval.arguments)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if (wanted := as_id(search_term)) is not None:
            return queryset.filter(Q(pk=wanted) | Q(run_id=wanted)), False
        return super().get_search_results(request, queryset, search_term)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_fields(request, obj)
        if request.user.has_perm("conversations.read_transcript"):
            return fields
        return [name for name in fields if name not in CONTENT]

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        approval = self.get_object(request, object_id)
        if approval is not None and self.has_view_permission(request):
            audit.record(request.user, AuditAction.VIEWED, approval.run.session_id, approval=True)
        return super().change_view(request, object_id, form_url, extra_context)
