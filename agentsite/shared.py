"""The page behind a share link: a conversation to read, for anybody who has the link."""

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from agentsite import words
from agentsite.cards import is_scripted
from conversations.errors import AgentSiteError
from conversations.sharing import SharedSession, get_shared


@require_safe
@never_cache
def shared(request: HttpRequest, token: str) -> HttpResponse:
    """A link that was revoked is as little there as one that never was."""
    try:
        found = get_shared(token)
    except AgentSiteError as exc:
        raise Http404 from exc
    marked = [(message, is_scripted(message.agent)) for message in found.messages]
    context = {
        "shared": found,
        "marked": marked,
        "about_replies": _about_replies(found),
        "words": {"copy": words.SCRIPT["copy"]},
    }
    response = render(request, "shared.html", context)
    # The address is the secret: it is neither indexed nor told to where links lead.
    response["X-Robots-Tag"] = "noindex"
    response["Referrer-Policy"] = "no-referrer"
    return response


def _about_replies(found: SharedSession) -> str:
    replies = [message for message in found.messages if message.role == "assistant"]
    scripted = sum(is_scripted(reply.agent) for reply in replies)
    if replies and scripted == len(replies):
        return _("Replies are scripted, not written by an AI.")
    if scripted:
        return _("Replies are written by an AI, except where marked as scripted, and can be wrong.")
    return _("Replies are written by an AI and can be wrong.")


urlpatterns = [path("shared/<str:token>/", shared, name="shared")]
