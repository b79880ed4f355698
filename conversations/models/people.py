"""Tables about people, what is done with their data, and whom webhooks tell of it."""

import base64
import secrets
import uuid

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from conversations.models.sessions import ChatSession


class Guest(models.Model):
    """Marks a user row that was created for a visitor who has not signed in."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="guest"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"guest {self.pk}"


class Theme(models.TextChoices):
    """The colours of the pages; `SYSTEM` are those that each device prefers."""

    SYSTEM = "system", _("As the device")
    LIGHT = "light", _("Light")
    DARK = "dark", _("Dark")


class EnterKey(models.TextChoices):
    """What the Enter key does while a message is typed."""

    SEND = "send", _("Sends the message")
    NEW_LINE = "newline", _("Makes a new line")


INSTRUCTIONS_LENGTH = 4_000
"""Characters of a user's own instructions: about a thousand tokens of each model call."""


class Preferences(models.Model):
    """A user's own settings; a user without a row has the defaults.

    "" leaves the choice to the browser (`language`), to each device (`theme`, `enter`) or to the
    site (`agent`). `instructions` are given to the model with those of the agent, in this user's
    runs alone. With `keeps_going`, replies go on that nobody watches. With `push_text`,
    notifications contain the beginning of the reply.
    """

    # No constraint: processes of the previous version do not know this table, and delete guests.
    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        primary_key=True,
        related_name="+",
        db_constraint=False,
    )
    language = models.CharField(_("Language"), max_length=10, blank=True)
    theme = models.CharField(_("Colours"), max_length=10, blank=True, choices=Theme.choices)
    enter = models.CharField(_("Enter key"), max_length=10, blank=True, choices=EnterKey.choices)
    instructions = models.TextField(
        _("Instructions for the agent"), blank=True, max_length=INSTRUCTIONS_LENGTH
    )
    agent = models.CharField(_("Agent of new conversations"), max_length=100, blank=True)
    keeps_going = models.BooleanField(_("Replies go on while nobody watches"), default=False)
    push_text = models.BooleanField(
        _("Notifications show the beginning of the reply"), default=False
    )

    def __str__(self) -> str:
        return f"preferences of {self.pk}"


class Scope(models.TextChoices):
    """What an API key may be used for."""

    READ = "read", _("read")
    WRITE = "write", _("write")
    EXPORT = "export", _("export")
    APPROVE = "approve", _("approve tool calls")
    SHARE = "share", _("share")


class ApiKey(models.Model):
    """A key by which a program signs in as its `owner`; only a hash of its text is stored.

    `prefix` is how the text begins, `scopes` are values of `Scope`. A key without `expires_at` does
    not expire. A revoked key stays as a row.
    """

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
    """Lets a client open one socket until `expires_at`; only a hash of the ticket is stored.

    `auth_hash`, `session_key`, `api_key` and `sign_in_until` describe the sign-in for which it was
    issued; the socket is closed when that ends. `audience` is the ticket's purpose.
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


class SignOuts(models.Model):
    """How often a user has signed out; no row: never. Refresh tokens from before are refused."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="+"
    )
    count = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.count} of {self.pk}"


class Attempts(models.Model):
    """The number of attempts in a period that ends at `until`.

    `key` is a hash of what the attempts are at, such as a sign-in from one address.
    """

    key = models.CharField(max_length=64, primary_key=True)
    count = models.PositiveIntegerField(default=0)
    until = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"{self.count} until {self.until:%H:%M:%S}"


class SessionUsage(models.Model):
    """Running totals of a session's ended runs and side calls; a session without any has no row.

    Only `conversations.runs.usage` writes it, in the transaction that ends the run or adds the
    call, and after an import. `runs` counts the runs alone. `estimated` and `unknown` count the
    runs and calls whose tokens are estimated or unknown, `priced` and `unpriced` those whose cost
    is and is not known. `cost_micros` is the sum of the known costs in millionths, because SQLite
    adds decimals as floating-point numbers.
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
    """Input and output tokens that a user's runs used in one slot of time, for the daily limit.

    `slot` is the Unix time in units of `conversations.runs.usage.SLOT`; `purge` deletes old rows.
    """

    pk = models.CompositePrimaryKey("user_id", "slot")
    # No constraint: processes of the previous version do not know this table, and delete guests
    # who sign in. Rows whose user is gone are purged like all old rows.
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
    """Tokens that the runs of all users used in one slot, for the site's daily limit.

    `slot` is as in `UserUsage`.
    """

    slot = models.BigIntegerField(primary_key=True)
    tokens = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.tokens} in {self.slot}"


class Label(models.Model):
    """A word by which staff group sessions."""

    name = models.CharField(_("name"), max_length=50, unique=True)

    class Meta:
        verbose_name = _("label")
        verbose_name_plural = _("labels")
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Review(models.Model):
    """The review of one session by staff; a session has none until staff first save or assign one.

    It is done while `reviewed_at` is set and no earlier than the session's `active_at`: activity
    after it makes the session due for review again. See `is_up_to_date`.
    """

    session = models.OneToOneField(
        "conversations.ChatSession",
        on_delete=models.CASCADE,
        primary_key=True,
        related_name="review",
    )
    assignee = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="assigned_reviews",
        verbose_name=_("assigned to"),
    )
    labels = models.ManyToManyField(Label, blank=True, related_name="reviews")
    note = models.TextField(_("note"), blank=True)
    reviewed_at = models.DateTimeField(_("reviewed"), null=True, blank=True)
    reviewed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    changed_at = models.DateTimeField(_("changed"), auto_now=True)

    class Meta:
        verbose_name = _("review")
        verbose_name_plural = _("reviews")
        permissions = [
            ("read_transcript", _("Can read what was said in anybody's session")),
            ("export_transcript", _("Can export anybody's session")),
            ("see_figures", _("Can see the figures of all sessions")),
        ]

    def __str__(self) -> str:
        return f"review of {self.session_id}"


class AuditAction(models.TextChoices):
    """What was done with somebody's data, by staff or by a command."""

    VIEWED = "viewed", _("viewed a session")
    REPLAYED = "replayed", _("replayed a reply")
    REVIEWED = "reviewed", _("reviewed a session")
    ASSIGNED = "assigned", _("assigned sessions")
    SEARCHED = "searched", _("searched in all sessions")
    LISTED = "listed", _("saw titles of sessions")
    EXPORTED = "exported", _("exported a session")
    IMPORTED = "imported", _("imported a session")
    REVOKED = "revoked", _("revoked an API key")
    ERASED = "erased", _("erased a user")
    PURGED = "purged", _("deleted old sessions")


class AuditEntry(models.Model):
    """One entry of the audit log, which is kept when the people in it are erased.

    `actor` is who did it; None for a command or the site itself, and once that account is deleted.
    Nothing else of an entry ever changes. `session_id` is no foreign key, because the entry
    outlives the session; None: the entry is about no one session. `detail` holds no text of the
    conversation.
    """

    at = models.DateTimeField(_("when"), auto_now_add=True)
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.SET_NULL,
        related_name="+",
        verbose_name=_("who"),
    )
    action = models.CharField(_("action"), max_length=20, choices=AuditAction.choices)
    session_id = models.UUIDField(_("session"), null=True, db_index=True)
    detail = models.JSONField(_("detail"), default=dict, blank=True)

    class Meta:
        verbose_name = _("audit entry")
        verbose_name_plural = _("audit log")
        indexes = [models.Index(fields=["-at", "-id"], name="audit_by_time")]

    def __str__(self) -> str:
        return f"{self.action} {self.at:%Y-%m-%d %H:%M}"


class WebhookEvent(models.TextChoices):
    """What an endpoint may be told of."""

    RUN_ENDED = "run.ended", _("a reply has ended")
    APPROVAL_REQUESTED = "approval.requested", _("a reply awaits an approval")
    FEEDBACK_GIVEN = "feedback.given", _("a reply was rated")


def make_webhook_secret() -> str:
    """Return a new secret as Standard Webhooks has it: `whsec_` and 32 random bytes in Base64."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


class WebhookEndpoint(models.Model):
    """An address that is told of the `events` in its list, in messages signed with `secret`.

    `events` are values of `WebhookEvent`. Messages contain ids, the agent's name and what happened:
    how a run ended, the tool of an approval, or a rating. `has_text` adds the text of the reply.
    """

    url = models.URLField(_("address"), max_length=500)
    events = models.JSONField(_("events"), default=list)
    has_text = models.BooleanField(_("with the text of the reply"), default=False)
    is_active = models.BooleanField(_("active"), default=True)
    secret = models.CharField(
        _("secret"), max_length=100, default=make_webhook_secret, editable=False
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("webhook endpoint")
        verbose_name_plural = _("webhook endpoints")

    def __str__(self) -> str:
        return self.url


class PushSubscription(models.Model):
    """A browser in which a user wants notifications, as its push service has given it out.

    `endpoint` is an address of that service, by which messages reach the browser; `p256dh` and
    `auth` are the browser's keys, by which they are encrypted. `language` is that of the texts.
    `auth_hash` and `session_key` describe the sign-in that made it, with which it ends; the key is
    "" for that of a token, and for a browser that was a guest's.
    """

    endpoint = models.URLField(max_length=500, unique=True)
    # No constraint: processes of the previous version do not know this table, and delete guests.
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_constraint=False
    )
    p256dh = models.CharField(max_length=100)
    auth = models.CharField(max_length=30)
    auth_hash = models.CharField(max_length=128)
    session_key = models.CharField(max_length=40, blank=True)
    language = models.CharField(max_length=10, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"push subscription {self.pk}"


class PushDelivery(models.Model):
    """A notification that is to be sent; the row is deleted once it is sent or given up.

    `event` is `WebhookEvent.RUN_ENDED` or `APPROVAL_REQUESTED`. `due_at` is when the next attempt
    is due, `attempts` counts those begun. A row whose subscription or run was deleted as it was
    written is never sent, and is purged by its age.
    """

    # No constraints: a constraint is checked as the last transaction of a run commits, and would
    # undo it for a subscription that was deleted meanwhile.
    subscription = models.ForeignKey(
        PushSubscription, on_delete=models.CASCADE, related_name="+", db_constraint=False
    )
    run = models.ForeignKey(
        "conversations.Run", on_delete=models.CASCADE, related_name="+", db_constraint=False
    )
    event = models.CharField(max_length=20, choices=WebhookEvent.choices)
    attempts = models.PositiveSmallIntegerField(default=0)
    due_at = models.DateTimeField(default=timezone.now, db_index=True)

    def __str__(self) -> str:
        return f"{self.event} {self.pk}"


class WebhookDelivery(models.Model):
    """One event for one endpoint; `id` is its `webhook-id`, the same for each attempt.

    `due_at` is when the next attempt is due; None after success, and after the last attempt.
    `attempts` counts those begun. `last_status` is the HTTP status of the last answer, None if the
    last attempt got none, and `last_error` then the name of the error.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # No constraint, as in `PushDelivery`.
    endpoint = models.ForeignKey(
        WebhookEndpoint, on_delete=models.CASCADE, related_name="deliveries", db_constraint=False
    )
    run = models.ForeignKey("conversations.Run", on_delete=models.CASCADE, related_name="+")
    event = models.CharField(_("event"), max_length=20, choices=WebhookEvent.choices)
    data = models.JSONField(_("ids"), default=dict)
    created_at = models.DateTimeField(_("when"), auto_now_add=True, db_index=True)
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    due_at = models.DateTimeField(_("next attempt"), null=True, default=timezone.now)
    delivered_at = models.DateTimeField(_("delivered"), null=True)
    last_status = models.PositiveSmallIntegerField(_("last status"), null=True)
    last_error = models.CharField(_("last error"), max_length=60, blank=True)

    class Meta:
        verbose_name = _("webhook delivery")
        verbose_name_plural = _("webhook deliveries")
        indexes = [
            models.Index(
                fields=["due_at"], condition=models.Q(due_at__isnull=False), name="due_webhooks"
            )
        ]

    def __str__(self) -> str:
        return f"{self.event} {self.id}"
