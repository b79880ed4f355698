"""REST: what holds for every view of this API, whatever a project says of its other views."""

from collections.abc import Callable
from typing import Any

from django.db import transaction
from drf_spectacular.openapi import AutoSchema
from rest_framework.authentication import SessionAuthentication
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.views import APIView
from rest_framework_simplejwt.authentication import JWTAuthentication

from conversations.api.authentication import ApiKeyAuthentication, HasScope, RequestThrottle
from conversations.api.parsing import BoundedJSONParser
from conversations.api_errors import exception_handler


class ApiView(APIView):
    """Comes first among the bases of a view."""

    authentication_classes: Any = (
        # First in the list, so that an unauthenticated call is told `WWW-Authenticate: Bearer`.
        ApiKeyAuthentication,
        JWTAuthentication,
        SessionAuthentication,
    )
    permission_classes: Any = (IsAuthenticated, HasScope)
    throttle_classes = (RequestThrottle,)
    parser_classes = (BoundedJSONParser,)
    # JSON alone: the browsable pages need inline scripts, which a strict content policy forbids.
    renderer_classes: Any = (JSONRenderer,)
    filter_backends: Any = ()
    versioning_class = None
    schema = AutoSchema()

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        """Not in a transaction of `ATOMIC_REQUESTS`: what is counted of a refused try stays."""
        return transaction.non_atomic_requests(super().as_view(**initkwargs))

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Any]:
        return exception_handler
