"""REST: thumbs up and down."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from conversations.api.base import ApiView
from conversations.feedback import give_feedback, list_feedback, take_feedback_back
from conversations.models import Feedback


class FeedbackSerializer(serializers.ModelSerializer[Feedback]):
    """The caller's verdict on a reply."""

    message_id = serializers.UUIDField(read_only=True)
    comment = serializers.CharField(max_length=4_000, required=False, allow_blank=True)

    class Meta:
        model = Feedback
        fields = ("message_id", "value", "comment", "created_at", "updated_at")
        read_only_fields = ("created_at", "updated_at")


class FeedbackListSerializer(serializers.Serializer[None]):
    """All of them, for the schema."""

    results = FeedbackSerializer(many=True)


class FeedbackListView(ApiView):
    """The caller's verdicts in one session."""

    @extend_schema(responses=FeedbackListSerializer)
    def get(self, request: Request, session_id: str) -> Response:
        """One for each reply that got one."""
        given = list_feedback(user=request.user, session_id=session_id)
        return Response({"results": FeedbackSerializer(given, many=True).data})


class FeedbackView(ApiView):
    """The caller's verdict on one reply."""

    @extend_schema(request=FeedbackSerializer, responses=FeedbackSerializer)
    def put(self, request: Request, session_id: str, message_id: str) -> Response:
        """Give it, or change it."""
        asked = FeedbackSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        given = give_feedback(
            user=request.user,
            session_id=session_id,
            message_id=message_id,
            **asked.validated_data,
        )
        return Response(FeedbackSerializer(given).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, session_id: str, message_id: str) -> Response:
        """Take it back."""
        take_feedback_back(user=request.user, session_id=session_id, message_id=message_id)
        return Response(status=status.HTTP_204_NO_CONTENT)
