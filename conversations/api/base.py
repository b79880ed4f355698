"""REST: what holds for every view of this API: pages, and the one shape of errors."""

import logging
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.core.exceptions import ValidationError as InvalidValue
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.utils.translation import gettext_lazy as _
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.openapi import AutoSchema
from rest_framework import status
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import ErrorDetail, NotFound, ValidationError
from rest_framework.exceptions import ValidationError as InvalidRequest
from rest_framework.metadata import SimpleMetadata
from rest_framework.pagination import CursorPagination
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView, set_rollback
from rest_framework.views import exception_handler as default_handler
from rest_framework_simplejwt.authentication import JWTAuthentication

from conversations.api.requests import (
    ApiKeyAuthentication,
    BoundedJSONParser,
    HasScope,
    RequestThrottle,
)
from conversations.errors import ERRORS, AgentSiteError, ErrorCode

logger = logging.getLogger(__name__)

CODES = {
    status.HTTP_401_UNAUTHORIZED: ErrorCode.NOT_AUTHENTICATED,
    status.HTTP_403_FORBIDDEN: ErrorCode.FORBIDDEN,
    status.HTTP_404_NOT_FOUND: ErrorCode.NOT_FOUND,
    status.HTTP_405_METHOD_NOT_ALLOWED: ErrorCode.UNSUPPORTED_TYPE,
    status.HTTP_406_NOT_ACCEPTABLE: ErrorCode.UNSUPPORTED_TYPE,
    status.HTTP_413_REQUEST_ENTITY_TOO_LARGE: ErrorCode.TOO_LARGE,
    status.HTTP_415_UNSUPPORTED_MEDIA_TYPE: ErrorCode.UNSUPPORTED_TYPE,
    status.HTTP_429_TOO_MANY_REQUESTS: ErrorCode.RATE_LIMITED,
}

FAULTS_MAX = 20
IDS = {"session_id", "run_id", "message_id", "request_id", "share_id", "key_id"}
"""What an address may name that is no secret."""


def error_body(code: ErrorCode) -> dict[str, Any]:
    """`{"error": {"code", "text", "retryable"}}`."""
    info = ERRORS[code]
    return {"error": {"code": code.value, "text": str(info.text), "retryable": info.retryable}}


@csrf_exempt
def no_such_address(request: HttpRequest, *args: Any, **kwargs: Any) -> JsonResponse:
    """The answer of an address of the API that is none, such as one without its last slash.

    Not a redirect: clients that follow one make a POST a GET, and lose what they sent.
    """
    return JsonResponse(error_body(ErrorCode.NOT_FOUND), status=404)


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response | None:
    """The answer to any exception of a REST view; names and traces go to the log alone."""
    if isinstance(exc, RequestDataTooBig):
        exc = AgentSiteError(ErrorCode.TOO_LARGE)
    elif isinstance(exc, SuspiciousOperation):
        exc = AgentSiteError(ErrorCode.BAD_FRAME)
    if isinstance(exc, AgentSiteError):
        set_rollback()
        return _response(exc)
    response = default_handler(exc, context)
    if response is not None:
        code = CODES.get(response.status_code, ErrorCode.BAD_FRAME)
        response.data = error_body(code)
        if isinstance(exc, ValidationError) and (faults := list(_faults(exc.get_full_details()))):
            response.data["error"]["fields"] = faults[:FAULTS_MAX]
        return response
    if settings.DEBUG:
        return None
    set_rollback()
    _log(exc, context)
    return Response(error_body(ErrorCode.INTERNAL), status=500)


def _log(exc: Exception, context: dict[str, Any]) -> None:
    """What failed, where and with which ids; the exception's message may quote what was sent."""
    ids = {name: value for name, value in context["kwargs"].items() if name in IDS}
    logger.error(
        "%s failed, %s: %s\n%s",
        type(context["view"]).__name__,
        ids,
        type(exc).__name__,
        "".join(traceback.format_tb(exc.__traceback__)),
    )


def _faults(detail: Any, field: str = "") -> Iterator[dict[str, str]]:
    """`{"field", "code", "text"}` for each fault; a field within another as `outer.inner`.

    The texts are REST framework's own; they repeat at most what was sent.
    """
    if isinstance(detail, dict) and not {"message", "code"} <= detail.keys():
        for name, inner in detail.items():
            yield from _faults(inner, f"{field}.{name}" if field else str(name))
    elif isinstance(detail, list):
        for inner in detail:
            yield from _faults(inner, field)
    elif field:
        yield {"field": field, "code": str(detail["code"]), "text": str(detail["message"])}


def _response(exc: AgentSiteError) -> Response:
    headers = {} if exc.retry_after is None else {"Retry-After": f"{exc.retry_after:.0f}"}
    return Response(error_body(exc.code), status=exc.info.http_status, headers=headers)


class KeysetPagination(CursorPagination):
    """`?cursor=`, as `next` and `previous` of a page give it, and `?page_size=`."""

    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200

    def paginate_queryset(
        self, queryset: Any, request: Request, view: APIView | None = None
    ) -> list[Any] | None:
        """A cursor that was not made here may name what is no position at all."""
        try:
            return super().paginate_queryset(queryset, request, view)
        except (InvalidValue, ValueError, OverflowError) as exc:
            raise NotFound from exc

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """As OpenAPI 3.1 has it."""
        page: dict[str, Any] = super().get_paginated_response_schema(schema)
        for name in ("next", "previous"):
            page["properties"][name] = {"type": ["string", "null"], "format": "uri"}
        page["required"] = list(page["properties"])
        return page


class ByActivity(KeysetPagination):
    """Newest activity first, as in the page's list."""

    ordering = ("-active_at", "-id")


class ByNumber(KeysetPagination):
    """From the first on."""

    ordering = ("number",)


class ByNumberBackwards(KeysetPagination):
    """From the last back."""

    ordering = ("-number",)


class ByAge(KeysetPagination):
    """Newest first."""

    ordering = ("-created_at", "-id")


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
            raise InvalidRequest({name: ErrorDetail(str(UNKNOWN), code) for name in unknown})

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
