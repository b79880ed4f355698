"""REST: access tokens for a name and a password, a few tries at a time."""

from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView

from conversations.api.base import ApiView
from conversations.errors import AgentSiteError, ErrorCode
from conversations.sign_in_limits import allow_again, limit_address, limit_sign_in


class TokenView(ApiView, TokenObtainPairView):
    """An access token and the one that refreshes it."""

    authentication_classes = ()
    permission_classes = ()

    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """For a name and a password."""
        name = str(dict(request.data).get(get_user_model().USERNAME_FIELD, ""))
        limit_sign_in(request, name)
        answer = super().post(request, *args, **kwargs)
        allow_again(request, name)
        return answer


class RefreshView(ApiView, TokenRefreshView):
    """A new access token."""

    authentication_classes = ()
    permission_classes = ()

    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """For a refresh token."""
        limit_address(request)
        try:
            return super().post(request, *args, **kwargs)
        except ObjectDoesNotExist as exc:  # the account was erased
            raise AgentSiteError(ErrorCode.NOT_AUTHENTICATED) from exc
