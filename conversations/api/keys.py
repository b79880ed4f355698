"""REST: a user's API keys, which only the user manages."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from conversations.api.base import ApiView
from conversations.api_keys import DAYS, DAYS_MAX, create_key, list_keys, revoke_key
from conversations.models import ApiKey, Scope


class KeySerializer(serializers.ModelSerializer[ApiKey]):
    """A key that holds; its text was shown once."""

    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=Scope.choices), min_length=1, max_length=len(Scope)
    )
    days = serializers.IntegerField(min_value=1, max_value=DAYS_MAX, default=DAYS, write_only=True)

    class Meta:
        model = ApiKey
        fields = (
            *("id", "name", "prefix", "scopes", "days"),
            *("created_at", "last_used_at", "expires_at"),
        )
        read_only_fields = ("prefix", "created_at", "last_used_at", "expires_at")


class KeyListSerializer(serializers.Serializer[None]):
    """All of them, for the schema."""

    results = KeySerializer(many=True)


class NewKeySerializer(KeySerializer):
    """A key that was just made, for the schema."""

    key = serializers.CharField(read_only=True)

    class Meta(KeySerializer.Meta):
        fields = (*KeySerializer.Meta.fields, "key")  # type: ignore[assignment]


class KeysView(ApiView):
    """The caller's keys."""

    scope = ""

    @extend_schema(responses=KeyListSerializer)
    def get(self, request: Request) -> Response:
        """Those that hold."""
        return Response({"results": KeySerializer(list_keys(request.user), many=True).data})

    @extend_schema(request=KeySerializer, responses={201: NewKeySerializer})
    def post(self, request: Request) -> Response:
        """A new one; `key` is shown once."""
        asked = KeySerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        made, text = create_key(user=request.user, **asked.validated_data)
        return Response({**KeySerializer(made).data, "key": text}, status=status.HTTP_201_CREATED)


class KeyView(ApiView):
    """One key."""

    scope = ""

    @extend_schema(responses={204: None})
    def delete(self, request: Request, key_id: str) -> Response:
        """Revoke it."""
        revoke_key(user=request.user, key_id=key_id)
        return Response(status=status.HTTP_204_NO_CONTENT)
