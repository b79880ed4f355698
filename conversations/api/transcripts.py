"""REST: a session as a download."""

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from conversations.exports import get_transcript
from conversations.queries import get_session


class TranscriptView(APIView):
    """The whole of a session for other systems."""

    def get(self, request: Request, session_id: str) -> Response:
        """All messages, those of left branches too."""
        session = get_session(request.user, session_id)
        headers = {
            "Content-Disposition": f'attachment; filename="conversation-{session.pk}.json"',
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "private, no-store",
        }
        return Response(get_transcript(session), headers=headers)
