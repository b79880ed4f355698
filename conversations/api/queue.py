"""REST: the messages that wait for their turn in a session."""

from dataclasses import asdict
from typing import Any

from django.db import transaction
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from conversations import queue
from conversations.api.base import ApiView
from conversations.api.schema import QueueField
from conversations.shapes import QueueView


class QueuedChangeSerializer(serializers.Serializer[Any]):
    """What is to be changed of a message that waits."""

    content = serializers.CharField(required=False, trim_whitespace=False, max_length=65_536)
    position = serializers.IntegerField(min_value=1, required=False)


class QueueSerializer(serializers.Serializer[Any]):
    """What waits, for the schema."""

    queue = serializers.ListField(child=QueueField())


class SessionQueueView(ApiView):
    """What waits in a session, in order."""

    @extend_schema(responses=QueueSerializer)
    def get(self, request: Request, session_id: str) -> Response:
        return _answer(queue.get_queue(request.user, session_id))

    @extend_schema(responses={200: QueueSerializer}, operation_id="sessions_queue_clear")
    def delete(self, request: Request, session_id: str) -> Response:
        """Take all of it back."""
        return _answer(queue.clear_queue(user=request.user, session_id=session_id))


class QueuedView(ApiView):
    """One message that waits; every answer is the queue as it is then."""

    @extend_schema(request=QueuedChangeSerializer, responses=QueueSerializer)
    def patch(self, request: Request, session_id: str, run_id: str) -> Response:
        """Give it another text, another place, or both."""
        asked = QueuedChangeSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        names: dict[str, Any] = {"user": request.user, "session_id": session_id, "run_id": run_id}
        content, position = (asked.validated_data.get(name) for name in ("content", "position"))
        with transaction.atomic():
            if content is not None:
                queue.edit_queued(**names, content=content)
            if position is not None:
                queue.move_queued(**names, position=position)
        return _answer(queue.get_queue(request.user, session_id))

    @extend_schema(responses={200: QueueSerializer})
    def delete(self, request: Request, session_id: str, run_id: str) -> Response:
        """Take it back."""
        left = queue.remove_queued(user=request.user, session_id=session_id, run_id=run_id)
        return _answer(left)


def _answer(waiting: list[QueueView]) -> Response:
    return Response({"queue": [asdict(entry) for entry in waiting]})
