"""Links under which anybody reads a session, until they are revoked."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from conversations.branches import find_end
from conversations.errors import AgentSiteError, ErrorCode
from conversations.message_reads import show_messages
from conversations.models import ChatSession, Message, Share
from conversations.notify import ShareChanged, announce_unnumbered
from conversations.queries import User, get_session, list_path, load_messages, parse_id
from conversations.rendering import render_reply
from conversations.secrets import hash_token, make_token
from conversations.shapes import MessageView

SHOWN_MAX = 2_000


@dataclass(frozen=True)
class SharedMessage:
    """What strangers see of a message: no tools, no reasoning, no ids; `agent` wrote a reply."""

    role: str
    text: str
    html: str
    created_at: str
    run_status: str | None
    agent: str | None


@dataclass(frozen=True)
class SharedSession:
    """What strangers see of a session; `shared_at` is when the link was made."""

    title: str
    shared_at: datetime
    messages: list[SharedMessage]


def list_shares(*, user: User, session_id: str) -> QuerySet[Share]:
    """The links that hold, the newest first; raises `AgentSiteError(not_found)`."""
    return _holding(get_session(user, session_id)).order_by("-created_at")


@transaction.atomic
def create_share(*, user: User, session_id: str, branch: str = "") -> tuple[Share, str]:
    """A new link to what is on the active branch now, and its token, which is not kept.

    With `branch`, the id of a message, to the branch that this one is on, as `get_history` has it.
    Raises `AgentSiteError(not_found)`, also where nothing has been said.
    """
    session = get_session(user, session_id)
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
    """End a link; raises `AgentSiteError(not_found)`."""
    session = get_session(user, session_id)
    share = _holding(session).select_for_update().filter(pk=parse_id(share_id)).first()
    if share is None:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    share.revoked_at = timezone.now()
    share.save(update_fields=["revoked_at"])
    announce_unnumbered(session, _changed(share))


def _changed(share: Share) -> ShareChanged:
    return ShareChanged(share.pk, share.created_at.isoformat(), share.revoked_at is not None)


def get_shared(token: str) -> SharedSession:
    """What a link shows; raises `AgentSiteError(not_found)` for one that does not hold."""
    shares = Share.objects.filter(
        token_hash=hash_token(token),
        revoked_at=None,
        session__deleted_at=None,
        session__owner__is_active=True,
    )
    share = shares.select_related("session").first()
    if share is None:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    rows = _list_shared(share)
    messages = [_shared(view) for view in show_messages(share.session, rows)]
    return SharedSession(share.session.title, share.created_at, messages)


def _list_shared(share: Share) -> list[Message]:
    """Without what was taken back since, and what has found a place before the end since."""
    path = load_messages(list_path(share.leaf_id, SHOWN_MAX))
    end = path[-1].number
    return [
        message
        for message in path
        if not message.withdrawn
        and (message.number <= end or message.created_at <= share.created_at)
    ]


def _shared(view: MessageView) -> SharedMessage:
    return SharedMessage(
        role=view.role,
        text=view.text,
        html=render_reply(view.parts or []),
        created_at=view.created_at,
        run_status=view.run_status,
        agent=view.agent,
    )


def _holding(session: ChatSession) -> QuerySet[Share]:
    return Share.objects.filter(session=session, revoked_at=None)
