"""Replies: how each went and what it cost; what was said is on the session's page."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from conversations.admin.filters import RUN_FILTERS, run_condition
from conversations.admin.readonly import KeysetChangeList, ReadOnlyAdmin, as_id, with_word
from conversations.models import Run, RunStatus
from conversations.text import clean_text


class RunChangeList(KeysetChangeList):
    """The same filters as the sessions'."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        found = super().get_queryset(request, exclude_parameters)
        condition = run_condition(self.filter_specs)
        return found if condition is None else found.filter(condition)


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    """Every reply."""

    list_display = (
        *("id", "session", "owner", "created_at", "status_shown", "agent", "model"),
        *("input_tokens", "output_tokens", "cost", "wait_shown", "duration_shown"),
    )
    list_filter = RUN_FILTERS
    list_select_related = ("session", "owner")
    search_fields = ("id",)
    search_help_text = _("An id, or @ and a user's name.")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return RunChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if search_term.startswith("@"):
            name = {get_user_model().USERNAME_FIELD: clean_text(search_term[1:].strip())}
            users = get_user_model()._default_manager.filter(**name)
            return queryset.filter(owner__in=list(users)), False
        if not search_term.strip():
            return queryset, False
        return queryset.filter(pk=as_id(search_term)), False

    @admin.display(description=_("status"))
    def status_shown(self, run: Run) -> Any:
        word = str(RunStatus(run.status).label)
        return with_word(word, run.status, run.error_code)

    @admin.display(description=_("first token after, s"))
    def wait_shown(self, run: Run) -> str:
        return _seconds(run.created_at, run.first_token_at)

    @admin.display(description=_("took, s"))
    def duration_shown(self, run: Run) -> str:
        return _seconds(run.claimed_at, run.ended_at)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The reply's place on its session's page."""
        if request.method == "POST" or not self.has_view_permission(request):
            raise PermissionDenied
        run = self.get_object(request, object_id)
        if run is None:
            raise Http404
        session = reverse("admin:conversations_chatsession_change", args=[run.session_id])
        return HttpResponseRedirect(f"{session}?until={run.reply_id}#message-{run.reply_id}")


def _seconds(start: Any, end: Any) -> str:
    return f"{(end - start).total_seconds():.1f}" if start and end else "–"
