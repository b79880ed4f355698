"""One shape for every error of the REST API."""

import logging
import traceback
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from rest_framework import status
from rest_framework.exceptions import ValidationError
from rest_framework.response import Response
from rest_framework.views import exception_handler as default_handler
from rest_framework.views import set_rollback

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
