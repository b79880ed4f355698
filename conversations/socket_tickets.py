"""Tickets for sockets: for clients that can send neither a cookie nor a header with a handshake."""

from datetime import datetime, timedelta

from django.contrib.auth.base_user import AbstractBaseUser
from django.utils import timezone

from conversations.models import SocketTicket
from conversations.queries import User
from conversations.secrets import hash_token, make_token
from conversations.sign_ins import SignIn, list_ended_sign_ins, sign_in_by_key

LIFE = timedelta(seconds=30)
"""An address, and so a ticket in it, is written down in many places."""

AUDIENCE = "agent-socket"
"""What these tickets are for; one that is for something else opens no socket."""


def issue_ticket(*, user: User, sign_in: SignIn) -> tuple[str, datetime]:
    """A new ticket of 256 bits, which is not kept, and when it ends.

    The socket that it opens ends with `sign_in`, by which the ticket was asked for.
    """
    now = timezone.now()
    SocketTicket.objects.filter(expires_at__lt=now).delete()
    text = make_token()
    ticket = SocketTicket(
        token_hash=hash_token(text),
        audience=AUDIENCE,
        auth_hash=sign_in.auth_hash,
        session_key=sign_in.key or "",
        api_key_id=sign_in.api_key,
        sign_in_until=sign_in.expires,
        expires_at=now + LIFE,
    )
    ticket.user_id = user.pk  # type: ignore[assignment]
    ticket.save(force_insert=True)
    return text, ticket.expires_at


def redeem_ticket(text: str) -> tuple[AbstractBaseUser, SignIn] | None:
    """Use a ticket up: its user, and what the socket is let in by; None for one that does not hold.

    Of several who try at once, in whichever processes, one gets it: who deletes the row.
    """
    tickets = SocketTicket.objects.filter(
        token_hash=hash_token(text),
        audience=AUDIENCE,
        expires_at__gt=timezone.now(),
        user__is_active=True,
    )
    ticket = tickets.select_related("user", "api_key__owner").first()
    if ticket is None or not SocketTicket.objects.filter(pk=ticket.pk).delete()[0]:
        return None
    sign_in = _sign_in_of(ticket)
    return None if list_ended_sign_ins([sign_in]) else (ticket.user, sign_in)


def _sign_in_of(ticket: SocketTicket) -> SignIn:
    if ticket.api_key is not None:
        return sign_in_by_key(ticket.api_key)
    key, until = ticket.session_key or None, ticket.sign_in_until
    return SignIn(ticket.user_id, ticket.auth_hash, key, until)
