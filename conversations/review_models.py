"""What staff keep about sessions: reviews, labels, and who has looked at what."""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _


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
