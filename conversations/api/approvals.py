"""REST: the tool calls of a session that need approval, and the answers to them."""

from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from conversations.api.base import ApiView
from conversations.api.schema import Answered, ApprovalField
from conversations.approvals import MESSAGE_LENGTH, VERDICTS, decide, list_approvals
from conversations.models import Scope
from conversations.queries import get_session


class ApprovalListSerializer(serializers.Serializer[Any]):
    """All of them, for the schema."""

    results = serializers.ListField(child=ApprovalField())


class ApprovalsView(ApiView):
    """The requests of a session."""

    @extend_schema(responses=ApprovalListSerializer)
    def get(self, request: Request, session_id: str) -> Response:
        """All of them, oldest first; those that wait have no `decision`."""
        session = get_session(request.user, session_id)
        return Response({"results": [asdict(view) for view in list_approvals(session)]})


class AnswerSerializer(serializers.Serializer[Any]):
    """What is decided; with `reject`, the model is told `message`."""

    decision = serializers.ChoiceField(choices=VERDICTS)
    message = serializers.CharField(max_length=MESSAGE_LENGTH, allow_blank=True, default="")


class ApprovalView(ApiView):
    """One request."""

    # A program that writes is not the person who is to be asked.
    write_scope = Scope.APPROVE

    @extend_schema(request=AnswerSerializer, responses=Answered)
    def post(self, request: Request, request_id: str) -> Response:
        """Answer it; `duplicate` when it was decided before, which stays as it is."""
        asked = AnswerSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        decided = decide(
            user=request.user,
            request_id=request_id,
            verdict=asked.validated_data["decision"],
            message=asked.validated_data["message"],
            viewed_for=None,
        )
        return Response({**asdict(decided.approval), "duplicate": decided.duplicate})
