"""REST: tickets that open sockets."""

from datetime import UTC, datetime
from typing import Any, cast

from django.contrib.auth.base_user import AbstractBaseUser
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from conversations.api.base import ApiView
from conversations.models import ApiKey, Scope
from conversations.sign_ins import SignIn, sign_in_by_key
from conversations.socket_tickets import issue_ticket


class TicketSerializer(serializers.Serializer[None]):
    """A ticket, for the schema."""

    ticket = serializers.CharField()
    expires_at = serializers.DateTimeField()


class TicketsView(ApiView):
    """Tickets of the caller."""

    write_scope = Scope.READ

    @extend_schema(request=None, responses={201: TicketSerializer})
    def post(self, request: Request) -> Response:
        """One that opens one socket, as `?token=` of its address, within 30 seconds."""
        ticket, expires_at = issue_ticket(user=request.user, sign_in=_sign_in_of(request))
        made = {"ticket": ticket, "expires_at": expires_at}
        return Response(made, status=status.HTTP_201_CREATED)


def _sign_in_of(request: Request) -> SignIn:
    """What the request itself was let in by."""
    if isinstance(request.auth, ApiKey):
        return sign_in_by_key(request.auth)
    user, token = cast(AbstractBaseUser, request.user), cast(Any, request.auth)
    hashed = user.get_session_auth_hash()
    if token is None:
        return SignIn(user.pk, hashed, request.session.session_key, None)
    return SignIn(user.pk, hashed, None, datetime.fromtimestamp(token["exp"], UTC))
