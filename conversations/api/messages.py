"""REST: the messages of a session, page by page."""

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.generics import GenericAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from conversations.api.base import ApiView
from conversations.api.pagination import ByNumber
from conversations.api.schema import Message as MessageSchema
from conversations.api.serializers import MessagePageSerializer, message_data
from conversations.message_reads import get_message_view, list_messages, show_messages
from conversations.models import Message
from conversations.queries import get_session


class MessagesView(ApiView, GenericAPIView[Message]):
    """Everything that was said, in order, on all branches."""

    pagination_class = ByNumber

    @extend_schema(
        responses=MessagePageSerializer,
        parameters=[OpenApiParameter("cursor"), OpenApiParameter("page_size", OpenApiTypes.INT)],
    )
    def get(self, request: Request, session_id: str) -> Response:
        """From the first message on."""
        session = get_session(request.user, session_id)
        page = self.paginate_queryset(list_messages(session)) or []
        views = show_messages(page)
        return self.get_paginated_response([message_data(view) for view in views])


class MessageView(ApiView):
    """One message."""

    @extend_schema(responses=MessageSchema, operation_id="sessions_message_retrieve")
    def get(self, request: Request, session_id: str, message_id: str) -> Response:
        """As it is now; `text` is its Markdown."""
        session = get_session(request.user, session_id)
        return Response(message_data(get_message_view(session, message_id)))
