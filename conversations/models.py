"""What is kept: sessions, messages, runs, their events and the model's items."""

import uuid
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _


class Guest(models.Model):
    """Marks a user row that was made for a visitor who has not signed up."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="guest"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"guest {self.pk}"


class TitleSource(models.TextChoices):
    """Who a session's title is by; the first words are only there until there is a better one."""

    WORDS = "words", _("first words")
    MODEL = "model", _("model")
    USER = "user", _("user")


class ChatSession(models.Model):
    """One conversation of one user.

    `rev` counts every change except streamed text; raising it is also the session's lock, so it
    comes first in every transaction that touches messages, queue or run status.
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
    deleted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("session")
        verbose_name_plural = _("sessions")
        indexes = [
            models.Index(F("owner"), F("active_at").desc(), F("id").desc(), name="by_owner"),
            models.Index(F("active_at").desc(), F("id").desc(), name="by_activity"),
        ]

    def __str__(self) -> str:
        # Not the title, which says what is talked about: rows are named in lists and logs.
        return str(self.id)

    @property
    def is_archived(self) -> bool:
        return self.archived_at is not None


class Role(models.TextChoices):
    """Who a message is by."""

    USER = "user", _("user")
    ASSISTANT = "assistant", _("assistant")


class Message(models.Model):
    """What people see.

    `parts` is a list of `{"type": "text", "text"}`, `{"type": "reasoning", "text"}`,
    `{"type": "agent", "name"}` where another agent took over, and
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
    # Taken back before it was answered: it is on no branch any more.
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
        """The answer text alone: text parts, with a blank line between two."""
        return join_text(self.parts)


class ReplyHtml(models.Model):
    """The HTML of a finished reply: one string for each text part of its message.

    It holds for the texts that `digest` is of, by the renderer of that version; see
    `conversations.reply_html`. In a table of its own, because few reads of a message show it.
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
    """The text parts of a message as the tokens of its run spelled them."""
    return "\n\n".join(part["text"] for part in parts if part["type"] == "text")


class RunStatus(models.TextChoices):
    """Where a run is; `conversations.run_states` holds the moves."""

    QUEUED = "queued", _("queued")
    RUNNING = "running", _("running")
    AWAITING_INPUT = "awaiting_input", _("awaiting input")
    COMPLETED = "completed", _("completed")
    CANCELLED = "cancelled", _("cancelled")
    FAILED = "failed", _("failed")
    INTERRUPTED = "interrupted", _("interrupted")


HOLDING = (RunStatus.RUNNING, RunStatus.AWAITING_INPUT)
"""Nothing else of the session is worked on meanwhile."""

ACTIVE = (RunStatus.QUEUED, *HOLDING)


class EndReason(models.TextChoices):
    """Why a run did not complete."""

    USER = "user", _("stopped by the user")
    REDIRECT = "redirect", _("stopped by a newer message")
    DISCONNECT = "disconnect", _("nobody was watching")
    LIMIT = "limit", _("a limit was reached")
    WORKER_LOST = "worker_lost", _("the server stopped")
    APPROVAL_EXPIRED = "approval_expired", _("nobody answered in time")


class UsageSource(models.TextChoices):
    """How the token counts came to be."""

    MEASURED = "measured", _("measured")
    ESTIMATED = "estimated", _("estimated")
    UNKNOWN = "unknown", _("unknown")


class Outcome(models.TextChoices):
    """What an accepted chat met with."""

    STARTED = "started"
    QUEUED = "queued"
    INTERRUPTING = "interrupting"


class Run(models.Model):
    """One reply, from the accepted chat to its one terminal status.

    `claim` fences workers and is never on the wire; `epoch` is the generation of what is shown.
    The columns that change at every commit of text are in no index (HOT updates on Postgres).
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    session = models.ForeignKey(ChatSession, on_delete=models.CASCADE, related_name="runs")
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="chat_runs"
    )
    number = models.PositiveIntegerField()
    status = models.CharField(
        _("status"), max_length=20, choices=RunStatus.choices, default=RunStatus.QUEUED
    )
    agent = models.CharField(_("agent"), max_length=100, blank=True)
    model = models.CharField(_("model"), max_length=200, blank=True)
    prompt = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="runs")
    reply = models.OneToOneField(Message, on_delete=models.CASCADE, related_name="run")
    # None, not "": only what has an id must be unique.
    client_message_id = models.CharField(max_length=100, null=True, blank=True)  # noqa: DJ001
    content_hash = models.CharField(max_length=64, blank=True)
    outcome = models.CharField(max_length=12, choices=Outcome.choices, default=Outcome.STARTED)

    claim = models.PositiveIntegerField(default=0)
    epoch = models.PositiveIntegerField(default=0)
    last_seq = models.PositiveIntegerField(default=0)
    worker = models.CharField(max_length=100, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)

    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    reason = models.CharField(max_length=20, choices=EndReason.choices, blank=True)
    error_code = models.CharField(_("error"), max_length=40, blank=True)

    input_tokens = models.PositiveIntegerField(null=True, blank=True)
    output_tokens = models.PositiveIntegerField(null=True, blank=True)
    cached_input_tokens = models.PositiveIntegerField(null=True, blank=True)
    reasoning_tokens = models.PositiveIntegerField(null=True, blank=True)
    usage_source = models.CharField(
        max_length=10, choices=UsageSource.choices, default=UsageSource.UNKNOWN
    )
    # Tokens of the first input: see `conversations.turns.Gauge`. `context_model` is the model that
    # was given it, where `model`, which answered at last, is another. The database has the default
    # too: processes of the version before go on adding runs after the migration.
    context_model = models.CharField(max_length=200, blank=True, default="", db_default="")
    context_estimate = models.PositiveIntegerField(null=True, blank=True)
    context_measured = models.PositiveIntegerField(null=True, blank=True)
    context_refused = models.PositiveIntegerField(null=True, blank=True)

    # In the currency of the settings; null where a count or a price is not known.
    cost = models.DecimalField(_("cost"), max_digits=14, decimal_places=6, null=True, blank=True)
    # How many of its tokens, since it was begun anew, `UserUsage` and `SiteUsage` have.
    counted_tokens = models.PositiveBigIntegerField(default=0, db_default=0)

    created_at = models.DateTimeField(_("queued"), auto_now_add=True)
    queued_at = models.DateTimeField(auto_now_add=True)
    claimed_at = models.DateTimeField(null=True, blank=True)
    first_token_at = models.DateTimeField(null=True, blank=True)
    last_token_at = models.DateTimeField(null=True, blank=True)
    stopped_at = models.DateTimeField(null=True, blank=True)
    retries = models.PositiveSmallIntegerField(default=0)
    ended_at = models.DateTimeField(null=True, blank=True)
    folded = models.BooleanField(default=False)
    # When the text came, once its events are folded: see `conversations.sketch`.
    sketch = models.JSONField(null=True, blank=True)

    class Meta:
        verbose_name = _("run")
        verbose_name_plural = _("runs")
        constraints = [
            models.UniqueConstraint(fields=["session", "number"], name="run_number"),
            models.UniqueConstraint(
                fields=["session"],
                condition=Q(status__in=HOLDING),
                name="one_holding_run_a_session",
            ),
            models.UniqueConstraint(
                fields=["owner", "client_message_id"], name="one_run_a_client_message"
            ),
        ]
        indexes = [
            models.Index(fields=["owner", "created_at"], name="runs_by_owner"),
            # Not a partial one: SQLite uses those only where the statuses are in the SQL itself.
            models.Index(fields=["status", "session"], name="runs_by_status"),
            models.Index(fields=["ended_at"], condition=Q(folded=False), name="unfolded_runs"),
            # For `conversations.limits`, whose SQL repeats this condition word for word.
            models.Index(
                fields=["owner", "session", "status"],
                condition=Q(status__in=(RunStatus.QUEUED, RunStatus.RUNNING)),
                name="runs_at_work",
            ),
            # All that staff filter by: few rows are found, without a look at the others.
            models.Index(
                *(F("created_at").desc(), F("id").desc(), "status", "error_code", "agent"),
                *("model", "input_tokens", "output_tokens", "cost", "first_token_at", "session"),
                name="runs_by_time",
            ),
        ]

    def __str__(self) -> str:
        return f"run {self.number} ({self.status})"

    @property
    def is_ended(self) -> bool:
        return self.status not in ACTIVE


class Verdict(models.TextChoices):
    """What a reader thinks of a reply."""

    UP = "up", _("good")
    DOWN = "down", _("bad")


class Feedback(models.Model):
    """One reader's verdict on one reply."""

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
    """A link under which anybody reads a session, up to the message it was made at."""

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


class Scope(models.TextChoices):
    """What an API key is good for."""

    READ = "read", _("read")
    WRITE = "write", _("write")
    EXPORT = "export", _("export")
    APPROVE = "approve", _("approve tool calls")
    SHARE = "share", _("share")


class ApiKey(models.Model):
    """Lets a program in as a user; the key itself is only shown when it is made."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_keys"
    )
    name = models.CharField(_("name"), max_length=100)
    prefix = models.CharField(_("begins with"), max_length=16, unique=True)
    key_hash = models.CharField(max_length=64)
    scopes = models.JSONField(_("scopes"), default=list)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    last_used_at = models.DateTimeField(_("last used"), null=True, blank=True)
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix})"


class SocketTicket(models.Model):
    """Lets a client open one socket, for a few seconds; only a hash of the ticket is kept.

    The rest is the sign-in by which it was asked for, which the socket has then.
    """

    token_hash = models.CharField(max_length=64, primary_key=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="socket_tickets"
    )
    audience = models.CharField(max_length=40)
    auth_hash = models.CharField(max_length=128)
    session_key = models.CharField(max_length=40, blank=True)
    api_key = models.ForeignKey(ApiKey, null=True, on_delete=models.CASCADE, related_name="+")
    sign_in_until = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"ticket of {self.user_id}"


class Attempts(models.Model):
    """How often something was tried from one place since its period began; `key` is a hash."""

    key = models.CharField(max_length=64, primary_key=True)
    count = models.PositiveIntegerField(default=0)
    until = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"{self.count} until {self.until:%H:%M:%S}"


class RunEvent(models.Model):
    """One frame of a run's journal: one row = one frame = one seq."""

    pk = models.CompositePrimaryKey("run_id", "epoch", "seq")
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="events", db_index=False)
    epoch = models.PositiveIntegerField()
    seq = models.PositiveIntegerField()
    kind = models.CharField(max_length=20)
    payload = models.JSONField(default=dict)
    created_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.kind} {self.epoch}.{self.seq}"


class Item(models.Model):
    """What the model sees of one run's reply: an ordered SDK input item, as JSON."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="items", db_index=False)
    position = models.PositiveIntegerField()
    payload = models.JSONField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "position"], name="item_position")]

    def __str__(self) -> str:
        return f"item {self.position}"


class Decision(models.TextChoices):
    """What became of a request; the last two are nobody's decision."""

    APPROVE = "approve", _("approved")
    REJECT = "reject", _("rejected")
    EXPIRED = "expired", _("expired")
    CANCELLED = "cancelled", _("cancelled")


class Approval(models.Model):
    """A tool call that a run may make only when its user says so; `id` is the request's.

    `args_hash` binds the decision to the tool and to its exact arguments; `seq` is that of the
    event that asked.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="approvals")
    seq = models.PositiveIntegerField()
    tool_call_id = models.TextField()
    tool = models.CharField(_("tool"), max_length=200)
    description = models.TextField(blank=True)
    arguments = models.TextField(_("arguments"), blank=True)
    args_hash = models.CharField(max_length=64)
    decision = models.CharField(
        _("decision"), max_length=10, choices=Decision.choices, blank=True, default=""
    )
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    decided_at = models.DateTimeField(_("decided"), null=True, blank=True)
    message = models.TextField(blank=True)
    expires_at = models.DateTimeField(_("expires"))
    created_at = models.DateTimeField(_("asked"), auto_now_add=True)

    class Meta:
        verbose_name = _("approval")
        verbose_name_plural = _("approvals")
        constraints = [models.UniqueConstraint(fields=["run", "seq"], name="approval_seq")]
        indexes = [
            models.Index(fields=["expires_at"], condition=Q(decision=""), name="open_approvals")
        ]

    def __str__(self) -> str:
        return f"{self.tool} ({self.decision or 'open'})"


class RunState(models.Model):
    """What the SDK goes on from when a run's requests are answered; gone when the run has ended.

    `payload` is JSON as text, which also holds what a database's JSON does not. `seq` is the first
    request's; `attempts` counts how often a worker has gone on from here.
    """

    run = models.OneToOneField(
        Run, on_delete=models.CASCADE, primary_key=True, related_name="state"
    )
    seq = models.PositiveIntegerField()
    payload = models.TextField()
    attempts = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"state at {self.seq}"


class SearchEntry(models.Model):
    """What can be searched for: the text of a message, or a session's title without a message.

    Nothing but the database's own triggers writes these; see `conversations.search_index`.
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


class SideCall(models.Model):
    """A call of the model that is no part of a reply; its usage counts like a reply's."""

    class Purpose(models.TextChoices):
        """What it was for."""

        TITLE = "title", _("title")
        SUMMARY = "summary", _("summary")

    session = models.ForeignKey(ChatSession, on_delete=models.CASCADE, related_name="side_calls")
    purpose = models.CharField(max_length=7, choices=Purpose.choices)
    model = models.CharField(max_length=200)
    input_tokens = models.PositiveIntegerField(null=True, blank=True)
    output_tokens = models.PositiveIntegerField(null=True, blank=True)
    cached_input_tokens = models.PositiveIntegerField(null=True, blank=True)
    reasoning_tokens = models.PositiveIntegerField(null=True, blank=True)
    usage_source = models.CharField(
        max_length=10, choices=UsageSource.choices, default=UsageSource.UNKNOWN
    )
    cost = models.DecimalField(max_digits=14, decimal_places=6, null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.purpose} by {self.model}"


class SessionUsage(models.Model):
    """Running totals of a session's ended runs and side calls; a session without any has no row.

    Only `conversations.usage` writes it, in the transaction that ends the run or adds the call.
    `priced` and `unpriced` count calls whose cost is and is not known; `cost_micros` is the sum of
    the known ones in millionths, because SQLite adds decimals as floating-point numbers.
    """

    session = models.OneToOneField(
        ChatSession, on_delete=models.CASCADE, primary_key=True, related_name="+"
    )
    runs = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cached_input_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    estimated = models.BigIntegerField(default=0)
    unknown = models.BigIntegerField(default=0)
    priced = models.BigIntegerField(default=0)
    unpriced = models.BigIntegerField(default=0)
    cost_micros = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"usage of {self.session_id}"


class UserUsage(models.Model):
    """Tokens of a user's runs that were counted in one slot of time, for the limit of a day.

    `slot` is the Unix time in units of `conversations.usage.SLOT`; `purge` deletes old ones.
    """

    pk = models.CompositePrimaryKey("user_id", "slot")
    # Without a constraint: a process of the version before, which does not know of these rows,
    # deletes a guest who signs in. Rows of nobody go with the old ones.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="+",
        db_index=False,
        db_constraint=False,
    )
    slot = models.BigIntegerField()
    tokens = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.tokens} in {self.slot}"


class SiteUsage(models.Model):
    """The same of all users together, for the site's own limit of a day."""

    slot = models.BigIntegerField(primary_key=True)
    tokens = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.tokens} in {self.slot}"


class Summary(models.Model):
    """What a model is given in place of a conversation's beginning, down to `message`, a reply.

    Without a text it is given nothing in its place. Other branches do not have it.
    """

    message = models.OneToOneField(
        Message, on_delete=models.CASCADE, primary_key=True, related_name="summary"
    )
    text = models.TextField(blank=True)
    model = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"summary down to {self.message_id}"


# Django finds an app's models here.
from conversations.review_models import AuditEntry, Label, Review  # noqa: E402, F401
