"""Sessions, messages and runs to read; nothing here changes a transcript."""

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db.models import Model
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext_lazy as _

from conversations.models import Approval, ChatSession, Message, Run
from conversations.queries import get_history, session_usage, user_usage
from conversations.usage import UsageTotals

OWNER = f"owner__{get_user_model().USERNAME_FIELD}"
EXCERPT_LENGTH = 100


class ReadOnlyAdmin(admin.ModelAdmin):
    """Rows are looked at, page by page, with what they name loaded along."""

    show_full_result_count = False
    list_per_page = 50
    actions = None

    class Media:
        css = {"all": ("admin_transcript.css",)}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(ChatSession)
class ChatSessionAdmin(ReadOnlyAdmin):
    """A conversation with its latest messages."""

    list_display = ("__str__", "owner", "agent", "message_count", "active_at", "created_at")
    list_filter = ("agent", "active_at", "deleted_at")
    list_select_related = ("owner",)
    search_fields = ("title", OWNER, "id")
    date_hierarchy = "active_at"
    ordering = ("-active_at", "-id")
    fields = (
        *("id", "title", "owner", "agent", "rev", "message_count", "run_count"),
        *("created_at", "active_at", "archived_at", "deleted_at"),
        *("usage", "owner_usage", "transcript"),
    )

    @admin.display(description=_("usage"))
    def usage(self, session: ChatSession) -> str:
        return describe_usage(session_usage(session))

    @admin.display(description=_("usage of the owner"))
    def owner_usage(self, session: ChatSession) -> str:
        return describe_usage(user_usage(session.owner))

    @admin.display(description=_("latest messages"))
    def transcript(self, session: ChatSession) -> SafeString:
        return render_to_string(
            "admin/conversations/transcript.html", {"messages": get_history(session).messages}
        )


@admin.register(Message)
class MessageAdmin(ReadOnlyAdmin):
    """One message; its text is shown as it is."""

    list_display = ("session", "number", "role", "excerpt", "created_at")
    list_filter = ("role", "created_at")
    list_select_related = ("session",)
    search_fields = ("session__title", f"session__{OWNER}", "id")
    ordering = ("-created_at", "-id")
    fields = ("id", "session", "number", "role", "parent", "rev", "created_at", "whole_text")

    @admin.display(description=_("text"))
    def excerpt(self, message: Message) -> str:
        return Truncator(message.text).chars(EXCERPT_LENGTH)

    @admin.display(description=_("text"))
    def whole_text(self, message: Message) -> SafeString:
        return format_html("<pre>{}</pre>", message.text)


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    """One reply: how it went and what it cost."""

    list_display = (
        *("session", "number", "owner", "status", "reason", "error_code", "agent", "model"),
        *("input_tokens", "output_tokens", "cost", "created_at", "ended_at"),
    )
    list_filter = ("status", "reason", "agent", "model", "created_at")
    list_select_related = ("session", "owner")
    search_fields = ("session__title", OWNER, "id", "error_code")
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-id")
    fields = (
        *("id", "session", "owner", "number", "status", "reason", "error_code"),
        *("agent", "model", "prompt", "reply", "client_message_id"),
        *("claim", "epoch", "last_seq", "worker", "lease_until", "cancel_requested_at"),
        *("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens"),
        *("usage_source", "cost", "retries", "created_at", "queued_at", "claimed_at"),
        *("first_token_at", "last_token_at", "stopped_at", "ended_at"),
    )


def describe_usage(totals: UsageTotals) -> str:
    """A line; what is missing from its sums is told as well."""
    known = totals.cost is not None
    cost = f"{totals.cost:f} {totals.currency}" if known else str(_("cost unknown"))
    line = _(
        "%(runs)s replies: %(input)s tokens in, %(output)s out, %(cost)s "
        "(%(estimated)s estimated, %(unknown)s unknown, %(unpriced)s without a price)"
    )
    counts = {"runs": totals.runs, "input": totals.input_tokens, "output": totals.output_tokens}
    return str(line) % {
        **counts,
        "cost": cost,
        "estimated": totals.estimated,
        "unknown": totals.unknown,
        "unpriced": totals.unpriced,
    }


@admin.register(Approval)
class ApprovalAdmin(ReadOnlyAdmin):
    """A tool call that needed approval: what was asked, and who decided."""

    list_display = ("tool", "run", "decision", "decided_by", "decided_at", "created_at")
    list_filter = ("decision", "tool", "created_at")
    list_select_related = ("run", "decided_by")
    search_fields = ("tool", "id", "run__id")
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-id")
    fields = (
        *("id", "run", "tool", "description", "exact_arguments", "decision", "decided_by"),
        *("decided_at", "message", "expires_at", "created_at"),
    )

    @admin.display(description=_("arguments"))
    def exact_arguments(self, approval: Approval) -> SafeString:
        return format_html("<pre>{}</pre>", approval.arguments)
