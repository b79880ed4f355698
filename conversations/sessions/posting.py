"""What users do in a conversation: post, cancel, and rate replies."""

import hashlib
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from conversations.changes import (
    ChangeBuilder,
    FeedbackChanged,
    MessageChanged,
    RunLostError,
    RunQueued,
    announce_unnumbered,
    insert,
    lock_session,
    locked_run,
)
from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import (
    ACTIVE,
    ChatSession,
    EndReason,
    Feedback,
    Message,
    Outcome,
    Role,
    Run,
    RunStatus,
)
from conversations.queries import User, get_session, parse_id, sessions_of
from conversations.runs import states
from conversations.runs.states import Claim, Claimed
from conversations.runs.usage import ChatLimits, check_user
from conversations.sessions.lists import first_words
from conversations.shapes import RunRef, message_view, run_ref
from conversations.text import clean_text, is_blank

OnBusy = Literal["enqueue", "interrupt", "reject"]


@dataclass(frozen=True)
class NewChat:
    """A chat as a user sends it.

    `session_id` "" creates a session. `client_message_id` is the client's own id, by which a chat
    that the user sends again is recognised. `agent` None: that of the session. `on_busy` says what
    to do if the session has an unfinished run: wait (`enqueue`), stop the first unfinished run and
    go before all that wait (`interrupt`), or refuse the chat (`reject`); None: wait for a queued or
    running run, interrupt one that awaits input.

    `parent_message_id` is the reply to go on from; "" begins a branch at the root, None goes on
    from the end of the active branch, or from the reply that this chat interrupts. `regenerate` is
    the id of a reply whose prompt is to be answered again; then no message is stored, and
    `parent_message_id` is ignored.
    """

    content: str
    session_id: str = ""
    client_message_id: str | None = None
    on_busy: OnBusy | None = None
    agent: str | None = None
    parent_message_id: str | None = None
    regenerate: str | None = None

    @property
    def digest(self) -> str:
        """A hash of `content` and `regenerate`, and of nothing else.

        A chat with a `client_message_id` that was sent before must have the same digest: else
        `post_chat` refuses it.
        """
        asked = f"{self.regenerate or ''}\n{self.content}"
        return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Posted:
    """The result of a chat; `claimed` is set if the transaction that added its run has claimed it.

    `duplicate`: the chat had been posted before, and this is the earlier result, but with `run` as
    it is now and without `claimed`.
    """

    session_id: UUID
    run: RunRef
    user_message_id: UUID
    outcome: Outcome
    duplicate: bool
    claimed: Claimed | None = None

    @property
    def run_id(self) -> UUID:
        return self.run.run_id


def post_chat(
    *,
    user: AbstractBaseUser,
    chat: NewChat,
    limits: ChatLimits,
    viewed_for: timedelta | None,
    claim: Claim | None,
) -> Posted:
    """Store a message, an empty reply and a run, in one transaction; return what was done.

    With `chat.regenerate`, no message is stored, only a reply and a run. A `client_message_id` that
    the user has sent before returns the earlier result and stores nothing. A run that need not wait
    is claimed with `claim` (None: not claimed here) in the same transaction, and announced to this
    process's executor after the commit. The session counts as watched for `viewed_for`; None: its
    runs are never cancelled as unwatched.

    Raises `AgentSiteError`: bad_frame (blank text), not_found, not_authenticated, busy, queue_full,
    limit_runs, limit_tokens, limit_site, duplicate_mismatch.
    """
    if not chat.regenerate and is_blank(chat.content):
        raise AgentSiteError(ErrorCode.BAD_FRAME)
    try:
        return _Post(user, chat, limits, viewed_for, claim).write()
    except (IntegrityError, AgentSiteError):
        # Looked up only now, as hardly any chat is a duplicate. One that is reaches the run's
        # unique constraint, unless a check before it fails; then too it gets the earlier result.
        if (first := _find_duplicate(user, chat)) is None:
            raise
        return first


def _find_duplicate(user: AbstractBaseUser, chat: NewChat) -> Posted | None:
    if chat.client_message_id is None:
        return None
    run = Run.objects.filter(owner_id=user.pk, client_message_id=chat.client_message_id).first()
    if run is None:
        return None
    if run.content_hash != chat.digest:
        raise AgentSiteError(ErrorCode.DUPLICATE_MISMATCH)
    return Posted(run.session_id, run_ref(run), run.prompt_id, Outcome(run.outcome), True)


@dataclass
class _Post:
    """Writes one chat under the session's lock, in a transaction of `write`; it is used once."""

    user: AbstractBaseUser
    chat: NewChat
    limits: ChatLimits
    viewed_for: timedelta | None
    claim: Claim | None

    @transaction.atomic
    def write(self) -> Posted:
        is_new = not self.chat.session_id
        self.session = self._make_session() if is_new else self._lock_session()
        self.change = ChangeBuilder(self.session, is_new=is_new)
        self.interrupted, self.waiting = self.change.head, self.change.waiting
        self.outcome = self._decide()
        number = self._make_room()
        asked = self._get_prompt()
        prompt = asked or self._make_prompt()
        run = self._make_run(number, prompt)
        moved = self._follow_branch(run)
        # The session first: the triggers of the search index look up the owner of each message.
        self._save_session()
        self._add_messages([prompt, run.reply] if asked is None else [run.reply], run, moved)
        claimed = self._start(run)
        self.change.announce("created" if is_new else "activity")
        return Posted(
            session_id=self.session.pk,
            run=run_ref(run),
            user_message_id=prompt.pk,
            outcome=self.outcome,
            duplicate=False,
            claimed=claimed,
        )

    def _make_session(self) -> ChatSession:
        session = ChatSession(rev=1, agent=self.chat.agent or "")
        session.owner_id = self.user.pk
        return session

    def _lock_session(self) -> ChatSession:
        return lock_session(parse_id(self.chat.session_id), user=self.user)

    @property
    def _agent(self) -> str:
        return self.chat.agent or self.session.agent

    def _decide(self) -> Outcome:
        check_user(self.user.pk, self.limits, starts=self.interrupted is None)
        self.checked_at = time.monotonic()
        if self.interrupted is None:
            return Outcome.STARTED if self.claim else Outcome.QUEUED
        awaits = self.interrupted.status == RunStatus.AWAITING_INPUT
        on_busy = self.chat.on_busy or ("interrupt" if awaits else "enqueue")
        if on_busy == "reject":
            raise AgentSiteError(ErrorCode.BUSY)
        if len(self.waiting) >= self.limits.queue_max:
            raise AgentSiteError(ErrorCode.QUEUE_FULL)
        return Outcome.QUEUED if on_busy == "enqueue" else Outcome.INTERRUPTING

    def _make_room(self) -> int:
        """Stop the run that is to be interrupted, if any; return the number of the new run."""
        if self.outcome != Outcome.INTERRUPTING or self.interrupted is None:
            return self.session.run_count + 1
        states.stop(self.change, self.interrupted, EndReason.REDIRECT)
        number = self.waiting[0].number if self.waiting else self.session.run_count + 1
        # From the last one: no two runs of a session may have the same number at any time.
        for run in reversed(self.waiting):
            run.number += 1
            run.save(update_fields=["number"])
        return number

    @property
    def _replies(self) -> QuerySet[Message]:
        """The replies that a chat may go on from or regenerate."""
        return self.session.messages.filter(role=Role.ASSISTANT, withdrawn=False)

    def _get_prompt(self) -> Message | None:
        if not self.chat.regenerate:
            return None
        asked = parse_id(self.chat.regenerate)
        reply = self._replies.filter(pk=asked).select_related("parent").first()
        if reply is None:
            raise AgentSiteError(ErrorCode.NOT_FOUND)
        return reply.parent

    def _make_prompt(self) -> Message:
        return self._make_message(
            role=Role.USER,
            parent_id=self._find_parent(),
            parts=[{"type": "text", "text": clean_text(self.chat.content)}],
            client_message_id=self.chat.client_message_id or "",
        )

    def _find_parent(self) -> UUID | None:
        if self.chat.parent_message_id is None:
            if self.outcome == Outcome.INTERRUPTING and self.interrupted is not None:
                return self.interrupted.reply_id
            return self.session.active_leaf_id
        if not self.chat.parent_message_id:
            return None
        parent = parse_id(self.chat.parent_message_id)
        if not self._replies.filter(pk=parent).exists():
            raise AgentSiteError(ErrorCode.NOT_FOUND)
        return parent

    def _make_message(self, **fields: Any) -> Message:
        self.session.message_count += 1
        return Message(
            session=self.session,
            number=self.session.message_count,
            rev=self.session.rev,
            **fields,
        )

    def _make_run(self, number: int, prompt: Message) -> Run:
        run = Run(
            session=self.session,
            number=number,
            agent=self._agent,
            prompt=prompt,
            reply=self._make_message(role=Role.ASSISTANT, parent_id=prompt.pk),
            client_message_id=self.chat.client_message_id,
            content_hash=self.chat.digest,
            outcome=self.outcome,
        )
        run.owner_id = self.user.pk
        self.session.run_count += 1
        self.change.unfinished.append(run)
        self.change.unfinished.sort(key=lambda run: run.number)
        return run

    def _follow_branch(self, run: Run) -> Message | None:
        """Make the new reply the end of the active branch; return the message moved behind it.

        None is moved, unless the chat interrupts a run that another message waits behind: then it
        is inserted between the two.
        """
        interrupts = self.outcome == Outcome.INTERRUPTING
        after = self.waiting[0].prompt if self.waiting and interrupts else None
        if (
            after is None
            or self.interrupted is None
            or after.parent_id != self.interrupted.reply_id
        ):
            self.session.active_leaf_id = run.reply_id
            return None
        after.parent_id = run.reply_id
        after.rev = self.session.rev
        return after

    def _add_messages(self, made: list[Message], run: Run, moved: Message | None) -> None:
        """Store the new messages, and `moved` with its new parent; collect their events."""
        insert(made)
        for message in made:
            of_run = run if message is run.reply else None
            self.change.add(MessageChanged(message_view(message, run=of_run), created=True))
        if moved is not None:
            moved.save(update_fields=["parent", "rev"])
            self.change.add(MessageChanged(message_view(moved), created=False))

    def _save_session(self) -> None:
        session = self.session
        session.title = session.title or first_words(self.chat.content)
        # A chat in an archived session ends its archiving.
        session.archived_at = None
        session.viewed_until = None if self.viewed_for is None else timezone.now() + self.viewed_for
        if session._state.adding:
            insert([session])
            return
        fields = ["title", "viewed_until", "active_leaf", "message_count", "run_count"]
        session.save(update_fields=[*fields, "archived_at"])

    def _start(self, run: Run) -> Claimed | None:
        """Store the run: claimed if it is the next one, else with its position in the queue."""
        if self.claim is not None and self.change.claimable == run.pk:
            claimed = states.claim(self.change, run, self.claim)
            claimed = replace(claimed, checked_at=self.checked_at)
            states.hand_over(self.change, claimed)
            return claimed
        insert([run])
        position = self.change.unfinished.index(run)
        self.change.add(RunQueued(run_ref(run), position=position))
        return None


@dataclass(frozen=True)
class Stopped:
    """The result of a cancel: the run's status and last seq after the cancel.

    A running run is still "running" then, until its worker ends it; if its cancel had been
    requested before, nothing was changed. `ended_before`: the run had ended already, and nothing
    was changed.
    """

    run: RunRef
    status: str
    seq: int
    ended_before: bool


def cancel_run(
    *,
    user: User,
    session_id: str,
    run_id: str | None = None,
    client_message_id: str | None = None,
) -> Stopped:
    """Cancel a run that no worker owns, or request a cancel from the worker of a running one.

    The run is that with `run_id` or, if this is None, with `client_message_id`. With neither, it is
    the first unfinished run of the session, else its last one. Nothing is changed if the run has
    ended or its cancel was requested before. A run that waits is cancelled too, but its message
    stays. Raises `AgentSiteError(not_found)`, also for a session without runs.
    """
    run = _find_run(user, parse_id(session_id), run_id, client_message_id)
    if run.is_ended or run.cancel_requested_at is not None:
        return _stopped(run, ended_before=run.is_ended)
    try:
        return stop_run(run.pk, EndReason.USER)
    except Run.DoesNotExist as exc:  # purged meanwhile
        raise AgentSiteError(ErrorCode.NOT_FOUND) from exc


def stop_run(run_id: UUID, reason: EndReason) -> Stopped:
    """Cancel a run that no worker owns, or request a cancel from the worker of a running one.

    `reason` is stored, unless a cancel was requested before. A run that has ended is not changed.
    The caller must have authorised access to the run. Raises `Run.DoesNotExist`, and
    `AgentSiteError(not_found)` if the session is purged meanwhile.
    """
    try:
        with locked_run(run_id) as (change, run):
            states.stop(change, run, reason)
            return _stopped(run, ended_before=False)
    except RunLostError:
        # The run has ended since the caller looked it up.
        return _stopped(Run.objects.get(pk=run_id), ended_before=True)


def _find_run(
    user: User, session_id: UUID, run_id: str | None, client_message_id: str | None
) -> Run:
    runs = Run.objects.filter(session__in=sessions_of(user).filter(pk=session_id))
    if run_id is not None:
        run = runs.filter(pk=parse_id(run_id)).first()
    elif client_message_id is not None:
        run = runs.filter(client_message_id=client_message_id).first()
    else:
        active = runs.filter(status__in=ACTIVE).order_by("number")
        run = active.first() or runs.order_by("-number").first()
    if run is None:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    return run


def _stopped(run: Run, *, ended_before: bool) -> Stopped:
    return Stopped(run_ref(run), run.status, run.last_seq, ended_before)


def list_feedback(*, user: User, session_id: str) -> QuerySet[Feedback]:
    """Return the user's ratings in a session, oldest first; raises `AgentSiteError(not_found)`."""
    session = get_session(user, session_id)
    given = Feedback.objects.filter(user_id=session.owner_id, message__session=session)
    return given.order_by("pk")


@transaction.atomic
def give_feedback(
    *, user: User, session_id: str, message_id: str, value: str, comment: str = ""
) -> Feedback:
    """Store or replace the user's rating of a reply, with its comment; "" removes an earlier one.

    `value` must be one of `Verdict`, which is not checked. Raises `AgentSiteError(not_found)`, also
    for a message that is not a reply.
    """
    session = get_session(user, session_id)
    given, _ = Feedback.objects.update_or_create(
        message=_get_reply(session, message_id),
        user_id=session.owner_id,
        defaults={"value": value, "comment": clean_text(comment)},
    )
    announce_unnumbered(session, FeedbackChanged(given.message_id, given.value))
    return given


@transaction.atomic
def take_feedback_back(*, user: User, session_id: str, message_id: str) -> None:
    """Delete the user's rating of a reply, if there is one; announce it either way.

    Raises `AgentSiteError(not_found)`, also for a message that is not a reply.
    """
    session = get_session(user, session_id)
    reply = _get_reply(session, message_id)
    Feedback.objects.filter(message=reply, user_id=session.owner_id).delete()
    announce_unnumbered(session, FeedbackChanged(reply.pk, None))


def _get_reply(session: ChatSession, message_id: str) -> Message:
    replies = session.messages.filter(role=Role.ASSISTANT)
    reply = replies.filter(pk=parse_id(message_id)).first()
    if reply is None:
        raise AgentSiteError(ErrorCode.NOT_FOUND)
    return reply
