"""Views of the chat page, the model's status, and the page behind a share link."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from csp.constants import NONE, SELF, UNSAFE_INLINE
from csp.decorators import csp_replace
from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseServerError,
    JsonResponse,
    QueryDict,
)
from django.http.request import split_domain_port
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.urls import path, reverse
from django.utils import timezone
from django.utils.translation import get_language, get_language_bidi
from django.utils.translation import gettext as _
from django.views.decorators.cache import cache_control, never_cache
from django.views.decorators.clickjacking import xframe_options_sameorigin
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from agentsite.tour import NAME as TOUR
from agentsite.web import view_models
from agentsite.web.accounts import refuse
from agentsite.web.view_models import AgentCard, get_card, is_scripted, list_cards
from conversations.errors import AgentSiteError, ErrorCode
from conversations.exports.formats import FORMATS
from conversations.models import ChatSession
from conversations.people.accounts import is_guest
from conversations.queries import get_session, list_pinned, list_sessions
from conversations.sessions.history import get_history, list_siblings
from conversations.sessions.posting import list_feedback
from conversations.sessions.sharing import SharedSession, answer_shared, limit_views, open_share
from conversations.shapes import History
from conversations.webhooks import has_push
from realtime.conf import get_conf, socket_path
from realtime.process import model_status
from realtime.providers.readiness import ModelStatus

GB = 1e9


@dataclass(frozen=True)
class ModelCard:
    """The embedded model as it is introduced to people: name, size of its file, and status."""

    label: str
    size: str
    status: ModelStatus

    @property
    def percent(self) -> float:
        return 100 * (self.status.fraction or 0)


def get_model_card() -> ModelCard | None:
    """Return the card of the embedded model, or None if this process does not run one."""
    status = model_status()
    if status is None:
        return None
    return ModelCard(status.model, f"{settings.LOCAL_MODEL_WEIGHTS.size / GB:.1f} GB", status)


@never_cache
@require_safe
def model(request: HttpRequest) -> JsonResponse:
    """Return a `ModelStatus` of the embedded model as JSON, for visitors without a socket.

    If this process runs no model, that is `{"state": "ready"}`.
    """
    status = model_status()
    told: dict[str, Any] = asdict(status) if status else {"state": "ready"}
    return JsonResponse(told)


PICTURE_CHARS = 4_000
FRAMED = {
    "default-src": [NONE],
    "script-src": [NONE],
    "connect-src": [NONE],
    "form-action": [NONE],
    "style-src": [SELF],
    "frame-ancestors": [SELF],
}
PICTURE_POLICY = FRAMED | {"img-src": ["https:"], "sandbox": []}
# Mermaid writes styles into its drawings.
DIAGRAM_POLICY = FRAMED | {
    "script-src": [SELF],
    "style-src": [SELF, UNSAFE_INLINE],
    "img-src": [NONE],
    "sandbox": ["allow-scripts"],
}


@never_cache
@xframe_options_sameorigin
@csp_replace(PICTURE_POLICY)
@require_safe
def picture(request: HttpRequest) -> HttpResponse:
    """Show the picture at the https address `src`, in a frame of a page, once somebody asks for it.

    The pages themselves may load nothing from elsewhere. This one has no scripts and nothing of the
    user. 404 for an address of this site, one with a user's name, or one above `PICTURE_CHARS`, and
    if the browser says that it is not for a frame.
    """
    src = request.GET.get("src", "")
    if not _is_framed(request) or not _is_elsewhere(request, src) or len(src) > PICTURE_CHARS:
        raise Http404
    return render(request, "picture.html", {"src": src})


@cache_control(private=True, no_cache=True)
@xframe_options_sameorigin
@csp_replace(DIAGRAM_POLICY)
@require_safe
def diagram(request: HttpRequest) -> HttpResponse:
    """Show the page that draws diagrams, in a frame that reaches neither pages nor networks.

    404 outside of frames.
    """
    if not _is_framed(request):
        raise Http404
    return render(request, "diagram.html")


def _is_elsewhere(request: HttpRequest, src: str) -> bool:
    """Return whether an address is of another site, by https and without a user's name."""
    try:
        parts = urlsplit(src)
    except ValueError:
        return False
    own, _port = split_domain_port(request.get_host())
    is_plain = parts.username is None and parts.password is None
    return src.startswith("https://") and is_plain and parts.hostname not in (None, own)


def _is_framed(request: HttpRequest) -> bool:
    return request.headers.get("Sec-Fetch-Dest", "iframe") == "iframe"


FRAGMENT = "X-Fragment"
"""The header of a request for a conversation alone, by a page that has all the rest already."""
LISTED = 100
EMPTY = History(rev=0, messages=[], run=None, queue=[])
PAGE = 40
CURSOR_FIELDS = (
    *("message_id", "number", "role", "parent_message_id", "run_id", "run_status"),
    *("agent", "client_message_id"),
)


@require_safe
@gzip_page
@cache_control(private=True, no_cache=True)
def chat(request: HttpRequest) -> HttpResponse:
    """Show a new conversation, which creates neither a session nor a user.

    `?agent=` chooses an agent. Where guests are not allowed, visitors are redirected to sign in.
    """
    if not request.user.is_authenticated and not settings.ALLOW_GUESTS:
        return redirect_to_login(request.get_full_path())
    return _render(request, None, EMPTY)


@require_safe
@gzip_page
@cache_control(private=True, no_cache=True)
@vary_on_headers(FRAGMENT)
def session(request: HttpRequest, session_id: UUID) -> HttpResponse:
    """Show one of the user's conversations; 404 for missing and deleted ones and those of others.

    Shows the latest messages, or those around the one that `?branch=` names, or before that of
    `?before=`; 404 if there is none. Visitors are redirected to sign in. With the header `FRAGMENT`
    the page has only what is of this conversation.
    """
    if not request.user.is_authenticated:
        return redirect_to_login(request.get_full_path())
    try:
        found = get_session(request.user, session_id)
    except AgentSiteError as exc:
        raise Http404 from exc
    return _render(request, found, _history(found, request.GET))


def _history(session: ChatSession, asked: QueryDict) -> History:
    """Return the latest page of messages, or the one that the query asks for.

    `before` asks for the messages above that one, `branch` for those around it on its branch.
    Raises `Http404` for an unknown message.
    """
    before, branch = asked.get("before", ""), asked.get("branch", "")
    try:
        return get_history(session, PAGE, before=before, branch=branch)
    except AgentSiteError as exc:
        raise Http404 from exc


def _render(request: HttpRequest, session: ChatSession | None, history: History) -> HttpResponse:
    guest = is_guest(request.user)
    if guest:
        _keep_sign_in(request)
    own = request.preferences  # type: ignore[attr-defined]
    asked = request.GET.get("agent", own.agent)
    card = get_card(session.agent if session else asked)
    model = get_model_card()
    is_fragment = session is not None and FRAGMENT in request.headers
    newest, pinned = ([], []) if is_fragment else _list(request)
    messages = history.messages
    siblings = list_siblings(session, messages) if session else {}
    before = request.GET.get("before", "") if session else ""
    context = {
        "title": (session.title if session else "") or _("New conversation"),
        "agents": [card] if session else list_cards(),
        "card": card,
        "chosen": card.name,
        "all_agents": list_cards(),
        "model": model,
        "guest": guest,
        "may_sign_up": settings.ALLOW_SIGN_UP,
        "lines": view_models.session_lines(pinned + newest, session, timezone.localtime()),
        "more_lines": len(newest) + len(pinned) >= LISTED,
        "formats": FORMATS,
        "messages": view_models.messages(history, siblings, card, request.user.get_username()),
        "busy": history.run is not None,
        "earlier": messages[0].message_id if messages and messages[0].parent_message_id else "",
        "later": before or history.later,
        "away": before or history.aside,
        "blank": view_models.blank(card),
        "data": _page_data(request, session, history, card, model)
        | {
            "siblings": siblings,
            "branch": before or (request.GET["branch"] if history.aside else ""),
        },
        "words": view_models.SCRIPT,
    }
    return render(request, "chat/fragment.html" if is_fragment else "chat/chat.html", context)


def _list(request: HttpRequest) -> tuple[list[ChatSession], list[ChatSession]]:
    """Return the user's newest sessions without the pinned ones, and the pinned ones."""
    if not request.user.is_authenticated:
        return [], []
    pinned = list(list_pinned(request.user, LISTED))
    newest = list_sessions(request.user, LISTED)
    return [session for session in newest if not session.is_pinned], pinned


def _keep_sign_in(request: HttpRequest) -> None:
    """Extend a guest's sign-in at most once a day, by changing the session.

    A guest has no other way to get back to the conversations.
    """
    today = timezone.now().date().isoformat()
    if request.session.get("visited") != today:
        request.session["visited"] = today


def _page_data(
    request: HttpRequest,
    session: ChatSession | None,
    history: History,
    card: AgentCard,
    model: ModelCard | None,
) -> dict[str, Any]:
    """Return the initial state of the page's script: user, session, and the reader's cursor."""
    run = history.run
    live = [m.parts for m in history.messages if run and m.message_id == run.message_id]
    return {
        "user": str(request.user.pk or ""),
        "username": request.user.get_username(),
        "push": has_push(),
        "enter": request.preferences.enter,  # type: ignore[attr-defined]
        "session_id": str(session.pk) if session else "",
        "feedback": _feedback(request, session) if session else {},
        "archived": session is not None and session.is_archived,
        "pinned": session is not None and session.is_pinned,
        "rev": history.rev,
        "run": asdict(run) if run else None,
        "parts": live[0] if live else [],
        "queue": [asdict(entry) for entry in history.queue],
        "messages": [
            {name: getattr(message, name) for name in CURSOR_FIELDS} for message in history.messages
        ],
        "model": asdict(model.status) if model else None,
        "site": settings.SITE_NAME,
        "agent": {"name": card.name, "label": card.label},
        "scripted_agent": TOUR,
        "notable_ms": view_models.NOTABLE_MS,
        "frame_max_bytes": get_conf().frame_max_bytes,
        "csrf_cookie": settings.CSRF_COOKIE_NAME,
        "urls": {
            "socket": socket_path(),
            "guest": reverse("guest"),
            "model": reverse("model"),
            "worker": reverse("service-worker"),
            "sessions": reverse("api-sessions"),
            "export": reverse("api-export"),
            "shared": reverse("shared", args=["TOKEN"]),
            "session": reverse("session", args=[UUID(int=0)]),
        },
    }


def _feedback(request: HttpRequest, session: ChatSession) -> dict[str, str]:
    """Return the user's ratings by message id."""
    given = list_feedback(user=request.user, session_id=str(session.pk))
    return {str(verdict.message_id): verdict.value for verdict in given}


@require_safe
@cache_control(public=True, max_age=86_400)
def accent(request: HttpRequest) -> HttpResponse:
    """Return the style sheet of the site's colour; 404 if the site has the colour of its files."""
    if not settings.SITE_ACCENT:
        raise Http404
    return HttpResponse(view_models.accent_style(settings.SITE_ACCENT), content_type="text/css")


def server_error(request: HttpRequest) -> HttpResponse:
    """Show that the server failed, without asking the database for anything."""
    page = render_to_string("500.html", view_models.brand_context())
    return HttpResponseServerError(page)


OFFLINE_FILES = ("base.css", "favicon.svg", "icons.svg", "offline.js", "theme.js")


@require_safe
@cache_control(no_cache=True)
def service_worker(request: HttpRequest) -> HttpResponse:
    """Return the script that shows notifications, and `offline.html` without the site.

    It contains that page and the addresses of its files, which have hashes unless DEBUG is set; so
    a browser installs it anew when one of them changes.
    """
    brand = view_models.brand_context()
    files = {*map(static, OFFLINE_FILES), brand["brand"].logo}
    context = {
        "page": json.dumps(render_to_string("offline.html", brand)),
        "files": json.dumps(sorted(files)),
        "icon": json.dumps(brand["brand"].logo),
        "session_url": reverse("session", args=[UUID(int=0)]).replace(str(UUID(int=0)), "SESSION"),
    }
    return render(request, "service_worker.js", context, content_type="text/javascript")


@require_safe
@cache_control(no_cache=True)
def manifest(request: HttpRequest) -> JsonResponse:
    """Return what a device needs to install the site: its name, icon and first page."""
    brand = view_models.brand_context()["brand"]
    told = {
        "id": reverse("chat"),
        "name": brand.name,
        "start_url": reverse("chat"),
        "display": "standalone",
        "lang": get_language(),
        "dir": "rtl" if get_language_bidi() else "ltr",
        "icons": [{"src": static("favicon.svg"), "sizes": "any", "type": "image/svg+xml"}],
    }
    return JsonResponse(told, content_type="application/manifest+json")


urlpatterns = [
    path("", chat, name="chat"),
    path("manifest.webmanifest", manifest, name="manifest"),
    path("service-worker.js", service_worker, name="service-worker"),
    path("accent.css", accent, name="accent"),
    path("s/<uuid:session_id>/", session, name="session"),
]


@require_safe
def shared(request: HttpRequest, token: str) -> HttpResponseBase:
    """Show a page of a shared conversation, to anybody; 404 for unknown and revoked links alike.

    `?before=` and `?after=` choose the page. Answers 429 beyond the rate limit of one address.
    """
    try:
        limit_views(request)
        return answer_shared(request, open_share(token), "text/html; charset=utf-8", _write_page)
    except AgentSiteError as exc:
        if exc.code == ErrorCode.RATE_LIMITED:
            return refuse(request, exc)
        raise Http404 from exc


def _write_page(found: SharedSession) -> bytes:
    """Render the page without anything personal, because the result is cached for all readers."""
    marked = [
        (message, view_models.get_label(message.agent), is_scripted(message.agent))
        for message in found.messages
    ]
    context = {
        "shared": found,
        "marked": marked,
        "about_replies": _about_replies(found),
        **view_models.brand_context(),
        "words": {name: view_models.SCRIPT[name] for name in ("code", "copy")},
    }
    with timezone.override(UTC):
        return render_to_string("shared.html", context).encode()


def _about_replies(found: SharedSession) -> str:
    replies = [message for message in found.messages if message.role == "assistant"]
    scripted = sum(is_scripted(reply.agent) for reply in replies)
    if replies and scripted == len(replies):
        return _("Replies are scripted, not written by an AI.")
    if scripted:
        return _("Replies are written by an AI, except where marked as scripted, and can be wrong.")
    return _("Replies are written by an AI and can be wrong.")


urlpatterns += [
    path("shared/<str:token>/", shared, name="shared"),
    path("picture/", picture, name="picture"),
    path("diagram/", diagram, name="diagram"),
]
