"""The admin lists of replies, approvals, API keys, the audit log, labels and webhooks."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from conversations.admin.filters import (
    RUN_FILTERS,
    KeysetChangeList,
    ReadOnlyAdmin,
    as_id,
    run_condition,
    with_word,
)
from conversations.models import (
    ApiKey,
    Approval,
    AuditAction,
    AuditEntry,
    Label,
    Run,
    RunStatus,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)
from conversations.people import accounts
from conversations.people.accounts import revoke_keys
from conversations.text import clean_text
from conversations.webhooks import check_url


class RunChangeList(KeysetChangeList):
    """The change list of replies that meet the conditions of all chosen `RUN_FILTERS`."""

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        found = super().get_queryset(request, exclude_parameters)
        condition = run_condition(self.filter_specs)
        return found if condition is None else found.filter(condition)


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    """The list of all replies; a reply links to its place on its session's page."""

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
        """Find runs by `@` and a user's whole name, or by id.

        A blank term finds all, any other nothing.
        """
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
        """Redirect to the reply on its session's page.

        Raises `PermissionDenied` for POST and without the permission to view, `Http404` for an
        unknown run.
        """
        if request.method == "POST" or not self.has_view_permission(request):
            raise PermissionDenied
        run = self.get_object(request, object_id)
        if run is None:
            raise Http404
        session = reverse("admin:conversations_chatsession_change", args=[run.session_id])
        return HttpResponseRedirect(f"{session}?until={run.reply_id}#message-{run.reply_id}")


def _seconds(start: Any, end: Any) -> str:
    return f"{(end - start).total_seconds():.1f}" if start and end else "–"


CONTENT = ("description", "exact_arguments", "message")


@admin.register(Approval)
class ApprovalAdmin(ReadOnlyAdmin):
    """The list of approvals, and the page of one, each view of which the audit log records.

    Only staff who may read transcripts see an approval's description, arguments and message.
    """

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
        """Return the fields of the page, without `CONTENT` for who may not read transcripts."""
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
            accounts.record(
                request.user, AuditAction.VIEWED, approval.run.session_id, approval=True
            )
        return super().change_view(request, object_id, form_url, extra_context)


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    """The list of API keys, where staff with the permission `change_apikey` revoke keys.

    Nothing else can be changed, and hashes are never shown.
    """

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
        # Somebody who finds a leaked key searches for all of it, but only its prefix is stored.
        prefix = "_".join(term.split("_")[:2])
        return queryset.filter(Q(prefix__startswith=prefix)), False

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("conversations.change_apikey")

    @admin.action(description=_("Revoke"), permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        ended = revoke_keys(staff=request.user, keys=queryset)
        messages.success(request, _("Revoked: %d") % ended)


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    """The audit log, newest first, read-only."""

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
            return accounts.entries_about(queryset, session_id), False
        return queryset if not search_term.strip() else queryset.none(), False


@admin.register(Label)
class LabelAdmin(admin.ModelAdmin):
    """The list of labels, to be edited by staff with the permissions on labels."""

    list_display = ("name",)
    search_fields = ("name",)


class WebhookEndpointForm(forms.ModelForm):
    """The form of an endpoint: its address is checked, its events are chosen from the list."""

    url = forms.CharField(label=_("address"), max_length=500, validators=[check_url])
    events = forms.MultipleChoiceField(
        label=_("events"), choices=WebhookEvent.choices, widget=forms.CheckboxSelectMultiple
    )

    class Meta:
        model = WebhookEndpoint
        fields = ("url", "events", "has_text", "is_active")


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(admin.ModelAdmin):
    """The endpoints of webhooks, which staff with the permission may add and change.

    Only those who may read transcripts may have text sent, or change an endpoint that gets text.
    """

    form = WebhookEndpointForm
    list_display = ("url", "events_shown", "has_text", "is_active", "created_at")
    readonly_fields = ("secret", "created_at")
    fields = ("url", "events", "has_text", "is_active", "secret", "created_at")

    @admin.display(description=_("events"))
    def events_shown(self, endpoint: WebhookEndpoint) -> str:
        return ", ".join(endpoint.events)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        is_reader = request.user.has_perm("conversations.read_transcript")
        return (*self.readonly_fields, *(() if is_reader else ("has_text",)))

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields of the page, with the secret only for who may change the endpoint."""
        shown = self.has_change_permission(request, obj)
        return [name for name in super().get_fields(request, obj) if shown or name != "secret"]

    def has_change_permission(
        self, request: HttpRequest, obj: WebhookEndpoint | None = None
    ) -> bool:
        is_reader = request.user.has_perm("conversations.read_transcript")
        may_change = obj is None or not obj.has_text or is_reader
        return may_change and super().has_change_permission(request, obj)


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(ReadOnlyAdmin):
    """The list of webhook deliveries, newest first: done, still to be attempted, or given up."""

    list_display = (
        *("created_at", "event", "endpoint", "run", "attempts", "last_status", "last_error"),
        *("due_at", "delivered_at"),
    )
    list_display_links = None
    list_filter = ("event",)
    list_select_related = ("endpoint", "run")
    search_fields = ("run_id",)
    search_help_text = _("The id of a delivery or of a reply.")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        wanted = as_id(search_term)
        found = queryset.filter(Q(pk=wanted) | Q(run_id=wanted)) if wanted else queryset
        return found, False
