"""Tables of sessions and their messages."""

import uuid
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _


class TitleSource(models.TextChoices):
    """Where a session's title comes from; the first words are used until there is a better one."""

    WORDS = "words", _("first words")
    MODEL = "model", _("model")
    USER = "user", _("user")


class ChatSession(models.Model):
    """One conversation of one user.

    `rev` counts the changes of its messages, its queue, its runs' statuses and its entry in the
    list; streamed text, ratings, shares and reviews do not raise it. Incrementing it also locks the
    session, so it must come first in every transaction that makes such a change. `viewed_until` is
    until when somebody is taken to watch, None: not known. `upkeep_until` is until when a process
    has the making of title and summaries for itself.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="chat_sessions"
    )
    title = models.CharField(_("title"), max_length=200, blank=True)
    title_source = models.CharField(
        max_length=5, choices=TitleSource.choices, default=TitleSource.WORDS
    )
    agent = models.CharField(_("agent"), max_length=100, blank=True)
    rev = models.PositiveBigIntegerField(default=0)
    message_count = models.PositiveIntegerField(default=0)
    run_count = models.PositiveIntegerField(default=0)
    active_leaf = models.ForeignKey(
        "Message", null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    viewed_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    active_at = models.DateTimeField(_("last activity"), auto_now_add=True)
    upkeep_until = models.DateTimeField(null=True, blank=True)
    archived_at = models.DateTimeField(null=True, blank=True)
    is_pinned = models.BooleanField(_("pinned"), default=False, db_default=False)
    deleted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("session")
        verbose_name_plural = _("sessions")
        indexes = [
            models.Index(F("owner"), F("active_at").desc(), F("id").desc(), name="by_owner"),
            models.Index(F("active_at").desc(), F("id").desc(), name="by_activity"),
        ]

    def __str__(self) -> str:
        # Not the title: this text gets into logs, which must not contain what people wrote.
        return str(self.id)

    @property
    def is_archived(self) -> bool:
        return self.archived_at is not None


class Role(models.TextChoices):
    """Who wrote a message."""

    USER = "user", _("user")
    ASSISTANT = "assistant", _("assistant")


class Message(models.Model):
    """What a person wrote, or the reply to it, as people read it.

    `parts` is a list of `{"type": "text", "text"}`, `{"type": "reasoning", "text"}`,
    `{"type": "agent", "name"}` (another agent took over),
    `{"type": "tool", "tool_call_id", "name", "arguments", "status", "output", ...}` and
    `{"type": "approval", "request_id", "tool_call_id", "tool", "arguments", "decision", ...}`.
    An assistant's message is the reply of exactly one run (`message.run`).
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    session = models.ForeignKey(ChatSession, on_delete=models.CASCADE, related_name="messages")
    number = models.PositiveIntegerField()
    role = models.CharField(max_length=10, choices=Role.choices)
    parts = models.JSONField(default=list, blank=True)
    parent = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.CASCADE, related_name="children"
    )
    client_message_id = models.CharField(max_length=100, blank=True)
    # Withdrawn before its run began: it is not on any branch now.
    withdrawn = models.BooleanField(default=False)
    rev = models.PositiveBigIntegerField()
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        constraints = [
            models.UniqueConstraint(fields=["session", "number"], name="message_number"),
        ]
        indexes = [
            models.Index(fields=["session", "rev"], name="message_rev"),
            models.Index(fields=["session", "number"], condition=Q(parent=None), name="beginnings"),
        ]

    def __str__(self) -> str:
        return f"{self.role} {self.number}"

    @property
    def text(self) -> str:
        """The texts of the stored text parts, joined with blank lines; "" without any."""
        return join_text(self.parts)


class ReplyHtml(models.Model):
    """The HTML of a finished reply: one string for each text part of its message.

    Valid only for the texts that `digest` was made of, and for the renderer's version; see
    `conversations.sessions.rendering`. It has its own table because few reads of a message need it.
    """

    message = models.OneToOneField(
        Message, on_delete=models.CASCADE, primary_key=True, related_name="+"
    )
    renderer = models.PositiveIntegerField()
    digest = models.CharField(max_length=32)
    html = models.JSONField()

    def __str__(self) -> str:
        return f"HTML of {self.message_id}"


def join_text(parts: list[dict[str, Any]]) -> str:
    """Return the texts of the text parts among `parts`, joined with blank lines; "" without any."""
    return "\n\n".join(part["text"] for part in parts if part["type"] == "text")


class Verdict(models.TextChoices):
    """A user's rating of a reply."""

    UP = "up", _("good")
    DOWN = "down", _("bad")


class Feedback(models.Model):
    """The rating of one reply by one user, with a comment, which may be ""."""

    message = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="feedback")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="chat_feedback"
    )
    value = models.CharField(_("verdict"), max_length=4, choices=Verdict.choices)
    comment = models.TextField(_("comment"), blank=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    updated_at = models.DateTimeField(_("changed"), auto_now=True)

    class Meta:
        verbose_name = _("feedback")
        verbose_name_plural = _("feedback")
        constraints = [
            models.UniqueConstraint(fields=["message", "user"], name="one_feedback_a_reader")
        ]

    def __str__(self) -> str:
        return f"{self.value} for {self.message_id}"


class Share(models.Model):
    """A link by which anybody reads a session's branch that ends with the message `leaf`.

    It works until `revoked_at` is set, but not while the session is deleted or its owner inactive;
    the row stays. Only the hash of its token is kept, so the link cannot be shown again. Use
    `open_share` to find one, and `read_shared` for what it shows.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    session = models.ForeignKey(ChatSession, on_delete=models.CASCADE, related_name="shares")
    leaf = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="+")
    token_hash = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)

    class Meta:
        verbose_name = _("share")
        verbose_name_plural = _("shares")

    def __str__(self) -> str:
        return f"share {self.id}"


class SearchEntry(models.Model):
    """A text that search can find: that of a message, or the session's title if `message` is None.

    Only the database's triggers write these rows; see `conversations.sessions.search`.
    """

    session = models.ForeignKey(ChatSession, on_delete=models.CASCADE, related_name="+")
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False
    )
    message = models.OneToOneField(
        Message, null=True, blank=True, on_delete=models.CASCADE, related_name="+"
    )
    text = models.TextField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["session"], condition=Q(message=None), name="one_title_a_session"
            )
        ]

    def __str__(self) -> str:
        return f"entry {self.pk}"


class Summary(models.Model):
    """What the model is given in place of a branch from its beginning down to `message`, a reply.

    With an empty `text` the model is given nothing in its place. `model` is the name of the model
    that wrote the text. Branches without `message` are unaffected.
    """

    message = models.OneToOneField(
        Message, on_delete=models.CASCADE, primary_key=True, related_name="summary"
    )
    text = models.TextField(blank=True)
    model = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"summary down to {self.message_id}"
