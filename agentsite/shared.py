"""The page behind a share link: a conversation to read, for anybody who has the link."""

from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.urls import path
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from agentsite import words
from agentsite.accounts import refuse
from agentsite.cards import is_scripted
from conversations.errors import AgentSiteError, ErrorCode
from conversations.sharing import SharedSession, answer_shared, limit_views, open_share


@require_safe
def shared(request: HttpRequest, token: str) -> HttpResponseBase:
    """A link that was revoked is as little there as one that never was."""
    try:
        limit_views(request)
        return answer_shared(request, open_share(token), "text/html; charset=utf-8", _write_page)
    except AgentSiteError as exc:
        if exc.code == ErrorCode.RATE_LIMITED:
            return refuse(request, exc)
        raise Http404 from exc


def _write_page(found: SharedSession) -> bytes:
    """The same for every reader: it is kept for the next one."""
    marked = [(message, is_scripted(message.agent)) for message in found.messages]
    context = {
        "shared": found,
        "marked": marked,
        "about_replies": _about_replies(found),
        "words": {"copy": words.SCRIPT["copy"]},
    }
    return render_to_string("shared.html", context).encode()


def _about_replies(found: SharedSession) -> str:
    replies = [message for message in found.messages if message.role == "assistant"]
    scripted = sum(is_scripted(reply.agent) for reply in replies)
    if replies and scripted == len(replies):
        return _("Replies are scripted, not written by an AI.")
    if scripted:
        return _("Replies are written by an AI, except where marked as scripted, and can be wrong.")
    return _("Replies are written by an AI and can be wrong.")


urlpatterns = [path("shared/<str:token>/", shared, name="shared")]
