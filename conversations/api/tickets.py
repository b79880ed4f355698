"""REST: tickets that open sockets."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from conversations.api.authentication import sign_in_of
from conversations.api.base import ApiView
from conversations.models import Scope
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
        ticket, expires_at = issue_ticket(user=request.user, sign_in=sign_in_of(request))
        made = {"ticket": ticket, "expires_at": expires_at}
        return Response(made, status=status.HTTP_201_CREATED)
