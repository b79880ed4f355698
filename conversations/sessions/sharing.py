"""Shares: links by which anybody reads a conversation, until they are revoked."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.cache import get_conditional_response, patch_cache_control
from django.utils.translation import get_language

from conversations.changes import ShareChanged, announce_unnumbered
from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import HOLDING, ChatSession, Message, Run, Share
from conversations.people.accounts import hash_token, make_token
from conversations.people.sign_ins import address_of, count_attempt
from conversations.queries import User, get_session, list_path, load_messages, parse_id
from conversations.sessions.history import find_end, show_messages
from conversations.sessions.rendering import RENDERER_VERSION, read_joined_html
from conversations.shapes import MessageView

SHOWN_MAX = 2_000
"""Most messages that a share shows: the last ones."""

PAGE = 200
"""Messages on a page."""

SHARES_MAX = 100
"""Most valid shares of a session."""

VIEWS_AN_ADDRESS = 600
"""Views in `VIEWS_PERIOD`: a whole office may have one address, a long conversation 10 pages."""

VIEWS_PERIOD = timedelta(minutes=5)
CACHE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class SharedMessage:
    """A message as visitors see it: no tools, no reasoning, no ids; `created_at` is ISO 8601.

    `text` is Markdown. `agent` is the name of the agent that replied. For a message that a person
    wrote, `html` is "", and `run_status` and `agent` are None.
    """

    role: str
    text: str
    html: str
    created_at: str
    run_status: str | None
    agent: str | None


@dataclass(frozen=True)
class SharedSession:
    """A page of a session as visitors see it; `shared_at` is when the share was created.

    `previous` is the argument `before` of `read_shared` for the previous page, `next` is its
    argument `after` for the next page; None if there is no such page.
    """

    title: str
    shared_at: datetime
    messages: list[SharedMessage]
    previous: str | None
    next: str | None


@dataclass(frozen=True)
class OpenShare:
    """A share that was valid when it was read; it shows the same as long as `revision` is equal.

    The row has its session and its `leaf` loaded.
    """

    share: Share
    revision: tuple[Any, ...]


def list_shares(*, user: User, session_id: str) -> QuerySet[Share]:
    """Return the session's valid shares, newest first; raises `AgentSiteError(not_found)`."""
    return _holding(get_session(user, session_id)).order_by("-created_at")


@transaction.atomic
def create_share(*, user: User, session_id: str, branch: str = "") -> tuple[Share, str]:
    """Create a share of the active branch as it is now; return it with its token.

    Only a hash of the token is stored. With `branch`, the id of a message, the branch through that
    message is shared, which goes on below it with the newest child each time. Raises
    `AgentSiteError`: not_found, also for a session without messages and for a withdrawn message,
    and forbidden if the session has `SHARES_MAX` valid shares.
    """
    session = get_session(user, session_id)
    # Of several at once each counts those before it.
    ChatSession.objects.select_for_update(no_key=True).get(pk=session.pk)
    if _holding(session).count() >= SHARES_MAX:
        raise AgentSiteError(ErrorCode.FORBIDDEN)
    leaf = _find_leaf(session, branch) if branch else session.active_leaf_id
    if leaf is None:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    token = make_token()
    share = Share.objects.create(session=session, leaf_id=leaf, token_hash=hash_token(token))
    announce_unnumbered(session, _changed(share))
    return share, token


def _find_leaf(session: ChatSession, branch: str) -> UUID | None:
    known = Message.objects.filter(session=session, pk=parse_id(branch), withdrawn=False)
    return find_end(parse_id(branch)) if known.exists() else None


@transaction.atomic
def revoke_share(*, user: User, session_id: str, share_id: str) -> None:
    """Revoke a valid share of the session; raises `AgentSiteError(not_found)` for any other."""
    session = get_session(user, session_id)
    share = _holding(session).select_for_update().filter(pk=parse_id(share_id)).first()
    if share is None:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    share.revoked_at = timezone.now()
    share.save(update_fields=["revoked_at"])
    announce_unnumbered(session, _changed(share))


def _changed(share: Share) -> ShareChanged:
    return ShareChanged(share.pk, share.created_at.isoformat(), share.revoked_at is not None)


def limit_views(request: HttpRequest) -> None:
    """Count a view of a share from the request's address.

    Views of all shares, by pages and by the API, are counted together, in all processes. Raises
    `AgentSiteError(rate_limited)` above `VIEWS_AN_ADDRESS` in `VIEWS_PERIOD`.
    """
    what = f"shared from {address_of(request)}"
    if (wait := count_attempt(what, limit=VIEWS_AN_ADDRESS, period=VIEWS_PERIOD)) is not None:
        raise AgentSiteError(ErrorCode.RATE_LIMITED, retry_after=wait)


def open_share(token: str) -> OpenShare:
    """Return the share with this token; raises `AgentSiteError(not_found)` if there is none.

    A share that is revoked, of a deleted session, or of an inactive owner is not found. Call it for
    every request, before anything is read from a cache, so that a revoked share shows nothing.
    """
    shares = Share.objects.filter(
        token_hash=hash_token(token),
        revoked_at=None,
        session__deleted_at=None,
        session__owner__is_active=True,
    )
    share = shares.select_related("session", "leaf").first()
    if share is None:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    return OpenShare(share, _revision(share))


def _revision(share: Share) -> tuple[Any, ...]:
    """Return what changes whenever the shared content may have changed."""
    # The session's revision does not count streamed text; the run's epoch and seq do.
    working = Run.objects.filter(session=share.session_id, status__in=HOLDING)
    return (share.session.rev, RENDERER_VERSION, *working.values_list("pk", "epoch", "last_seq"))


def read_shared(opened: OpenShare, *, before: str = "", after: str = "") -> SharedSession:
    """Return the first page of a share, or the page before or after a message, of `PAGE` messages.

    Only the last `SHOWN_MAX` messages of the branch are shown. `before` and `after` are ids of
    messages; "" is none, and `after` is ignored if both are given. Messages that were withdrawn or
    inserted since are left out of their page. Raises `AgentSiteError(not_found)` for the id of a
    message that is not shared.
    """
    share = opened.share
    path = list_path(share.leaf_id, SHOWN_MAX)
    start, end = _find_page(path, before, after)
    rows = [row for row in load_messages(path[start:end]) if _is_shared(share, row)]
    views = show_messages(rows)
    html = read_joined_html(views)
    return SharedSession(
        title=share.session.title,
        shared_at=share.created_at,
        messages=[_shared(view, html.get(view.message_id, "")) for view in views],
        previous=str(path[start]) if start > 0 else None,
        next=str(path[end - 1]) if end < len(path) else None,
    )


def _find_page(path: list[UUID], before: str, after: str) -> tuple[int, int]:
    """Return the requested page as a slice of `path`; raises `AgentSiteError(not_found)`."""
    try:
        if before:
            end = path.index(parse_id(before))
            return max(0, end - PAGE), end
        start = path.index(parse_id(after)) + 1 if after else 0
    except ValueError as exc:
        raise AgentSiteError(ErrorCode.NOT_FOUND) from exc
    return start, min(len(path), start + PAGE)


def _is_shared(share: Share, message: Message) -> bool:
    """Excludes messages withdrawn since, and messages inserted before the shared end later."""
    if message.withdrawn:
        return False
    return message.number <= share.leaf.number or message.created_at <= share.created_at


def _shared(view: MessageView, html: str) -> SharedMessage:
    return SharedMessage(
        role=view.role,
        text=view.text,
        html=html,
        created_at=view.created_at,
        run_status=view.run_status,
        agent=view.agent,
    )


class BodyCache:
    """Response bodies in this process's memory, at most `max_bytes` together; safe for threads.

    The least recently used bodies are dropped first; one larger than `max_bytes` is not kept. The
    key of a body contains the revision of its share, so entries never need to be invalidated.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size = 0
        self._bodies: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> bytes | None:
        with self._lock:
            if key in self._bodies:
                self._bodies.move_to_end(key)
            return self._bodies.get(key)

    def put(self, key: Hashable, body: bytes) -> None:
        with self._lock:
            self._size -= len(self._bodies.pop(key, b""))
            if len(body) > self._max_bytes:
                return
            self._size += len(body)
            self._bodies[key] = body
            while self._size > self._max_bytes:
                self._size -= len(self._bodies.popitem(last=False)[1])


bodies = BodyCache(CACHE_BYTES)


def answer_shared(
    request: HttpRequest,
    opened: OpenShare,
    content_type: str,
    write: Callable[[SharedSession], bytes],
) -> HttpResponseBase:
    """Return the page of `opened` that the query of `request` asks for, or 304 if it has that page.

    The query's `before` and `after` are those of `read_shared`. `write` makes the body; this
    process caches it by revision, page, type and language. Other caches must revalidate each time,
    so that a share ends as soon as it is revoked. Raises `AgentSiteError(not_found)` if the query
    has the id of a message that is not shared.
    """
    asked = {name: request.GET.get(name, "") for name in ("before", "after")}
    key = (content_type, get_language(), opened.share.pk, opened.revision, *asked.values())
    body = bodies.get(key)
    if body is None:
        body = write(read_shared(opened, **asked))
        bodies.put(key, body)
    response = HttpResponse(body, content_type=content_type)
    patch_cache_control(response, private=True, no_cache=True)
    response["ETag"] = etag = f'"{hashlib.sha256(body).hexdigest()}"'
    found = get_conditional_response(request, etag=etag, response=response) or response
    # The URL contains the secret: keep it out of search engines and out of Referer headers.
    found["X-Robots-Tag"] = "noindex"
    found["Referrer-Policy"] = "no-referrer"
    return found


def _holding(session: ChatSession) -> QuerySet[Share]:
    return Share.objects.filter(session=session, revoked_at=None)
