"""Webhooks and notifications in the database: who is to be told what, when, in which form.

Webhooks go to endpoints of staff, notifications to browsers of users, by Web Push. The rows of
deliveries are the queue: they are written in the transaction of what they tell, and each attempt
moves the time of the next one.
"""

import base64
import hashlib
import hmac
import ipaddress
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parseaddr
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.db.models import F, QuerySet
from django.utils import timezone, translation
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from conversations.changes import Change, FeedbackChanged, RunAdvanced
from conversations.models import (
    Preferences,
    PushDelivery,
    PushSubscription,
    Run,
    RunStatus,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
    join_text,
)
from conversations.people.accounts import forget_oldest_browsers
from conversations.people.sign_ins import SignIn, list_ended_sign_ins
from conversations.queries import User
from conversations.shapes import UserId

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

UNTOLD = (RunStatus.CANCELLED,)
"""How a run ends that somebody has stopped: nobody is notified."""

PUSH_PAUSES = (timedelta(seconds=5), timedelta(minutes=1), timedelta(minutes=10))
PUSH_TTL_S = 86_400
"""How long a push service keeps a notification for a browser that is not running."""

PUSH_CHARS = 200
GONE = (404, 410)
"""How a push service answers for a subscription that has ended."""

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


def has_push() -> bool:
    """Return whether the setting `PUSH_KEY` switches notifications on."""
    return bool(getattr(settings, "PUSH_KEY", None))


def record_pushes(change: Change) -> None:
    """Add a notification of each fact in `change` for each subscription of the run's owner.

    Facts are requested approvals, and the ends of runs that nobody stopped. A recorder of changes.
    """
    if not has_push():
        return
    for event in change.events:
        if isinstance(event, RunAdvanced):
            told = [kind for kind, _, data in _run_facts(event) if data.get("status") not in UNTOLD]
            theirs = PushSubscription.objects.filter(owner_id=event.run.owner_id) if told else []
            PushDelivery.objects.bulk_create(
                PushDelivery(subscription=subscription, run_id=event.run.pk, event=kind)
                for kind in told
                for subscription in theirs
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
    """A message to be posted now: `body` to `url`, with `headers` that are signed for this time.

    `id` is that of the `WebhookDelivery` or `PushDelivery`, `receiver` that of the endpoint or the
    user. The body of a webhook is JSON, that of a notification is encrypted.
    """

    id: Any
    receiver: Any
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
    deliveries = WebhookDelivery.objects.filter(endpoint__is_active=True)
    deliveries = deliveries.exclude(endpoint__in=_busy(each, under_way))
    rows = deliveries.select_related("endpoint", "run__reply")
    return [_due(row) for row in _take(rows, limit, each, under_way, lambda row: row.endpoint_id)]


def _busy(each: int, under_way: Mapping[Any, int]) -> list[Any]:
    return [receiver for receiver, count in under_way.items() if count >= each]


def _take(
    rows: QuerySet[Any],
    limit: int,
    each: int,
    under_way: Mapping[Any, int],
    receiver: Callable[[Any], Any],
) -> list[Any]:
    """Take up to `limit` of `rows` that are due, at most `each` of a receiver; lease them."""
    skips = connection.features.has_select_for_update_skip_locked
    with transaction.atomic():
        due = rows.filter(due_at__lte=timezone.now()).order_by("due_at")
        locked = due.select_for_update(skip_locked=skips, of=("self",))[:limit]
        taken = list(_at_most(each, locked, under_way, receiver))
        leased = rows.model._default_manager.filter(pk__in=[row.pk for row in taken])
        leased.update(due_at=timezone.now() + LEASE, attempts=F("attempts") + 1)
    return taken


def _at_most(
    each: int, rows: Iterable[Any], under_way: Mapping[Any, int], receiver: Callable[[Any], Any]
) -> Iterator[Any]:
    counts = Counter(under_way)
    for row in rows:
        counts[receiver(row)] += 1
        if counts[receiver(row)] <= each:
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


@transaction.atomic
def subscribe(*, sign_in: SignIn, endpoint: str, p256dh: str, auth: str, language: str) -> None:
    """Notify a person in one more browser, in place of who was notified there before.

    `p256dh` and `auth` are the browser's keys in Base64 for URLs; `language` is that of the
    texts, "" for the site's. It ends with `sign_in`, but not when a token expires. Of more than
    `PUSHES_EACH` browsers the oldest is forgotten. Raises `ValidationError` for an address that
    messages may not be sent to, and for keys that are none.
    """
    check_url(endpoint, is_push=True)
    try:
        _encrypt(b"", p256dh, auth)
    except ValueError as exc:
        raise ValidationError(_("These are no keys of a browser.")) from exc
    PushSubscription.objects.filter(endpoint=endpoint).delete()
    given: dict[str, Any] = {
        "owner_id": sign_in.user_id,
        "auth_hash": sign_in.auth_hash,
        "session_key": sign_in.key or "",
        "p256dh": p256dh,
        "auth": auth,
        "language": language,
    }
    # Another tab may be as fast.
    PushSubscription.objects.update_or_create(endpoint=endpoint, defaults=given)
    forget_oldest_browsers(sign_in.user_id)


def unsubscribe(*, user: User, endpoint: str) -> None:
    """Notify a user no more in the browser with this address; does nothing for any other."""
    PushSubscription.objects.filter(owner_id=user.pk, endpoint=endpoint).delete()


def take_due_pushes(limit: int, *, each: int, under_way: Mapping[UserId, int]) -> list[Due]:
    """Take notifications as `take_due` does deliveries, at most `each` at a time for a user.

    Subscriptions whose sign-in has ended are deleted instead, with all that was due for them. The
    result of each notification must be noted by `note_push`.
    """
    busy = _busy(each, under_way)
    deliveries = PushDelivery.objects.exclude(subscription__owner__in=busy)
    rows = deliveries.select_related("subscription", "run__reply")
    taken = _take(rows, limit, each, under_way, lambda row: row.subscription.owner_id)
    ended = _end_subscriptions({row.subscription for row in taken})
    return [_push(row) for row in taken if row.subscription_id not in ended]


def _end_subscriptions(subscriptions: Iterable[PushSubscription]) -> set[int]:
    """Delete those of `subscriptions` whose sign-in has ended; return their ids."""
    sign_ins = {
        each.pk: SignIn(each.owner_id, each.auth_hash, each.session_key or None, None)
        for each in subscriptions
    }
    over = list_ended_sign_ins(sign_ins.values())
    ended = {pk for pk, sign_in in sign_ins.items() if sign_in in over}
    PushSubscription.objects.filter(pk__in=ended).delete()
    return ended


def _push(row: PushDelivery) -> Due:
    to = row.subscription
    body = _encrypt(json.dumps(_message(row), ensure_ascii=False).encode(), to.p256dh, to.auth)
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Encoding": "aes128gcm",
        "TTL": str(PUSH_TTL_S),
        "Urgency": "high" if row.event == WebhookEvent.APPROVAL_REQUESTED else "normal",
        "Authorization": _authorize(to.endpoint),
    }
    return Due(row.pk, to.owner_id, to.endpoint, body, headers)


def _message(row: PushDelivery) -> dict[str, str]:
    """Return what a browser shows: no text of the conversation, unless its owner wants it."""
    run, agent = row.run, row.run.agent[:1].upper() + row.run.agent[1:]
    with translation.override(row.subscription.language or settings.LANGUAGE_CODE):
        asked = row.event == WebhookEvent.APPROVAL_REQUESTED
        title = (
            gettext("{agent} needs your approval.") if asked else gettext("{agent} has replied.")
        )
    shows = Preferences.objects.filter(pk=run.owner_id, push_text=True).exists()
    text = join_text(run.reply.parts)[:PUSH_CHARS] if shows and not asked else ""
    return {"title": title.format(agent=agent), "body": text, "session_id": str(run.session_id)}


def note_push(delivery_id: int, status: int | None, error: str = "") -> str:
    """Note the answer of a push service; plan the next attempt or delete the row.

    A subscription that is `GONE` is deleted. Returns what `note_attempt` does.
    """
    row = PushDelivery.objects.filter(pk=delivery_id).first()
    if row is None:
        return "given_up"
    if status in GONE:
        PushSubscription.objects.filter(pk=row.subscription_id).delete()
        return "given_up"
    if status is not None and 200 <= status < 300:
        row.delete()
        return "delivered"
    if row.attempts > len(PUSH_PAUSES):
        row.delete()
        return "given_up"
    row.due_at = timezone.now() + PUSH_PAUSES[row.attempts - 1]
    row.save(update_fields=["due_at"])
    return "failed"


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def make_push_key() -> str:
    """Return a new value for the setting `PUSH_KEY`: 32 random bytes in Base64 for URLs."""
    numbers = ec.generate_private_key(ec.SECP256R1()).private_numbers()
    return _encode(numbers.private_value.to_bytes(32, "big"))


def _signing_key() -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(
        int.from_bytes(_decode(str(settings.PUSH_KEY)), "big"), ec.SECP256R1()
    )


def push_public_key() -> str:
    """Return the public half of `PUSH_KEY`, with which browsers subscribe; "" without one."""
    return _encode(_point(_signing_key())) if has_push() else ""


def _authorize(endpoint: str) -> str:
    """Return the header that tells a push service who sends, by RFC 8292."""
    parts = urlsplit(endpoint)
    claims = {
        "aud": f"{parts.scheme}://{parts.netloc}",
        "exp": timezone.now() + timedelta(hours=12),
        "sub": f"mailto:{parseaddr(settings.DEFAULT_FROM_EMAIL)[1]}",
    }
    return f"vapid t={jwt.encode(claims, _signing_key(), 'ES256')}, k={push_public_key()}"


def _encrypt(
    data: bytes,
    p256dh: str,
    auth: str,
    *,
    salt: bytes | None = None,
    own: ec.EllipticCurvePrivateKey | None = None,
) -> bytes:
    """Encrypt a message of one record for a browser, by RFC 8291; `ValueError` for bad keys.

    `salt` and `own`, the key of this message, are random unless given.
    """
    browser, secret = _decode(p256dh), _decode(auth)
    if len(secret) != 16:
        raise ValueError("the secret must have 16 bytes")
    salt, own = salt or os.urandom(16), own or ec.generate_private_key(ec.SECP256R1())
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), browser)
    info = b"WebPush: info\0" + browser + _point(own)
    shared = _derive(secret, info, own.exchange(ec.ECDH(), point), 32)
    key = _derive(salt, b"Content-Encoding: aes128gcm\0", shared, 16)
    nonce = _derive(salt, b"Content-Encoding: nonce\0", shared, 12)
    header = salt + RECORD_SIZE.to_bytes(4, "big") + bytes([len(_point(own))]) + _point(own)
    return header + AESGCM(key).encrypt(nonce, data + b"\2", None)


RECORD_SIZE = 4_096


def _derive(salt: bytes, info: bytes, secret: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


def check_url(url: str, *, is_push: bool = False) -> None:
    """Raise `ValidationError` unless messages may be sent to `url`.

    It must be https, or http with `DEBUG`; hold no credentials; and if its host is an IP address,
    that must be one of `may_connect`. What a name resolves to is not checked here, but when a
    connection is made. With `is_push` the address of a user, for which `is_public` counts.
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
    may_reach = is_public if is_push else may_connect
    if _is_address(host) and not may_reach(host):
        raise ValidationError(_("The address is a private one."))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def may_connect(address: str) -> bool:
    """Return whether webhooks may be sent to this IP address, which must be one.

    Only to public ones, unless the setting `WEBHOOK_PRIVATE` is on: then to all.
    """
    return bool(getattr(settings, "WEBHOOK_PRIVATE", False)) or is_public(address)


def is_public(address: str) -> bool:
    """Return whether this IP address, which must be one, is public.

    Notifications are sent to no other, whatever the settings: any user may name an address.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if any(found in each for each in TRANSLATED) or found.sixtofour or found.teredo:
            return False
        found = found.ipv4_mapped or found
    return found.is_global and not found.is_multicast
