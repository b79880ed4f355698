"""The page behind a share link: a conversation to read, for anybody who has the link."""

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from conversations.errors import AgentSiteError
from conversations.sharing import get_shared


@require_safe
@never_cache
def shared(request: HttpRequest, token: str) -> HttpResponse:
    """A link that was revoked is as little there as one that never was."""
    try:
        found = get_shared(token)
    except AgentSiteError as exc:
        raise Http404 from exc
    response = render(request, "shared.html", {"shared": found})
    # The address is the secret: it is neither indexed nor told to where links lead.
    response["X-Robots-Tag"] = "noindex"
    response["Referrer-Policy"] = "no-referrer"
    return response


urlpatterns = [path("shared/<str:token>/", shared, name="shared")]
