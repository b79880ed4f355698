"""The sessions that one reader follows: keeps frames in order and repairs gaps."""

import asyncio
import logging
from collections.abc import Callable, Iterable, KeysView, Mapping
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ObjectDoesNotExist
from django.db import DatabaseError

from conversations import queries
from conversations.errors import AgentSiteError, ErrorCode
from conversations.runs.catch_up import Heads, SessionState
from conversations.runs.states import Claim
from conversations.runs.usage import ChatLimits
from conversations.sessions import posting
from conversations.sessions.posting import NewChat, Posted
from conversations.shapes import MessageView
from realtime import dbpool, protocol
from realtime.channel_layer import (
    Hub,
    Notice,
    RunFrames,
    SessionFrames,
    session_group,
    user_group,
)
from realtime.conf import get_conf
from realtime.protocol import ResumeMetadata
from realtime.sockets import frames
from realtime.sockets.reader import (
    MissedState,
    Outbox,
    RunCursor,
    Sender,
    SessionCursor,
    read_missed,
    read_state,
    replay_run,
)
from realtime.tasks import Supervisor, describe
from realtime.telemetry import metrics


def chat_limits() -> ChatLimits:
    """Return the limits of the settings for chats, the same for sockets and REST.

    A limit on tokens that is 0 in the settings becomes None: no limit, and for guests that of
    other users.
    """
    conf = get_conf()
    return ChatLimits(
        queue_max=conf.queue_max,
        runs=conf.runs_per_user,
        tokens_a_day=conf.tokens_per_day or None,
        guest_tokens_a_day=conf.guest_tokens_per_day or None,
        site_tokens_a_day=conf.site_tokens_per_day or None,
    )


logger = logging.getLogger(__name__)

INBOX_MAX = 1_000
"""Messages that wait for a reader which is catching up; further ones are dropped."""

VIEWED_INTERVALS = 3
"""Head intervals for which a session counts as watched: one poll may be late."""


def viewed_for() -> timedelta:
    """Return how long a session counts as watched after a poll, a chat or a decision.

    `VIEWED_INTERVALS` times `head_interval_s`.
    """
    return timedelta(seconds=VIEWED_INTERVALS * get_conf().head_interval_s)


class Viewer:
    """Follows sessions for one reader, and puts their frames into its outbox.

    Methods that put a session's frames hold `lock` while they do: a frame must not overtake another
    one. The layer may lose, repeat and reorder messages, so a frame is forwarded only if it is the
    next one; all others are read from the database. With `watches` the reader counts as watching: a
    reply that nobody watches is stopped after a while.
    """

    def __init__(
        self, user: AbstractBaseUser, hub: Hub, outbox: Outbox, *, watches: bool = True
    ) -> None:
        self.user = user
        self.watches = watches
        self.lock = asyncio.Lock()
        self._hub = hub
        self._outbox = outbox
        self._sender = Sender(outbox)
        self._sessions: dict[UUID, SessionCursor] = {}
        self._groups: set[str] = set()
        # A list: it is nearly always empty, and an empty deque takes ten times the memory.
        self._inbox: list[Mapping[str, Any]] = []
        self._tasks = Supervisor()
        self._worker: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def sessions(self) -> KeysView[UUID]:
        """Ids of the followed sessions; the view changes with them."""
        return self._sessions.keys()

    @property
    def open_runs(self) -> list[UUID]:
        """Ids of the runs that this reader is being sent: their terminal frame was not put yet.

        A run that no frame or resume has named yet is not among them.
        """
        return [run_id for session in self._sessions.values() for run_id in session.open]

    @property
    def working_sessions(self) -> list[UUID]:
        """Ids of the followed sessions that have a run in `open_runs`."""
        return [session_id for session_id, session in self._sessions.items() if session.open]

    async def close(self) -> None:
        """Leave every group, and drop messages that wait or come later.

        A message that a task is handling is cancelled. Later calls of `join` join no group.
        """
        self._is_closed = True
        self._inbox.clear()
        try:
            await self._tasks.stop()
        finally:
            await self._hub.leave(self._groups, self)

    async def join_user(self) -> None:
        """Join the user's group, to get the frames that go to every socket of this user."""
        await self._join(user_group(self.user.pk))

    async def _join(self, group: str) -> None:
        if not self._is_closed:
            self._groups.add(group)
            await self._hub.join(group, self)

    async def _leave(self, group: str) -> None:
        self._groups.discard(group)
        await self._hub.leave([group], self)

    def deliver(self, message: Mapping[str, Any]) -> None:
        """Take a message of a joined group; call it on the event loop. Neither blocks nor raises.

        It is handled at once if that needs no waiting: neither for `lock` nor for an earlier
        message nor for the database. Else a task handles it, in its turn. It is dropped if
        `INBOX_MAX` messages wait, or after `close`. If handling fails, the outbox is cut.
        """
        if self._is_closed:
            return
        if self._worker is None and not self.lock.locked() and self._try_now(message):
            return
        if len(self._inbox) < INBOX_MAX:  # else the reader finds the gap
            self._inbox.append(message)
        if self._worker is None:
            self._worker = self._tasks.start(self._handle_inbox(), "inbox")

    def _try_now(self, message: Mapping[str, Any]) -> bool:
        try:
            return self._forward(message) is None
        except Exception as exc:
            self._fail(exc)
            return True

    async def _handle_inbox(self) -> None:
        try:
            while self._inbox:
                await self.on_message(self._inbox.pop(0))
        except Exception as exc:
            self._fail(exc)
        finally:
            self._worker = None

    def _fail(self, exc: Exception) -> None:
        """Close the socket: the client reconnects and resumes from its own cursor."""
        logger.error("handling a message failed: %s", describe(exc, is_private=True))
        self._inbox.clear()
        self._outbox.cut(protocol.CLOSE_RESTART)

    async def join(self, session_id: UUID) -> SessionCursor:
        """Follow a session: join its group, and return its cursor; the caller holds `lock`.

        Call it before reading the session, so that no change is missed. If `follow_max` other
        sessions are followed, one without an open run is dropped. Raises
        `AgentSiteError(too_many_sessions)` if there is none. Access to the session is not checked.
        """
        if cursor := self._sessions.pop(session_id, None):
            # Move it to the end: `_make_room` drops from the front, the least recently used.
            self._sessions[session_id] = cursor
            return cursor
        await self._make_room()
        cursor = self._sessions[session_id] = SessionCursor(session_id)
        await self._join(session_group(session_id))
        return cursor

    async def _make_room(self) -> None:
        """Make room for one more session: drop the least recently used one without an open run.

        Sessions that were only chatted in go first. If the client had resumed the dropped one, it
        is sent `unfollowed`. Raises `AgentSiteError(too_many_sessions)` if every session has an
        open run.
        """
        if len(self._sessions) < get_conf().follow_max:
            return
        idle = [session for session in self._sessions.values() if not session.open]
        if not idle:
            raise AgentSiteError(ErrorCode.TOO_MANY_SESSIONS)
        dropped = next((session for session in idle if not session.full), idle[0])
        del self._sessions[dropped.session_id]
        if dropped.full:
            told = protocol.status(protocol.Unfollowed(), dropped.session_id)
            self._sender.put(told)
        await self._leave(session_group(dropped.session_id))

    async def resume(self, session_id: str, cursor: ResumeMetadata) -> None:
        """Follow a session, answer `resumed`, and put what came after `cursor`. Takes `lock`.

        Without `cursor.rev`, or with too many messages after it, no messages are put; of the runs,
        a snapshot may stand for the events. What the outbox does not hold is put when it has
        drained. Raises `AgentSiteError`: not_found, too_many_sessions; and database errors.
        """
        async with self.lock:
            found = await self._hub.reads.read(queries.get_session, self.user, session_id)
            session = await self.join(found.pk)
            session.full = True
            with self._sender.catching_up():
                await self._answer_resume(session, cursor)

    async def _answer_resume(self, session: SessionCursor, cursor: ResumeMetadata) -> None:
        named = _parse_optional(cursor.run_id)
        asked = [*session.open, *([named] if named else [])]
        missed = await self._read_state(session, cursor.rev, asked)
        state = missed.state
        # Runs that this socket has begun to show stay open until their end is sent, whether the
        # cursor names them or was written before their first frame arrived.
        session.floor = _first_owed(state)
        if named in state.numbers:
            run = session.open_run(named, state.numbers[named])
            run.epoch, run.seq = cursor.epoch, cursor.seq
        metrics.RESUMES.labels(str(state.messages is not None).lower()).inc()
        self._sender.put(_resumed(session, state))
        self._apply_state(session, missed)
        await self._catch_up_runs(session)

    async def _read_state(
        self, session: SessionCursor, rev: int | None, runs: Iterable[UUID]
    ) -> MissedState:
        return await self._hub.reads.read(
            read_state,
            session.session_id,
            rev=rev,
            runs=frozenset(runs),
            limit=self._sender.replay_messages,
            max_chars=get_conf().outbox_bytes,
        )

    def _apply_state(self, session: SessionCursor, missed: MissedState) -> None:
        """Send messages as they are now; an open run's own frames bring the parts of its reply."""
        state, undo = missed.state, session.undo_rev()
        session.rev = state.rev
        if state.active is not None:
            session.open_run(*state.active)
        if not state.messages:
            return
        for message in state.messages:
            text = missed.message_text(message, is_open=_is_open(session, message))
            self._sender.put_text(text, undo)
        self._sender.put_text(missed.queue_text(), undo)

    async def _catch_up(self, session: SessionCursor) -> None:
        """Send what was missed. After a database error the next comparison of heads tries again."""
        try:
            with self._sender.catching_up():
                await self._read_missed(session)
        except DatabaseError as exc:
            logger.warning(
                "session %s: catch-up failed: %s", session.session_id, type(exc).__name__
            )
        except ObjectDoesNotExist:
            self._sessions.pop(session.session_id, None)

    async def _read_missed(self, session: SessionCursor) -> None:
        """Send what was missed; reads the session first, so that runs come in their order."""
        rev = session.rev if session.full else None
        missed = await self._read_state(session, rev, session.open)
        state = missed.state
        for run_id, number in state.numbers.items():
            session.open[run_id].number = number
        if session.full and state.messages is None:
            session.floor = _first_owed(state)
            self._sender.put(_resumed(session, state))
        if session.full:
            self._apply_state(session, missed)
        await self._catch_up_runs(session)

    async def _catch_up_runs(self, session: SessionCursor) -> None:
        """Catch up on runs in order; behind an unfinished one, only on runs never claimed."""
        blocked = False
        for cursor in sorted(session.open.values(), key=lambda cursor: cursor.number):
            if self._sender.pause_if_full():
                return
            await self._catch_up_run(session, cursor, blocked=blocked)
            blocked = blocked or cursor.run_id in session.open

    async def chat(
        self, chat: NewChat, offer_claim: Callable[[str | None], Claim | None]
    ) -> Posted:
        """Store a chat of the user, answer `accepted`, and follow its run. Takes `lock`.

        `offer_claim` is the executor's. Work on the run may start at the commit. No frame of it is
        sent before `accepted`: handlers of layer messages wait for `lock`, which this holds
        throughout. Raises `AgentSiteError`: too_many_sessions, and what `post_chat` raises.
        """
        async with self.lock:
            # Before the chat is stored: this may refuse it.
            if _parse_optional(chat.session_id) not in self._sessions:
                await self._make_room()
            posted = await dbpool.write_chat(
                self.user.pk,
                posting.post_chat,
                user=self.user,
                chat=chat,
                limits=chat_limits(),
                viewed_for=viewed_for() if self.watches else None,
                claim=offer_claim(chat.agent),
            )
            session = await self.join(posted.session_id)
            self._sender.put(_accepted(posted, chat.client_message_id))
            if posted.run_id not in session.ended:
                await self._follow(session, posted)
            return posted

    async def _follow(self, session: SessionCursor, posted: Posted) -> None:
        """Open the run's cursor, and send its first frames if the reader has only now joined."""
        cursor = session.open_run(posted.run_id, posted.run.run_number)
        if session.full:
            return
        if posted.claimed is None:
            await self._catch_up(session)
            return
        first = {"agent": posted.claimed.run.agent}
        frame = frames.event_frame(posted.run, 1, "run.started", first)
        self._sender.advance(session, cursor, frame.encode(), epoch=posted.run.epoch, seq=1)

    async def on_message(self, message: Mapping[str, Any]) -> None:
        """Handle a message of a joined group: forward it, ignore it, or catch up. Takes `lock`.

        Catches up if frames before it were missed; an old message is ignored, as is one about what
        this reader is not sent.
        """
        async with self.lock:
            if (session := self._forward(message)) is not None:
                metrics.GAPS_REPAIRED.labels("frame").inc()
                await self._catch_up(session)

    def _forward(self, message: Mapping[str, Any]) -> SessionCursor | None:
        """Put the message's frames if they are the next ones; the caller holds `lock`.

        Ignores old frames, and frames of what is not followed. Returns the session to catch up on,
        if frames before these were missed.
        """
        if message["type"] == "user.frames":
            for text in message["frames"]:
                self._outbox.put(text)
            return None
        session = self._sessions.get(UUID(message["session_id"]))
        if session is None:
            return None
        match message["type"]:
            case "run.frames":
                return self._forward_run(session, cast(RunFrames, message))
            case "session.frames":
                return self._forward_session(session, cast(SessionFrames, message))
            case "run.notice":
                self._forward_notice(session, cast(Notice, message))
        return None

    def _forward_run(self, session: SessionCursor, message: RunFrames) -> SessionCursor | None:
        """Forward frames of a run's journal.

        Ignores them while the outbox drains after an overflow, and those of runs that need not be
        sent to this reader.
        """
        if self._sender.behind:
            return None
        named = UUID(message["run_id"]), message["number"]
        cursor = session.get_run(*named)
        if cursor is None:
            # The run's first frames were lost, and perhaps whole runs before it.
            return session if session.is_owed(*named) else None
        if _is_old(cursor, message):
            return None
        in_turn = not message["epoch"] or not session.has_earlier(cursor.number)
        if not in_turn or not _is_next(cursor, message):
            return session
        last = message["first"] + len(message["frames"]) - 1
        for seq, text in enumerate(message["frames"], message["first"]):
            self._sender.advance(
                session,
                cursor,
                text,
                epoch=message["epoch"],
                seq=seq,
                chars=message["chars"] if seq == last else 0,
                ended=message["ended"] and seq == last,
            )
        return None

    def _forward_session(
        self, session: SessionCursor, message: SessionFrames
    ) -> SessionCursor | None:
        """Forward the next change of a session, if this reader has resumed it.

        What the message says of a reply that this reader has been sent to its end is out of date:
        the layer has put it behind the run's frames.
        """
        if not session.full or self._sender.behind or message["rev"] <= session.rev:
            return None
        is_overtaken = any(UUID(run_id) in session.ended for run_id, _ in message["runs"])
        if message["rev"] > session.rev + 1 or is_overtaken:
            return session
        undo = session.undo_rev()
        session.rev = message["rev"]
        for run_id, number in message["runs"]:
            session.find_run(UUID(run_id), number)
        for text in message["frames"]:
            self._sender.put_text(text, undo)
        return None

    def _forward_notice(self, session: SessionCursor, message: Notice) -> None:
        """Forward a frame that is not part of a run's journal, if the run is open."""
        if session.get_run(UUID(message["run_id"]), message["number"]) is not None:
            self._sender.put_text(message["frame"], _nothing)

    def is_behind(self, heads: Heads) -> bool:
        """Return whether `heads` has more of a resumed session or of an open run than was sent.

        Of a session that was only chatted in, only the open runs count.
        """
        return any(session.is_behind(heads) for session in self._sessions.values())

    async def on_heads(self, heads: Heads) -> None:
        """Catch up on sessions of which `heads` has more than was sent. Takes `lock`.

        This also finds lost last frames, after which no later frame shows the gap. Does nothing
        while the outbox drains after an overflow.
        """
        async with self.lock:
            for session in list(self._sessions.values()):
                if not self._sender.behind and session.is_behind(heads):
                    metrics.GAPS_REPAIRED.labels("poller").inc()
                    await self._catch_up(session)

    async def on_drained(self) -> None:
        """Catch up on all sessions if frames were dropped or held up. Takes `lock`.

        The outbox calls it when all its frames have been sent.
        """
        if self._outbox.caught_up():
            return
        async with self.lock:
            for session in list(self._sessions.values()):
                await self._catch_up(session)

    async def _catch_up_run(
        self, session: SessionCursor, cursor: RunCursor, *, blocked: bool
    ) -> None:
        missed = await self._hub.reads.read(
            read_missed,
            cursor.run_id,
            epoch=cursor.epoch,
            seq=cursor.seq,
            limit=self._sender.replay_events,
        )
        if not blocked or not missed.got.run.epoch:
            replay_run(self._sender, session, cursor, missed)


def _accepted(posted: Posted, client_message_id: str | None) -> protocol.Status:
    metadata = protocol.Accepted(
        client_message_id=client_message_id,
        user_message_id=str(posted.user_message_id),
        message_id=str(posted.run.message_id),
        run_id=str(posted.run.run_id),
        outcome=posted.outcome.value,
        duplicate=posted.duplicate,
    )
    return protocol.status(metadata, posted.run.session_id)


def _resumed(session: SessionCursor, state: SessionState) -> protocol.Status:
    resumed = protocol.Resumed(
        rev=state.rev,
        recovered=state.messages is not None,
        run_id=str(state.active[0]) if state.active else None,
    )
    return protocol.status(resumed, session.session_id)


def _first_owed(state: SessionState) -> int:
    """Return the number of the first run whose frames a `full` reader must still be sent."""
    return state.active[1] if state.active else state.run_count + 1


def _is_open(session: SessionCursor, message: MessageView) -> bool:
    """Return whether the reply's run is open for this reader; opens it if it must be."""
    if message.run_id is None or message.run_number is None:
        return False
    return session.find_run(UUID(message.run_id), message.run_number) is not None


def _parse_optional(run_id: str | None) -> UUID | None:
    try:
        return None if run_id is None else UUID(run_id)
    except ValueError:
        return None


def _is_old(cursor: RunCursor, message: RunFrames) -> bool:
    last = message["first"] + len(message["frames"]) - 1
    return (message["epoch"], last) <= (cursor.epoch, cursor.seq)


def _is_next(cursor: RunCursor, message: RunFrames) -> bool:
    same = message["epoch"] == cursor.epoch or cursor.epoch == 0
    return same and message["first"] == cursor.seq + 1


def _nothing() -> None:
    """The undo of a frame that moves no cursor."""
