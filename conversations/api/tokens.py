"""REST: access tokens for a name and a password, a few tries at a time."""

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView

from conversations.sign_in_limits import allow_again, limit_address, limit_sign_in


class TokenView(TokenObtainPairView):
    """An access token and the one that refreshes it."""

    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """For a name and a password."""
        name = str(dict(request.data).get("username", ""))
        limit_sign_in(request, name)
        answer = super().post(request, *args, **kwargs)
        allow_again(name)
        return answer


class RefreshView(TokenRefreshView):
    """A new access token."""

    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """For a refresh token."""
        limit_address(request)
        return super().post(request, *args, **kwargs)
