"""REST: a user's own sessions, their history and their export."""

from django.db.models import QuerySet
from rest_framework.generics import ListAPIView
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from conversations.exports import get_transcript
from conversations.models import ChatSession
from conversations.queries import get_history, get_session, sessions_of, with_run_status
from conversations.serializers import SessionSerializer, history_data


class SessionPagination(CursorPagination):
    """Newest activity first, as in the page's list."""

    ordering = ("-active_at", "-id")
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200


class SessionsView(ListAPIView[ChatSession]):
    """GET /api/sessions/"""

    serializer_class = SessionSerializer
    pagination_class = SessionPagination

    def get_queryset(self) -> QuerySet[ChatSession]:
        return with_run_status(sessions_of(self.request.user))


class SessionView(APIView):
    """GET /api/sessions/<id>/"""

    def get(self, request: Request, session_id: str) -> Response:
        session = get_session(request.user, session_id)
        history = get_history(session)
        run_status = history.run.status if history.run else None
        data = SessionSerializer(session).data | {"run_status": run_status}
        return Response({**data, **history_data(history)})


class TranscriptView(APIView):
    """GET /api/sessions/<id>/transcript/"""

    def get(self, request: Request, session_id: str) -> Response:
        session = get_session(request.user, session_id)
        headers = {
            "Content-Disposition": f'attachment; filename="conversation-{session.pk}.json"',
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "private, no-store",
        }
        return Response(get_transcript(session), headers=headers)
