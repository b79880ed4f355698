"""REST views of API keys, notifications, access tokens and tickets."""

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist
from django.core.exceptions import ValidationError as InvalidValue
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.serializers import TokenObtainPairSerializer, TokenRefreshSerializer
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.tokens import RefreshToken
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView

from conversations import webhooks
from conversations.api.base import ApiView
from conversations.api.requests import sign_in_of
from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import ApiKey, Scope
from conversations.people.accounts import DAYS, DAYS_MAX, create_key, list_keys, revoke_key
from conversations.people.sign_ins import (
    allow_again,
    count_sign_outs,
    issue_ticket,
    limit_address,
    limit_sign_in,
)


class KeySerializer(serializers.ModelSerializer[ApiKey]):
    """A valid API key; its full text is shown once, on creation, and begins with `prefix`.

    `days` is the lifetime of a new key, and is not shown again.
    """

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
    """All valid keys of the caller."""

    results = KeySerializer(many=True)


class NewKeySerializer(KeySerializer):
    """A new API key; `key` is its full text."""

    key = serializers.CharField(read_only=True)

    class Meta(KeySerializer.Meta):
        fields = (*KeySerializer.Meta.fields, "key")  # type: ignore[assignment]


class KeysView(ApiView):
    """The caller's API keys."""

    scope = ""

    @extend_schema(responses=KeyListSerializer)
    def get(self, request: Request) -> Response:
        """List the caller's API keys that are neither expired nor revoked, newest first."""
        return Response({"results": KeySerializer(list_keys(request.user), many=True).data})

    @extend_schema(request=KeySerializer, responses={201: NewKeySerializer})
    def post(self, request: Request) -> Response:
        """Create an API key for the caller. Its full text, `key`, is shown only in this answer.

        Answers `forbidden` to a guest, to a program with an API key, and to a caller who has 50
        valid keys.
        """
        asked = KeySerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        made, text = create_key(user=request.user, **asked.validated_data)
        return Response({**KeySerializer(made).data, "key": text}, status=status.HTTP_201_CREATED)


class KeyView(ApiView):
    """One API key."""

    scope = ""

    @extend_schema(responses={204: None})
    def delete(self, request: Request, key_id: str) -> Response:
        """Revoke one of the caller's API keys.

        Answers `not_found` for any other key, and for one that is expired or revoked.
        """
        revoke_key(user=request.user, key_id=key_id)
        return Response(status=status.HTTP_204_NO_CONTENT)


class PushKeysSerializer(serializers.Serializer[None]):
    """The keys of a browser's subscription, as `PushSubscription.toJSON()` has them."""

    p256dh = serializers.CharField(max_length=100)
    auth = serializers.CharField(max_length=30)


class EndpointSerializer(serializers.Serializer[None]):
    """The address of a browser's subscription."""

    endpoint = serializers.URLField(max_length=500)


class SubscriptionSerializer(EndpointSerializer):
    """A browser that is to be notified, in the `language` of its pages."""

    keys = PushKeysSerializer()
    language = serializers.ChoiceField(choices=settings.LANGUAGES, default=settings.LANGUAGE_CODE)


class PushKeyField(serializers.Serializer[None]):
    """The key with which a browser subscribes; "" on a site without notifications."""

    public_key = serializers.CharField()


class PushView(ApiView):
    """The caller's notifications by Web Push; API keys cannot change them."""

    scope = ""

    @extend_schema(responses=PushKeyField)
    def get(self, request: Request) -> Response:
        """Return the public key of the site, with which a browser subscribes."""
        return Response({"public_key": webhooks.push_public_key()})

    @extend_schema(request=SubscriptionSerializer, responses={204: None})
    def post(self, request: Request) -> Response:
        """Notify the caller in a browser when a reply ends or needs an approval.

        It ends with the caller's sign-in. Answers `not_found` on a site without notifications. Of
        more than 10 browsers the oldest is forgotten.
        """
        if not webhooks.has_push():
            raise AgentSiteError(ErrorCode.NOT_FOUND)
        asked = SubscriptionSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        given = asked.validated_data
        try:
            webhooks.subscribe(
                sign_in=sign_in_of(request),
                endpoint=given["endpoint"],
                language=given["language"],
                **given["keys"],
            )
        except InvalidValue as exc:
            raise serializers.ValidationError({"endpoint": exc.messages}) from exc
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(request=EndpointSerializer, responses={204: None})
    def delete(self, request: Request) -> Response:
        """Stop notifying the caller in a browser; does nothing for an unknown one."""
        asked = EndpointSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        webhooks.unsubscribe(user=request.user, endpoint=asked.validated_data["endpoint"])
        return Response(status=status.HTTP_204_NO_CONTENT)


SIGN_OUTS_CLAIM = "sign_outs"


class Refresh(RefreshToken):
    """A refresh token that is refused once its user has signed out since it was issued.

    A token without the claim is an older one, and counts as issued before the first sign-out.
    """

    @classmethod
    def for_user(cls, user: Any) -> Any:
        token = super().for_user(user)
        token[SIGN_OUTS_CLAIM] = count_sign_outs(user.pk)
        return token

    def verify(self) -> None:
        super().verify()
        if self.get(SIGN_OUTS_CLAIM, 0) != count_sign_outs(self[api_settings.USER_ID_CLAIM]):
            raise TokenError("The user has signed out since.")


class TokenSerializer(TokenObtainPairSerializer):
    """Makes an access token and a `Refresh` for a user name and a password."""

    token_class = Refresh


class RefreshSerializer(TokenRefreshSerializer):
    """Makes an access token for a `Refresh`, which stays valid."""

    token_class = Refresh


class TokenView(ApiView, TokenObtainPairView):
    """An access token and a refresh token."""

    serializer_class = TokenSerializer
    authentication_classes = ()
    permission_classes = ()

    @extend_schema(request=TokenObtainPairSerializer, responses=TokenObtainPairSerializer)
    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Issue an access token and a refresh token for a user name and a password.

        Answers `not_authenticated` if they are wrong, and `rate_limited` after too many attempts.
        """
        name = str(dict(request.data).get(get_user_model().USERNAME_FIELD, ""))
        limit_sign_in(request, name)
        answer = super().post(request, *args, **kwargs)
        allow_again(request, name)
        return answer


class RefreshView(ApiView, TokenRefreshView):
    """A new access token for a refresh token."""

    serializer_class = RefreshSerializer
    authentication_classes = ()
    permission_classes = ()

    @extend_schema(request=TokenRefreshSerializer, responses=TokenRefreshSerializer)
    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Issue an access token for a refresh token.

        Answers `not_authenticated` if the refresh token is not valid, or no longer, such as after
        its user has signed out; and `rate_limited` after too many attempts.
        """
        limit_address(request)
        try:
            return super().post(request, *args, **kwargs)
        except ObjectDoesNotExist as exc:  # the account was erased
            raise AgentSiteError(ErrorCode.NOT_AUTHENTICATED) from exc


class TicketSerializer(serializers.Serializer[None]):
    """A new ticket; `expires_at` is when it stops opening a socket."""

    ticket = serializers.CharField()
    expires_at = serializers.DateTimeField()


class TicketsView(ApiView):
    """Tickets that open sockets."""

    write_scope = Scope.READ

    @extend_schema(request=None, responses={201: TicketSerializer})
    def post(self, request: Request) -> Response:
        """Issue a ticket. It opens one socket, as `?token=` in the address, within 30 seconds."""
        ticket, expires_at = issue_ticket(user=request.user, sign_in=sign_in_of(request))
        made = {"ticket": ticket, "expires_at": expires_at}
        return Response(made, status=status.HTTP_201_CREATED)
