"""The base of all REST views: pagination, unknown query parameters, and the shape of errors."""

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
"""URL arguments that may be logged, because they are ids and not secrets."""


def error_body(code: ErrorCode) -> dict[str, Any]:
    """Return the body of an error: `{"error": {"code", "text", "retryable"}}`."""
    info = ERRORS[code]
    return {"error": {"code": code.value, "text": str(info.text), "retryable": info.retryable}}


@csrf_exempt
def no_such_address(request: HttpRequest, *args: Any, **kwargs: Any) -> JsonResponse:
    """Answer `not_found` for an unknown address, such as one without its final slash.

    A redirect would be wrong: many clients turn a redirected POST into a GET and lose its body.
    """
    return JsonResponse(error_body(ErrorCode.NOT_FOUND), status=404)


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response | None:
    """Turn an exception of a REST view into a response with the body of `error_body`.

    Faults of fields and query parameters are added as `error.fields`, at most `FAULTS_MAX`. An
    unexpected exception is logged, without its message, and answered with `internal`. In DEBUG,
    returns None for it, so that Django shows its own page.
    """
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
    """Log the exception's type and traceback, never its message, which may quote the request."""
    ids = {name: value for name, value in context["kwargs"].items() if name in IDS}
    logger.error(
        "%s failed, %s: %s\n%s",
        type(context["view"]).__name__,
        ids,
        type(exc).__name__,
        "".join(traceback.format_tb(exc.__traceback__)),
    )


def _faults(detail: Any, field: str = "") -> Iterator[dict[str, str]]:
    """Yield `{"field", "code", "text"}` for each fault; nested fields are named `outer.inner`.

    The texts come from REST framework; they repeat at most what was sent.
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
    """Keyset pagination by `?cursor=`, as given in `next` and `previous`, and `?page_size=`.

    A page has 50 entries by default and 200 at most; an invalid size counts as the default.
    Subclasses set `ordering`.
    """

    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200

    def paginate_queryset(
        self, queryset: Any, request: Request, view: APIView | None = None
    ) -> list[Any] | None:
        """Return the page that the request's cursor names, by default the first one.

        Raises `NotFound` for an invalid cursor.
        """
        try:
            return super().paginate_queryset(queryset, request, view)
        except (InvalidValue, ValueError, OverflowError) as exc:
            raise NotFound from exc

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Describe a page, whose `next` and `previous` are always there, and null without one."""
        page: dict[str, Any] = super().get_paginated_response_schema(schema)
        for name in ("next", "previous"):
            page["properties"][name] = {"type": ["string", "null"], "format": "uri"}
        page["required"] = list(page["properties"])
        return page


class ByActivity(KeysetPagination):
    """Sessions, the most recently active first."""

    ordering = ("-active_at", "-id")


class ByNumber(KeysetPagination):
    """By `number`, ascending: the first message or run of a session first."""

    ordering = ("number",)


class ByNumberBackwards(KeysetPagination):
    """By `number`, descending: the last message or run of a session first."""

    ordering = ("-number",)


class ById(KeysetPagination):
    """By `id`, ascending; with ids that count up, in the order in which they were made."""

    ordering = ("id",)


class ByRequest(KeysetPagination):
    """Approvals, the oldest first; those that a reply has requested at once in its order."""

    ordering = ("created_at", "seq")


class ByAge(KeysetPagination):
    """By `created_at`, newest first."""

    ordering = ("-created_at", "-id")


UNKNOWN = _("There is no such parameter.")


class Metadata(SimpleMetadata):
    """The answer to OPTIONS, without the bodies of requests, which OpenAPI describes.

    REST framework would describe the serializer of answers as the body to send.
    """

    def determine_actions(self, request: Request, view: Any) -> dict[str, Any]:
        return {}


class ApiView(APIView):
    """The base of all REST views; list it before other base classes."""

    authentication_classes: Any = (
        # The first class determines the header of 401 answers: `WWW-Authenticate: Bearer`.
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
    """Allowed query parameters, in addition to those of the pagination and the filter."""

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        """Return the view's function, around which `ATOMIC_REQUESTS` opens no transaction.

        A refusal would roll it back, and with it the count of the refused attempt.
        """
        return transaction.non_atomic_requests(super().as_view(**initkwargs))

    def check_permissions(self, request: Request) -> None:
        """Throttle, then check permissions, then refuse unknown query parameters.

        In this order, denied requests are counted too. Raises what refuses the request, as REST
        framework's exceptions.
        """
        super().check_throttles(request)
        super().check_permissions(request)
        self._check_query(request)

    def check_throttles(self, request: Request) -> None:
        """Do nothing: `check_permissions` has already throttled the request."""

    def _check_query(self, request: Request) -> None:
        """Refuse unknown query parameters: a misspelled filter would return everything."""
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
        """Forbid caching, unless the view has set `Cache-Control` itself."""
        answer = super().finalize_response(request, response, *args, **kwargs)
        if not answer.has_header("Cache-Control"):
            answer["Cache-Control"] = "no-store"
        return answer

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Any]:
        return exception_handler
