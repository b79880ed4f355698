"""Tables of runs: their state, events, items, approvals and side calls."""

import uuid

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from conversations.models.sessions import ChatSession, Message


class RunStatus(models.TextChoices):
    """The status of a run; `conversations.runs.states` has the table of moves between them."""

    QUEUED = "queued", _("queued")
    RUNNING = "running", _("running")
    AWAITING_INPUT = "awaiting_input", _("awaiting input")
    COMPLETED = "completed", _("completed")
    CANCELLED = "cancelled", _("cancelled")
    FAILED = "failed", _("failed")
    INTERRUPTED = "interrupted", _("interrupted")


HOLDING = (RunStatus.RUNNING, RunStatus.AWAITING_INPUT)
"""Statuses in which a run holds its session: no other run of it may start."""

ACTIVE = (RunStatus.QUEUED, *HOLDING)


class EndReason(models.TextChoices):
    """Why a run was cancelled or interrupted, or failed at a limit."""

    USER = "user", _("stopped by the user")
    REDIRECT = "redirect", _("stopped by a newer message")
    DISCONNECT = "disconnect", _("nobody was watching")
    LIMIT = "limit", _("a limit was reached")
    WORKER_LOST = "worker_lost", _("the server stopped")
    APPROVAL_EXPIRED = "approval_expired", _("nobody answered in time")


class UsageSource(models.TextChoices):
    """Where the token counts of a run or side call come from."""

    MEASURED = "measured", _("measured")
    ESTIMATED = "estimated", _("estimated")
    UNKNOWN = "unknown", _("unknown")


class Outcome(models.TextChoices):
    """What was done with a chat when it was accepted.

    Its run was the next of its session, waits behind others, or waits for the run that it stops.
    """

    STARTED = "started"
    QUEUED = "queued"
    INTERRUPTING = "interrupting"


class Run(models.Model):
    """The work on one reply, from the accepted chat to its one terminal status.

    `claim` fences off older workers and is never sent to clients; `epoch` counts showings of the
    reply from its beginning. Columns that change with every commit of text must stay out of all
    indexes, so that Postgres can make HOT updates.
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
    # None, not "": the constraint is for runs that have an id, and NULLs are all distinct.
    client_message_id = models.CharField(max_length=100, null=True, blank=True)  # noqa: DJ001
    content_hash = models.CharField(max_length=64, blank=True)
    outcome = models.CharField(max_length=12, choices=Outcome.choices, default=Outcome.STARTED)

    claim = models.PositiveIntegerField(default=0)
    epoch = models.PositiveIntegerField(default=0)
    last_seq = models.PositiveIntegerField(default=0)
    worker = models.CharField(max_length=100, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    # How many epochs ended because their worker shut down; those are no attempts.
    releases = models.PositiveIntegerField(default=0, db_default=0)

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
    # Tokens of the first input: see `conversations.runs.inputs.Gauge`. `context_model` is the
    # model that received it, if that differs from `model`, the one that answered last. The default
    # is in the database too: processes of the previous version add runs after the migration.
    context_model = models.CharField(max_length=200, blank=True, default="", db_default="")
    context_estimate = models.PositiveIntegerField(null=True, blank=True)
    context_measured = models.PositiveIntegerField(null=True, blank=True)
    context_refused = models.PositiveIntegerField(null=True, blank=True)

    # In the currency of the settings; null if a count or a price is not known.
    cost = models.DecimalField(_("cost"), max_digits=14, decimal_places=6, null=True, blank=True)
    # How many tokens of the current epoch `UserUsage` and `SiteUsage` already contain.
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
    # The times at which text arrived, kept after its events are folded; see
    # `conversations.runs.events`.
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
            # Not partial: SQLite uses a partial index only if the statuses are literals in the SQL.
            models.Index(fields=["status", "session"], name="runs_by_status"),
            models.Index(fields=["ended_at"], condition=Q(folded=False), name="unfolded_runs"),
            # For `COUNT_AT_WORK` in `conversations.runs.usage`, whose SQL repeats this condition.
            models.Index(
                fields=["owner", "session", "status"],
                condition=Q(status__in=(RunStatus.QUEUED, RunStatus.RUNNING)),
                name="runs_at_work",
            ),
            # Has all columns that staff filter by, so that rows are filtered in the index alone.
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


class RunEvent(models.Model):
    """One event of a run's journal; each event has its own seq and becomes one frame.

    `step` is never sent. It has what another worker needs to go on behind this event, until the
    run is folded: see `conversations.runs.inputs.Step`.
    """

    pk = models.CompositePrimaryKey("run_id", "epoch", "seq")
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="events", db_index=False)
    epoch = models.PositiveIntegerField()
    seq = models.PositiveIntegerField()
    kind = models.CharField(max_length=20)
    payload = models.JSONField(default=dict)
    step = models.JSONField(null=True, blank=True)
    created_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.kind} {self.epoch}.{self.seq}"


class Item(models.Model):
    """One SDK item that a run's reply added to the model's history, for the input of later runs."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="items", db_index=False)
    position = models.PositiveIntegerField()
    payload = models.JSONField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "position"], name="item_position")]

    def __str__(self) -> str:
        return f"item {self.position}"


class Decision(models.TextChoices):
    """How an approval was decided; EXPIRED and CANCELLED are not decisions of a person."""

    APPROVE = "approve", _("approved")
    REJECT = "reject", _("rejected")
    EXPIRED = "expired", _("expired")
    CANCELLED = "cancelled", _("cancelled")


class Approval(models.Model):
    """A tool call that a run may make only if its user approves; `id` is the request's id.

    `decision` is "" while it is open. `decided_by` is None if no person decided, or the account is
    deleted. `message` is the person's text for the model. `args_hash` binds the decision to the
    tool and its exact arguments; `seq` is that of the `input.requested` event.
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
    """The SDK's state from which a suspended run is resumed.

    Deleted when the run ends, and when it is to go on behind a later checkpoint. `payload` is
    JSON in a text column, because databases' JSON types do not hold all of it. `seq` is that of the
    first request; `attempts` counts how often a worker has resumed from here.
    """

    run = models.OneToOneField(
        Run, on_delete=models.CASCADE, primary_key=True, related_name="state"
    )
    seq = models.PositiveIntegerField()
    payload = models.TextField()
    attempts = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"state at {self.seq}"


class SideCall(models.Model):
    """A model call that is not part of a reply.

    Its usage is part of the session's totals; daily limits do not count it.
    """

    class Purpose(models.TextChoices):
        """What a side call was for."""

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
