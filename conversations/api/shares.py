"""REST: links to read by, and what they show."""

from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.permissions import AllowAny
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from conversations.api.base import ApiView
from conversations.api.serializers import BranchQuery
from conversations.models import Scope, Share
from conversations.sharing import (
    SharedSession,
    answer_shared,
    create_share,
    limit_views,
    list_shares,
    open_share,
    revoke_share,
)


class ShareSerializer(serializers.ModelSerializer[Share]):
    """A link that holds; its token was shown once."""

    class Meta:
        model = Share
        fields = ("id", "created_at")
        read_only_fields = fields


class ShareListSerializer(serializers.Serializer[None]):
    """All of them, for the schema."""

    results = ShareSerializer(many=True)


class NewShareSerializer(ShareSerializer):
    """A link that was just made, for the schema."""

    token = serializers.CharField()

    class Meta(ShareSerializer.Meta):
        fields = (*ShareSerializer.Meta.fields, "token")  # type: ignore[assignment]


class SharesView(ApiView):
    """The links to one session."""

    query_names = ("branch",)
    write_scope = Scope.SHARE

    @extend_schema(responses=ShareListSerializer)
    def get(self, request: Request, session_id: str) -> Response:
        """Those that hold."""
        shares = list_shares(user=request.user, session_id=session_id)
        return Response({"results": ShareSerializer(shares, many=True).data})

    @extend_schema(request=None, parameters=[BranchQuery], responses={201: NewShareSerializer})
    def post(self, request: Request, session_id: str) -> Response:
        """A link to all that has been said on the active branch; `token` is shown once.

        With `branch`, on the branch of that message.
        """
        asked = BranchQuery(data=request.query_params)
        asked.is_valid(raise_exception=True)
        share, token = create_share(
            user=request.user, session_id=session_id, **asked.validated_data
        )
        made = {**ShareSerializer(share).data, "token": token}
        return Response(made, status=status.HTTP_201_CREATED)


class ShareView(ApiView):
    """One link to a session."""

    write_scope = Scope.SHARE

    @extend_schema(responses={204: None})
    def delete(self, request: Request, session_id: str, share_id: str) -> Response:
        """Revoke it."""
        revoke_share(user=request.user, session_id=session_id, share_id=share_id)
        return Response(status=status.HTTP_204_NO_CONTENT)


class SharedView(ApiView):
    """What a link shows, to anybody."""

    query_names = ("before", "after")
    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(
        responses={200: SharedSession, 304: None},
        parameters=[OpenApiParameter("before"), OpenApiParameter("after")],
    )
    def get(self, request: Request, token: str) -> Any:
        """The conversation without its tools, a page of it: the first, or by an id of another."""
        limit_views(request)
        return answer_shared(request, open_share(token), "application/json", _write_json)


def _write_json(shared: SharedSession) -> bytes:
    body: bytes = JSONRenderer().render(asdict(shared))
    return body
