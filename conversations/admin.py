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

from conversations.models import ChatSession, Message, Run
from conversations.queries import get_history

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
        *("created_at", "active_at", "archived_at", "deleted_at", "transcript"),
    )

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
        *("input_tokens", "output_tokens", "created_at", "ended_at"),
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
        *("usage_source", "created_at", "claimed_at", "first_token_at", "ended_at"),
    )
