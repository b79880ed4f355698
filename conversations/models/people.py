"""Tables of people: guests, API keys, tickets, attempts, usage, and what staff keep."""

import uuid

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from conversations.models.sessions import ChatSession


class Guest(models.Model):
    """Marks a user row that was made for a visitor who has not signed up."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="guest"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"guest {self.pk}"


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


class SessionUsage(models.Model):
    """Running totals of a session's ended runs and side calls; a session without any has no row.

    Only `conversations.runs.usage` writes it, in the transaction that ends the run or adds the
    call. `priced` and `unpriced` count calls whose cost is and is not known; `cost_micros` is the
    sum of the known ones in millionths, because SQLite adds decimals as floating-point numbers.
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

    `slot` is the Unix time in units of `conversations.runs.usage.SLOT`; `purge` deletes old ones.
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


class Label(models.Model):
    """A word that staff sort sessions by."""

    name = models.CharField(_("name"), max_length=50, unique=True)

    class Meta:
        verbose_name = _("label")
        verbose_name_plural = _("labels")
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Review(models.Model):
    """What staff say about one session; it is to do until `reviewed_at` is set."""

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
    """What staff did with somebody's data."""

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
    """One thing that staff did; never changed, and kept when the people in it are erased.

    `session_id` is plain, not a relation: it outlives the session. `detail` holds no text of it.
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
