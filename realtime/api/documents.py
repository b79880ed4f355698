"""The documents of the wire protocol, to anybody."""

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from realtime import wire_schema
from realtime.conf import socket_path


@login_not_required
@require_safe
@cache_control(max_age=300)
def asyncapi(request: HttpRequest) -> JsonResponse:
    """AsyncAPI 3 of the socket."""
    return JsonResponse(wire_schema.asyncapi(socket_path()))


@login_not_required
@require_safe
@cache_control(max_age=300)
def typescript(request: HttpRequest) -> HttpResponse:
    """Declarations of every frame."""
    return HttpResponse(wire_schema.typescript(), content_type="text/plain; charset=utf-8")
