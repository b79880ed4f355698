"""REST: what holds for every view of this API, whatever a project says of its other views."""

from collections.abc import Callable, Iterator
from typing import Any

from django.db import transaction
from django.utils.translation import gettext_lazy as _
from drf_spectacular.openapi import AutoSchema
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.metadata import SimpleMetadata
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.views import APIView
from rest_framework_simplejwt.authentication import JWTAuthentication

from conversations.api.authentication import ApiKeyAuthentication, HasScope, RequestThrottle
from conversations.api.pagination import KeysetPagination
from conversations.api.parsing import BoundedJSONParser
from conversations.api_errors import exception_handler

UNKNOWN = _("There is no such parameter.")


class Metadata(SimpleMetadata):
    """What OPTIONS answers: the OpenAPI document tells of bodies.

    REST framework would describe a view's serializer of answers as what is to be sent.
    """

    def determine_actions(self, request: Request, view: Any) -> dict[str, Any]:
        return {}


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
    metadata_class = Metadata
    schema = AutoSchema()
    query_names: tuple[str, ...] = ()
    """Query parameters beside those of the pagination and of the filter."""

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        """Not in a transaction of `ATOMIC_REQUESTS`: what is counted of a refused try stays."""
        return transaction.non_atomic_requests(super().as_view(**initkwargs))

    def check_permissions(self, request: Request) -> None:
        """Counts first: REST framework would count only what is allowed."""
        super().check_throttles(request)
        super().check_permissions(request)
        self._check_query(request)

    def check_throttles(self, request: Request) -> None:
        """Done in `check_permissions`."""

    def _check_query(self, request: Request) -> None:
        """Refuse a parameter that is misspelled: without its filter, all would be found."""
        unknown = set(request.query_params) - set(self._known_names())
        if unknown:
            code = "unknown_parameter"
            raise ValidationError({name: ErrorDetail(str(UNKNOWN), code) for name in unknown})

    def _known_names(self) -> Iterator[str]:
        yield from self.query_names
        if getattr(self, "pagination_class", None) is not None:
            yield from ("cursor", KeysetPagination.page_size_query_param)
        if (filters := getattr(self, "filterset_class", None)) is not None:
            yield from filters.base_filters

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """What one person may read is kept by no cache, unless a view says for how long."""
        answer = super().finalize_response(request, response, *args, **kwargs)
        if not answer.has_header("Cache-Control"):
            answer["Cache-Control"] = "no-store"
        return answer

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Any]:
        return exception_handler
