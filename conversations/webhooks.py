"""Webhooks in the database: what endpoints are to be told, when, and how each message is signed.

The rows of deliveries are the queue: they are written in the transaction of what they tell, and
each attempt moves the time of the next one.
"""

import base64
import hashlib
import hmac
import ipaddress
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from conversations.changes import Change, FeedbackChanged, RunAdvanced
from conversations.models import Run, WebhookDelivery, WebhookEndpoint, WebhookEvent, join_text

LEASE = timedelta(seconds=60)
"""For how long one process has a delivery for itself: longer than an attempt takes."""

PAUSES = (
    *(timedelta(seconds=5), timedelta(minutes=5), timedelta(minutes=30)),
    *(timedelta(hours=2), timedelta(hours=5), timedelta(hours=10), timedelta(hours=24)),
)
"""Pauses after failed attempts; the attempt after the last one is the last."""

SECRET_PREFIX = "whsec_"  # noqa: S105  (public)
TRANSLATED = [ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")]
"""IPv6 addresses that stand for IPv4 ones, private ones too."""

Fact = tuple[WebhookEvent, UUID, dict[str, Any]]


def are_on() -> bool:
    """Return whether the setting `WEBHOOKS` switches webhooks on."""
    return bool(getattr(settings, "WEBHOOKS", False))


def record(change: Change) -> None:
    """Add a delivery of each fact in `change` for each active endpoint that asks for its kind.

    Facts are the kinds of `WebhookEvent`; a rating that was taken back is none. Does nothing while
    webhooks are off. A recorder of changes: runs in the change's transaction.
    """
    if not are_on() or not (told := list(_facts(change))):
        return
    endpoints = list(WebhookEndpoint.objects.filter(is_active=True))
    WebhookDelivery.objects.bulk_create(
        WebhookDelivery(endpoint=endpoint, run_id=run_id, event=event, data=data)
        for event, run_id, data in told
        for endpoint in endpoints
        if event in endpoint.events
    )


def _facts(change: Change) -> Iterator[Fact]:
    for event in change.events:
        if isinstance(event, RunAdvanced):
            yield from _run_facts(event)
        elif isinstance(event, FeedbackChanged) and event.value is not None:
            run = Run.objects.get(reply_id=event.message_id)
            yield WebhookEvent.FEEDBACK_GIVEN, run.pk, {**_ids(run), "value": event.value}


def _run_facts(event: RunAdvanced) -> Iterator[Fact]:
    run = event.run
    for _seq, kind, payload in event.events:
        if kind == "input.requested":
            asked = {"request_id": payload["request_id"], "tool": payload["tool"]}
            yield WebhookEvent.APPROVAL_REQUESTED, run.pk, {**_ids(run), **asked}
    if run.is_ended:
        end = {"status": run.status, "reason": run.reason, "error_code": run.error_code}
        yield WebhookEvent.RUN_ENDED, run.pk, {**_ids(run), **end}


def _ids(run: Run) -> dict[str, Any]:
    return {
        "session_id": str(run.session_id),
        "run_id": str(run.pk),
        "message_id": str(run.reply_id),
        "user_id": str(run.owner_id),
        "agent": run.agent,
    }


@dataclass(frozen=True)
class Due:
    """A delivery to be attempted now: `body`, JSON, is to be posted to `url` with `headers`.

    `id` is that of the `WebhookDelivery`. The signature in `headers` is of the present time.
    """

    id: UUID
    endpoint_id: int
    url: str
    body: bytes
    headers: dict[str, str]


def take_due(limit: int, *, each: int, under_way: Mapping[int, int]) -> list[Due]:
    """Take up to `limit` deliveries that are due, the one due for longest first.

    An endpoint gets at most `each` at a time, with those that are `under_way` to it, a number by
    its id. Call it again until it returns []: those behind many for one endpoint are not seen
    before that one has its number. Deliveries for endpoints that are not active stay. No other
    process gets what is taken within `LEASE`. Each must be attempted, and the result noted by
    `note_attempt`; if that does not come within `LEASE`, the delivery is due again.
    """
    skips = connection.features.has_select_for_update_skip_locked
    busy = [endpoint for endpoint, count in under_way.items() if count >= each]
    with transaction.atomic():
        due = WebhookDelivery.objects.filter(due_at__lte=timezone.now(), endpoint__is_active=True)
        due = due.exclude(endpoint__in=busy).select_related("endpoint", "run__reply")
        locked = due.order_by("due_at").select_for_update(skip_locked=skips, of=("self",))
        rows = list(_at_most(each, locked[:limit], under_way))
        taken = WebhookDelivery.objects.filter(pk__in=[row.pk for row in rows])
        taken.update(due_at=timezone.now() + LEASE, attempts=F("attempts") + 1)
    return [_due(row) for row in rows]


def _at_most(
    each: int, rows: Iterable[WebhookDelivery], under_way: Mapping[int, int]
) -> Iterator[WebhookDelivery]:
    counts = Counter(under_way)
    for row in rows:
        counts[row.endpoint_id] += 1
        if counts[row.endpoint_id] <= each:
            yield row


def _due(row: WebhookDelivery) -> Due:
    text = {"text": join_text(row.run.reply.parts)} if row.endpoint.has_text else {}
    told = {"type": row.event, "timestamp": row.created_at.isoformat(), "data": row.data | text}
    body = json.dumps(told, ensure_ascii=False).encode()
    headers = signed_headers(row.endpoint.secret, str(row.pk), timezone.now(), body)
    return Due(row.pk, row.endpoint_id, row.endpoint.url, body, headers)


def signed_headers(secret: str, message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """Return all headers of the message `body`, sent `at` that time, by Standard Webhooks.

    `secret` is Base64, with or without `SECRET_PREFIX`.
    """
    seconds = str(int(at.timestamp()))
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{message_id}.{seconds}.".encode() + body
    signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": seconds,
        "webhook-signature": f"v1,{signature}",
    }


def note_attempt(delivery_id: UUID, status: int | None, error: str = "") -> str:
    """Note the answer of an endpoint, or the name of an error without one; plan the next attempt.

    `status` is the HTTP status of the answer, None without one. Returns "delivered"; "failed" if
    there will be another attempt; or "given_up" after the last one, and if the delivery was deleted
    meanwhile. Any status but 2xx counts as a failure. The attempt was counted by `take_due`.
    """
    row = WebhookDelivery.objects.filter(pk=delivery_id).first()
    if row is None:  # the conversation was deleted meanwhile
        return "given_up"
    row.last_status, row.last_error, row.due_at = status, error[:60], None
    result = "delivered" if status is not None and 200 <= status < 300 else "failed"
    if result == "delivered":
        row.delivered_at = timezone.now()
    elif row.attempts <= len(PAUSES):
        row.due_at = timezone.now() + PAUSES[row.attempts - 1]
    else:
        result = "given_up"
    row.save(update_fields=["last_status", "last_error", "due_at", "delivered_at"])
    return result


def check_url(url: str) -> None:
    """Raise `ValidationError` unless messages may be sent to `url`.

    It must be https, or http with `DEBUG`; hold no credentials; and if its host is an IP address,
    that must be one of `may_connect`. What a name resolves to is not checked here, but when a
    connection is made.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError as exc:
        raise ValidationError(_("This is no address.")) from exc
    if parts.scheme != "https" and not (settings.DEBUG and parts.scheme == "http"):
        raise ValidationError(_("The address must begin with https://."))
    if parts.username is not None or parts.password is not None:
        raise ValidationError(_("The address must hold no credentials."))
    if _is_address(host) and not may_connect(host):
        raise ValidationError(_("The address is a private one."))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def may_connect(address: str) -> bool:
    """Return whether messages may be sent to this IP address, which must be one.

    Only to public ones, unless the setting `WEBHOOK_PRIVATE` is on: then to all.
    """
    if getattr(settings, "WEBHOOK_PRIVATE", False):
        return True
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if any(found in each for each in TRANSLATED) or found.sixtofour or found.teredo:
            return False
        found = found.ipv4_mapped or found
    return found.is_global and not found.is_multicast
