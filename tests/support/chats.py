"""Creates conversations with the product's own write functions, without a server."""

from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User

from conversations.changes import write_events
from conversations.models import ChatSession, Message, Run, RunStatus
from conversations.runs.lifecycle import Ending, claim_run, finish_run, release_run
from conversations.runs.states import Claim, Claimed
from conversations.runs.usage import ChatLimits
from conversations.sessions.posting import NewChat, Posted, post_chat

PASSWORD = "a-password-for-tests"
VIEWED_FOR = timedelta(minutes=5)


def make_user(username: str, **fields: Any) -> User:
    """Create an account that can sign in with `PASSWORD`."""
    user: User = get_user_model()._default_manager.create(
        username=username, password=_hashed_password(), **fields
    )
    return user


@cache
def _hashed_password() -> str:
    """The hash is slow on purpose, so it is computed once."""
    return make_password(PASSWORD)


CLAIM = Claim(worker="test", lease=timedelta(minutes=1), agent="assistant", model="scripted")


def ask(
    user: Any,
    content: str,
    session: ChatSession | None = None,
    *,
    claim: Claim | None = None,
    **fields: Any,
) -> Posted:
    """Post a chat; without `session` it starts one.

    Without `claim` the run stays queued, for a process that runs beside the test.
    """
    session_id = str(session.pk) if session else ""
    chat = NewChat(content=content, session_id=session_id, **fields)
    return post_chat(user=user, chat=chat, limits=ChatLimits(), viewed_for=VIEWED_FOR, claim=claim)


def session_of(posted: Posted) -> ChatSession:
    """Return the session as it is now."""
    return ChatSession._default_manager.get(pk=posted.session_id)


def begin(posted: Posted, *deltas: str, agent: str = "assistant") -> Claimed:
    """Claim the run unless it is claimed, and write `deltas` as its first tokens."""
    claim = replace(CLAIM, agent=agent)
    claimed = posted.claimed or claim_run(posted.run_id, claim)
    assert claimed is not None, "another run comes first"
    write_events(
        claimed.run, [(seq, "token", {"delta": delta}) for seq, delta in enumerate(deltas, 2)]
    )
    Run._default_manager.filter(pk=claimed.run.pk).update(last_seq=1 + len(deltas))
    return claimed


def finish(
    posted: Posted,
    text: str,
    *,
    status: RunStatus = RunStatus.COMPLETED,
    parts: list[dict[str, Any]] | None = None,
    **fields: Any,
) -> None:
    """Work on the run and end it; an interrupted one loses its worker instead."""
    if status == RunStatus.INTERRUPTED:
        begin(posted, text)
        release_run(posted.run_id, worker=CLAIM.worker)
        return
    claimed = begin(posted)
    shown = [{"type": "text", "text": text}] if parts is None else parts
    ending = Ending(status=status, parts=shown, **fields)
    finish_run(claimed, last_seq=1, events=[], ending=ending)


def talk(user: Any, *turns: tuple[str, str]) -> ChatSession:
    """Create a session with these questions and answers."""
    session = None
    for content, text in turns:
        posted = ask(user, content, session, claim=CLAIM)
        finish(posted, text)
        session = session_of(posted)
    assert session is not None, "no turns"
    return session


def last_message(session: ChatSession) -> Message:
    """Return the last message of the active branch."""
    assert session.active_leaf is not None, "nothing was said"
    return session.active_leaf
